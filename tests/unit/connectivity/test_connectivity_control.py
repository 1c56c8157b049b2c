"""Connectivity's planes: spans, path computation, inventory. All pure."""

from __future__ import annotations

import pytest

from multiplane.api.device import SpanAlarm, SpanReading
from multiplane.api.fabric_connectivity import PathDemand, QuantumPath
from multiplane.connectivity.control import choose, classical, lit_spans, potential
from multiplane.connectivity.management import inventory
from multiplane.connectivity.resource import Fibres
from multiplane.connectivity.telemetry import Light
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import ends


def reading(span: str, length_km: float, loss_db: float, lost: bool = False) -> SpanReading:
    return SpanReading(span=span, length_km=length_km, loss_db=loss_db, lost=lost)


def ring() -> Fibres:
    """a-b-c-d-a, with a second, worse fibre between a and b."""
    return Fibres(
        (
            reading("a--b", 20.0, 4.0),
            reading("a--b--2", 30.0, 8.0),
            reading("b--c", 20.0, 4.0),
            reading("c--d", 20.0, 4.0),
            reading("a--d", 60.0, 12.0),
        )
    )


def cut(fibres: Fibres, span: str, lost: bool = True) -> None:
    assert fibres.alarm(SpanAlarm(span=span, lost=lost, at_ns=1, reason="cut")) is not None


def demand(a: str, b: str, max_loss_db: float = 20.0) -> PathDemand:
    return PathDemand(demand_id=f"{a}{b}", ends=ends(a, b), max_loss_db=max_loss_db)


def test_potential_is_the_best_light_between_each_pair() -> None:
    fibres = ring()
    assert [(link.ends.sites, link.loss_db) for link in potential(fibres.spans.values())] == [
        (("a", "b"), 4.0),
        (("a", "d"), 12.0),
        (("b", "c"), 4.0),
        (("c", "d"), 4.0),
    ]
    cut(fibres, "a--b")
    cut(fibres, "b--c")
    links = potential(fibres.spans.values())
    assert (links[0].ends.sites, links[0].loss_db) == (("a", "b"), 8.0)
    assert [link.ends.sites for link in links] == [("a", "b"), ("a", "d"), ("c", "d")]
    assert links[1].delay_ns == 300_000


def test_choose_takes_the_least_loss_that_is_free() -> None:
    fibres = ring()
    spans = list(fibres.spans.values())
    assert choose(demand("a", "b"), spans, ()).span == "a--b"
    assert choose(demand("a", "b"), spans, {"a--b"}).span == "a--b--2"
    with pytest.raises(Busy, match=r"path\.none_now"):
        choose(demand("a", "b", max_loss_db=5.0), spans, {"a--b"})
    with pytest.raises(Refused, match=r"path\.unattainable.*12\.00"):
        choose(demand("a", "d", max_loss_db=5.0), spans, ())
    with pytest.raises(Refused, match=r"path\.unattainable"):
        choose(demand("a", "c"), spans, ())
    cut(fibres, "b--c")
    with pytest.raises(Busy, match=r"path\.none_now"):
        choose(demand("b", "c"), fibres.spans.values(), ())


def test_classical_paths_take_the_shortest_delay_over_light() -> None:
    fibres = ring()
    route = classical(lit_spans(fibres.spans.values()), ends("a", "d"))
    assert route is not None
    assert route.path.delay_ns == 300_000
    assert len(route.links) in {1, 3}
    cut(fibres, "a--d")
    route = classical(lit_spans(fibres.spans.values()), ends("a", "d"))
    assert route is not None
    assert route.links == ("a--b", "b--c", "c--d")
    cut(fibres, "a--b")
    route = classical(lit_spans(fibres.spans.values()), ends("a", "d"))
    assert route is not None
    assert route.path.delay_ns == 350_000, "over the second fibre"
    cut(fibres, "c--d")
    assert classical(lit_spans(fibres.spans.values()), ends("a", "d")) is None
    with pytest.raises(Refused, match=r"path\.unattainable"):
        classical(lit_spans(fibres.spans.values()), ends("a", "nowhere"))


def test_an_alarm_that_is_no_news_is_none() -> None:
    fibres = ring()
    cut(fibres, "a--b")
    assert fibres.alarm(SpanAlarm(span="a--b", lost=True, at_ns=2)) is None
    assert fibres.alarm(SpanAlarm(span="nowhere", lost=True, at_ns=2)) is None
    assert fibres.spans["a--b"].reason == "cut"
    cut(fibres, "a--b", lost=False)
    assert fibres.spans["a--b"].reason == ""


def test_a_span_must_name_two_sites() -> None:
    with pytest.raises(ValueError, match="sites"):
        Fibres((reading("lonely", 1.0, 0.2),))


def test_the_inventory_says_who_uses_what() -> None:
    fibres, light = ring(), Light()
    path = QuantumPath(
        path_id="p",
        demand_id="d",
        ends=ends("a", "b"),
        spans=("a--b",),
        length_km=20.0,
        loss_db=4.0,
        delay_ns=100_000,
    )
    fibres.connect(path, "fabric")
    cut(fibres, "b--c")
    assert light.alarm(fibres.spans["b--c"], 5).value == 0.0
    records = {record.span.span: record for record in inventory(fibres.spans, fibres.busy(), light.alarms)}
    assert (records["a--b"].path_id, records["a--b"].link, records["a--b"].used_by) == ("p", "a--b", "fabric")
    assert (records["b--c"].path_id, records["b--c"].alarms, records["b--c"].span.lost) == ("", 1, True)
    assert fibres.over("a--b") == [path]
    assert fibres.disconnect("p") == path
    assert fibres.busy() == {}
