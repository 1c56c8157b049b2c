"""Links of pairs to plan with, made from a few numbers.

With MULTIPLANE_FULL=1 plans are held against brute force on many networks; otherwise on a sample of them.
"""

from __future__ import annotations

import os
from typing import Any, Final

from multiplane.api.fabric_units import Attainable, UnitOrder
from multiplane.api.instructions import LinkSheet
from multiplane.fabric.control.choosing import Choosing
from multiplane.fabric.control.drafts import draft
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.views import LinkFact, PairView
from multiplane.kernel.names import link_id

FULL: Final = os.environ.get("MULTIPLANE_FULL", "") not in ("", "0")


def sheet(a: str, b: str, *, fidelity: float = 0.97, **given: Any) -> LinkSheet:
    """A link with a Werner pair of this fidelity; one attempt in 25 succeeds, five thousand a second."""
    rest = (1.0 - fidelity) / 3.0
    plain: dict[str, Any] = {
        "link": link_id(a, b),
        "sites": tuple(sorted((a, b))),
        "memories": (4, 4),
        "success_probability": 0.04,
        "attempt_ns": 200_000,
        "delay_ns": 100_000,
        "weights": (fidelity, rest, rest, rest),
        "t1_s": (10.0, 10.0),
        "t2_s": (0.5, 0.5),
    }
    return LinkSheet(**{**plain, **given})


def view(*sheets: LinkSheet, revision: int = 0) -> PairView:
    """A domain in which all is up and free."""
    return PairView(
        links={each.link: LinkFact(sheet=each, free=each.memories) for each in sheets}, revision=revision
    )


def order(*sites: str, kind: str = "", **given: Any) -> UnitOrder:
    """Pairs for two sites, GHZ states for more."""
    return UnitOrder(
        order_id="order", kind=kind or ("bell" if len(sites) == 2 else "ghz"), sites=sites, **given
    )


def answered(chosen: Choosing, wanted: UnitOrder, now_ns: int = 0) -> tuple[int, Attainable]:
    """The answer to a wish, and how many searches for it took long."""
    answering, longer = chosen.attainable(wanted, now_ns), 0
    try:
        view = next(answering)
        while True:
            longer += 1
            view = answering.send(draft(wanted, view, Policies()))
    except StopIteration as answer:
        return longer, answer.value
