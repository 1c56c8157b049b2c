"""Reads the counts of the links of pairs off the twin."""

from __future__ import annotations

from typing import Final

from multiplane.api.operator import PairLinkReport
from multiplane.assembly.backend_links import Ahead
from multiplane.twin.quantum.devices import Entangled, Entanglement
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.links import Link

LOOK_NS: Final = 1_000_000_000
"""Rates are means over at least so much of the network's time."""


class PairLinks:
    """All links of pairs; remembers the last look for their rates.

    Args: began_ns: when counting began, the network's time.
    """

    def __init__(self, entanglement: Entanglement, quantum: Quantum, began_ns: int) -> None:
        self._words, self._links = entanglement.links, quantum.links
        self._looked_ns = began_ns
        self._made = dict.fromkeys(self._links, 0)
        self._rates_per_s = dict.fromkeys(self._links, 0.0)

    def reports(self, now_ns: int) -> tuple[PairLinkReport, ...]:
        """Every link as it is now."""
        elapsed_ns = now_ns - self._looked_ns
        if elapsed_ns >= LOOK_NS:
            for name, link in self._links.items():
                self._rates_per_s[name] = (link.made - self._made[name]) / elapsed_ns * 1e9
                self._made[name] = link.made
            self._looked_ns = now_ns
        return tuple(_report(one, self._links[one.id], self._rates_per_s[one.id]) for one in self._words)


def _report(words: Entangled, link: Link, rate_per_s: float) -> PairLinkReport:
    held = [words.memories - len(side.free) - len(side.raw) for side in link.sides]
    backend = link.protocol if isinstance(link.protocol, Ahead) else None
    return PairLinkReport(
        a=words.sites[0],
        b=words.sites[1],
        type=words.type,
        handshake=words.handshake,
        memories=words.memories,
        state=("making" if link.wanted else "idle") if link.lit else "dark",
        held_a=held[0],
        held_b=held[1],
        attempts=link.attempts,
        heralds=link.heralds,
        pairs=link.made,
        expired=sum(side.expired for side in link.sides),
        rate_per_s=rate_per_s,
        late=backend.late if backend else 0,
        fault=backend.stock.fault if backend else link.fault,
    )
