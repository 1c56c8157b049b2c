"""Orders of the controller's own that measure links: when something measures bad, which link is it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.estimation import WINDOW, Counts, checked
from multiplane.kernel.quantity import NS_PER_S

EVERY_NS: Final = 30 * NS_PER_S
"""A link is checked at most so often, and has so long for it."""
SHARE: Final = math.nextafter(1.0, 0.0)
"""Of the states, measured: all, as good as, since nobody wants one that is handed over."""
PREFIX: Final = "check/"


class Checks:
    """Remembers when each link was checked. A check ends when it has measured `enough`."""

    def __init__(self) -> None:
        self._due_ns: dict[str, int] = {}

    def due(self, links: Iterable[str], now_ns: int) -> list[UnitOrder]:
        """Orders that measure pairs of each link that was not checked lately."""
        orders = []
        for link in sorted(links):
            if self._due_ns.get(link, 0) <= now_ns:
                self._due_ns[link] = now_ns + EVERY_NS
                orders.append(_order(link, now_ns))
        return orders


def enough(counts: Counts) -> bool:
    """Whether a check has measured what it should."""
    return checked(counts) >= WINDOW


def _order(link: str, now_ns: int) -> UnitOrder:
    a, b = link.split("--")
    return UnitOrder(
        order_id=f"{PREFIX}{link}/{now_ns}",
        kind="bell",
        sites=(a, b),
        size=0,
        deadline_ns=now_ns + EVERY_NS,
        priority=1,
        sacrifice_share=SHARE,
    )
