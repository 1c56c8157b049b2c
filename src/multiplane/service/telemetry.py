"""Telemetry plane: what a key manager counts and tells, and what the controller makes of it.

Never key material.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from multiplane.api.operator import PoolLedger, StockOutlook
from multiplane.api.telemetry import Sample
from multiplane.kernel.quantity import NS_PER_S

REPEAT_NS: Final = 10 * NS_PER_S
USE_WINDOW_S: Final = 30.0
FORGET_NS: Final = 60 * NS_PER_S
IDLE_BIT_PER_S: Final = 1.0


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


class News:
    """Leaves out the samples that say nothing new; every 10 s all are told, for whoever missed some."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], float] = {}
        self._whole_ns = 0

    def of(self, samples: Iterable[Sample], now_ns: int) -> list[Sample]:
        """Those worth telling."""
        if now_ns - self._whole_ns >= REPEAT_NS:
            self._told.clear()
            self._whole_ns = now_ns
        news = []
        for sample in samples:
            name = (sample.subject, sample.name)
            if self._told.get(name) != sample.value:
                self._told[name] = sample.value
                news.append(sample)
        return news


class _Stock:
    """One stock as its samples draw it: what lies there, and an average of what is given out."""

    __slots__ = ("at_ns", "delivered_bit", "stock_bit", "told_ns", "use_bit_per_s")

    def __init__(self, at_ns: int) -> None:
        self.at_ns = self.told_ns = at_ns
        self.stock_bit = 0.0
        self.delivered_bit = -1.0
        self.use_bit_per_s = 0.0

    def delivered(self, value_bit: float, at_ns: int) -> None:
        """Take in how much was ever given out. A smaller amount than before begins a new count."""
        took_s = (at_ns - self.at_ns) / NS_PER_S
        if took_s > 0 and 0 <= self.delivered_bit <= value_bit:
            weight = 1.0 - math.exp(-took_s / USE_WINDOW_S)
            self.use_bit_per_s += weight * ((value_bit - self.delivered_bit) / took_s - self.use_bit_per_s)
        self.at_ns, self.delivered_bit = at_ns, value_bit


class StockView:
    """The stocks of all key managers of a domain, as the controller knows them from their samples."""

    def __init__(self) -> None:
        self._stocks: dict[tuple[str, str], _Stock] = {}

    def note(self, sample: Sample) -> bool:
        """Take a sample in; False when it is not of the near side of a stock, or no amount."""
        owner, peer, side = (*sample.subject.split("/"), "", "")[:3]
        if side != "near" or not 0.0 <= sample.value < math.inf:
            return False
        stock = self._stocks.setdefault((owner, peer), _Stock(sample.at_ns))
        stock.told_ns = max(stock.told_ns, sample.at_ns)
        if sample.name == "stock":
            stock.stock_bit = sample.value
        elif sample.name == "delivered":
            stock.delivered(sample.value, sample.at_ns)
        return True

    def outlooks(self, now_ns: int) -> tuple[StockOutlook, ...]:
        """How long each stock lasts; a stock of which nothing was heard for a minute is not known any more.

        An average that nothing is added to fades: use that has ended is no use.
        """
        self._stocks = {k: stock for k, stock in self._stocks.items() if now_ns - stock.told_ns <= FORGET_NS}
        found = []
        for (owner, peer), stock in sorted(self._stocks.items()):
            quiet_s = max(0, now_ns - stock.at_ns) / NS_PER_S
            use_bit_per_s = stock.use_bit_per_s * math.exp(-quiet_s / USE_WINDOW_S)
            used = use_bit_per_s >= IDLE_BIT_PER_S
            found.append(
                StockOutlook(
                    owner=owner,
                    peer=peer,
                    stock_bit=round(stock.stock_bit),
                    use_bit_per_s=use_bit_per_s,
                    lasts_s=stock.stock_bit / use_bit_per_s if used else None,
                    at_ns=stock.told_ns,
                )
            )
        return tuple(found)
