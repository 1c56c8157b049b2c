"""What is no order is refused, and the reason names field, value and what was expected."""

from __future__ import annotations

import pytest
from tests.unit.fabric.edc_kit import order

from multiplane.fabric.control.unit_orders import check
from multiplane.kernel.errors import Refused

SITES = ("a", "b", "c", "d")
NOW_NS = 10**18


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"order_id": ""}, "order_id"),
        ({"order_id": "x" * 201}, "order_id"),
        ({"kind": "cat"}, "kind"),
        ({"sites": ("a",)}, "sites"),
        ({"sites": ("a", "a")}, "sites"),
        ({"sites": ("a", "b", "c")}, "sites"),
        ({"sites": ("a", "nowhere")}, "sites"),
        ({"kind": "ghz", "sites": tuple(f"s{n}" for n in range(21))}, "sites"),
        ({"via": ("nowhere",)}, "via"),
        ({"avoid": ("a",)}, "avoid"),
        ({"via": ("c",), "avoid": ("c",)}, "avoid"),
        ({"edges": ((0, 1),)}, "edges"),
        ({"kind": "graph", "edges": ((0, 2),)}, "edges"),
        ({"kind": "graph", "edges": ((0, 0),)}, "edges"),
        ({"kind": "graph", "edges": ((0, 1), (1, 0))}, "edges"),
        ({"kind": "graph", "sites": SITES, "edges": ((0, 1), (2, 3))}, "edges"),
        ({"size": -1}, "size"),
        ({"size": 10**12}, "size"),
        ({"min_fidelity": 1.5}, "min_fidelity"),
        ({"min_fidelity": float("nan")}, "min_fidelity"),
        ({"hold_ns": -1}, "hold_ns"),
        ({"deadline_ns": NOW_NS}, "deadline_ns"),
        ({"rate_per_s": -1.0}, "rate_per_s"),
        ({"rate_per_s": float("inf")}, "rate_per_s"),
        ({"sacrifice_share": 1.0}, "sacrifice_share"),
        ({"measure": "w"}, "measure"),
    ],
)
def test_bad_orders(fields: dict[str, object], named: str) -> None:
    given = {"order_id": "o", "sites": ("a", "b"), **fields}
    bad = order(str(given.pop("order_id")), *given.pop("sites"), **given)  # type: ignore[misc]
    with pytest.raises(Refused, match=rf"^fabric\.order: {named}: .*, expected ") as caught:
        check(bad, SITES, NOW_NS)
    assert len(caught.value.reason) < 300


def test_good_orders() -> None:
    check(order("o", "a", "b", deadline_ns=NOW_NS + 1, via=("c",), avoid=("d",), size=0), SITES, NOW_NS)
    check(order("o", *SITES, kind="ghz"), SITES, NOW_NS)
    check(order("o", *SITES, kind="graph", edges=((0, 1), (1, 2), (3, 1))), SITES, NOW_NS)
