"""Management plane of the fabric: inventory of the links in use, since when and for how long idle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from multiplane.api import operator
from multiplane.api.device import LinkState
from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.fabric.planes import LinkReport
from multiplane.kernel.names import link_id
from multiplane.kernel.quantity import NS_PER_S

IDLE_NS: Final = 60 * NS_PER_S
AILING_NS: Final = 30 * NS_PER_S
"""A link that has not been up for so long is to be avoided."""


@dataclass(slots=True)
class _Entry:
    path: QuantumPath
    begun_ns: int
    needed_ns: int
    well_ns: int


class Inventory:
    """Links that hold a quantum path."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._links: dict[str, str] = {}

    def __contains__(self, link: str) -> bool:
        return link in self._entries

    def add(self, path: QuantumPath, now_ns: int) -> None:
        """A path was provided."""
        link = link_id(*path.ends.sites)
        if link in self._entries:
            del self._links[self._entries[link].path.path_id]
        self._entries[link] = _Entry(path, now_ns, now_ns, now_ns)
        self._links[path.path_id] = link

    def remove(self, path_id: str) -> str | None:
        """A path is gone; the link that it carried, None when it carried none."""
        link = self._links.pop(path_id, None)
        if link is not None:
            del self._entries[link]
        return link

    def paths(self) -> dict[str, QuantumPath]:
        """The path of each link."""
        return {link: entry.path for link, entry in self._entries.items()}

    def begun_ns(self) -> dict[str, int]:
        """When each link was given its path."""
        return {link: entry.begun_ns for link, entry in self._entries.items()}

    def note(self, needed: Collection[str], up: Collection[str], now_ns: int) -> None:
        """Remember which links are needed and which are up."""
        for link, entry in self._entries.items():
            if link in needed:
                entry.needed_ns = now_ns
            if link in up:
                entry.well_ns = now_ns

    def idle(self, now_ns: int) -> list[QuantumPath]:
        """Paths that nothing has needed for a minute."""
        return [entry.path for entry in self._entries.values() if now_ns - entry.needed_ns >= IDLE_NS]

    def ailing(self, now_ns: int) -> frozenset[str]:
        """Links that have a path and yet have not been up for half a minute."""
        return frozenset(k for k, entry in self._entries.items() if now_ns - entry.well_ns >= AILING_NS)


def link_record(
    link: str, loss_db: float, length_km: float, reports: tuple[LinkReport, ...]
) -> operator.LinkReport:
    """A link as the operator sees it. The ends' reports count as one: the worse state, the lower rate."""
    a, b = link.split("--")[:2]
    states = [report.state for report in reports]
    sources = dict.fromkeys(report.source for report in reports if report.source)
    reasons = [report.reason for report in reports if report.state != LinkState.UP.value]
    up = len(states) == 2 and set(states) == {LinkState.UP.value}
    parcels: Counter[str] = Counter()
    for report in reports:
        parcels.update(report.counters)
    return operator.LinkReport(
        a=a,
        b=b,
        state=next((state for state in states if up or state != LinkState.UP.value), LinkState.DARK.value),
        rate_bit_per_s=min(report.rate_bit_per_s for report in reports) if up else 0.0,
        qber=max((report.qber for report in reports), default=0.0),
        stock_bit=min((report.stock_bit for report in reports), default=0),
        discarded_bit=max((report.discarded_bit for report in reports), default=0),
        length_km=length_km,
        loss_db=loss_db,
        parcels=dict(parcels),
        stock_ab_bit=sum(report.out_bit for report in reports if report.site == a),
        stock_ba_bit=sum(report.out_bit for report in reports if report.site == b),
        reason=next(filter(None, reasons), ""),
        source=" ".join(sources),
    )
