"""Links of pairs on the screen."""

from __future__ import annotations

import io
from typing import Any

import msgspec
from rich.console import Console
from tests.unit.cli.conftest import report

from multiplane.api.device import LinkState
from multiplane.api.operator import PairLinkReport, QuiFigures
from multiplane.api.scenario import WorldLink
from multiplane.cli import view
from multiplane.kernel.nouns import ends


def pairs(**more: Any) -> PairLinkReport:
    known: dict[str, Any] = {
        "a": "a", "b": "b", "type": "double-click", "handshake": "grant", "memories": 4, "state": "making",
        "held_a": 2, "held_b": 1, "attempts": 900, "heralds": 12, "pairs": 10, "expired": 3,
        "rate_per_s": 845.2,
    }  # fmt: skip
    return PairLinkReport(**(known | more))


def shown(what: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(what)
    return out.getvalue()


def test_status_shows_links_of_pairs_where_there_are_any() -> None:
    assert "double-click" not in shown(view.status_view(report()))
    dark = pairs(a="c", b="d", state="dark")
    text = shown(view.status_view(msgspec.structs.replace(report(), pair_links=(pairs(), dark))))
    lines = [line for line in text.splitlines() if "double-click" in line]
    assert [line.split()[0] for line in lines] == ["a", "c"]
    for word in ("making", "2 - 1", "845/s", "10", "3"):
        assert word in lines[0]
    assert "dark" in lines[1]


def test_a_backend_that_is_late_or_silent_is_named() -> None:
    links = (pairs(late=5), pairs(a="b", b="c", handshake="sequence", fault="it ended"))
    text = shown(view.status_view(msgspec.structs.replace(report(), pair_links=links)))
    assert "pairs a - b: 5 pairs were computed too late" in text
    assert "pairs b - c: no answer: it ended" in text


def test_many_links_of_pairs_are_cut_off_with_the_dark_ones_first() -> None:
    links = tuple(
        pairs(a=f"n{n:03d}", b=f"n{n + 1:03d}", state="dark" if n == 90 else "idle") for n in range(100)
    )
    text = shown(view.status_view(msgspec.structs.replace(report(), pair_links=links)))
    assert "n090 - n091" in text
    assert f"{view.MOST_LINKS} of 100 links of pairs" in text


def test_topology_says_which_spans_make_pairs() -> None:
    link = WorldLink(
        ends=ends("a", "b"), length_km=20.0, loss_db=4.0, profile="bare-fibre", state=LinkState.DARK,
        cut=False, rate_bit_per_s=0.0,
    )  # fmt: skip
    assert "pairs" not in shown(view.topology_view([link], None))
    with_pairs = msgspec.structs.replace(link, pair_type="double-click", memories=4)
    assert "4 x double-click" in shown(view.topology_view([with_pairs, link], None))


def test_status_counts_orders_of_shared_states_once_there_were_any() -> None:
    assert "orders of shared states" not in shown(view.status_view(report()))
    quis = QuiFigures(
        phases={"bound": 2, "preparing": 1}, ended={"released": 7}, waiting=1, memories_reserved=12,
        memories_in_use=5, rebinds=3,
    )  # fmt: skip
    text = shown(view.status_view(msgspec.structs.replace(report(), quis=quis)))
    assert (
        "orders of shared states: 2 bound, 1 preparing, 7 released, 1 in line, carried anew 3 times; "
        "5 of 12 reserved memories in use" in text
    )
