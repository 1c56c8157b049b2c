"""Telemetry plane: what a key manager counts and tells. Never key material."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from multiplane.api.operator import PoolLedger
from multiplane.api.telemetry import Sample


class Counters:
    """Events by name; names are stable, dotted."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """Count `amount` more events called `name`."""
        self._counts[name] += amount

    def values(self) -> dict[str, int]:
        """All counts, by name."""
        return dict(sorted(self._counts.items()))


def stock_samples(ledgers: Iterable[PoolLedger], now_ns: int) -> Iterator[Sample]:
    """How much lies in each stock, and how much was ever delivered from it."""
    for ledger in ledgers:
        subject = f"{ledger.owner}/{ledger.peer}/{ledger.side}"
        yield Sample(subject=subject, name="stock", value=float(ledger.stock_bit), unit="bit", at_ns=now_ns)
        yield Sample(
            subject=subject, name="delivered", value=float(ledger.delivered_bit), unit="bit", at_ns=now_ns
        )
