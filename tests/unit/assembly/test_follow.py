"""What a follower reads: the operator's report and the metrics of a listener say the same."""

from __future__ import annotations

import pytest

from multiplane.api.operations import NetworkFigures
from multiplane.api.operator import LinkReport, NetworkReport
from multiplane.assembly.follow import look_of, look_of_metrics
from multiplane.kernel.errors import Faulty
from multiplane.standards.exposition import exposition

AT_NS = 1_767_225_600_000_000_000


def link(b: str, *, state: str = "up", source: str = "") -> LinkReport:
    """A link of site a."""
    return LinkReport(
        a="a",
        b=b,
        state=state,
        rate_bit_per_s=2.5e5,
        qber=0.0125,
        stock_bit=8,
        discarded_bit=0,
        length_km=1.0,
        loss_db=3.0,
        source=source,
    )


REPORT = NetworkReport(
    domain="lab",
    scenario="lab",
    at_ns=AT_NS,
    rate=2.0,
    secret=True,
    table_version=1,
    kmes=(),
    links=(link("b"), link("c", state="dark"), link("d", source="014")),
)


def test_links_that_are_down_or_fed_by_another_network_tell_nothing() -> None:
    look = look_of(REPORT)
    assert list(look.links) == ["a--b"]
    assert (look.at_ns, look.rate, look.links["a--b"].qber) == (AT_NS, 2.0, 0.0125)


def test_the_metrics_of_a_network_say_what_its_report_says() -> None:
    assert look_of_metrics(exposition(NetworkFigures(report=REPORT, processes=()))) == look_of(REPORT)


@pytest.mark.parametrize("text", ["", "multiplane_time_seconds nought\nmultiplane_time_factor 1.0\n"])
def test_what_is_no_metrics_of_a_network_is_said(text: str) -> None:
    with pytest.raises(Faulty, match="expected those of a multiplane network"):
        look_of_metrics(text)
