"""What a key manager tells of its stock: every ledger, in bits, under the time it was asked at."""

from __future__ import annotations

from multiplane.api.operator import PoolLedger
from multiplane.service.telemetry import Counters, stock_samples


def ledger(side: str, stock_bit: int, delivered_bit: int) -> PoolLedger:
    """A ledger between a and b that closes."""
    return PoolLedger(
        owner="a",
        peer="b",
        side=side,
        epoch=1,
        made_bit=stock_bit + delivered_bit,
        stock_bit=stock_bit,
        delivered_bit=delivered_bit,
        burnt_bit=0,
        expired_bit=0,
        phase="open",
    )


def test_each_ledger_gives_stock_and_delivered_in_bits() -> None:
    samples = list(stock_samples([ledger("near", 4096, 512), ledger("far", 1024, 256)], 7))
    assert [(one.subject, one.name, one.value, one.unit, one.at_ns) for one in samples] == [
        ("a/b/near", "stock", 4096.0, "bit", 7),
        ("a/b/near", "delivered", 512.0, "bit", 7),
        ("a/b/far", "stock", 1024.0, "bit", 7),
        ("a/b/far", "delivered", 256.0, "bit", 7),
    ]


def test_counters_add_up_by_name() -> None:
    counters = Counters()
    for name, amount in (("refused", 1), ("issued", 3), ("refused", 2)):
        counters.add(name, amount)
    assert counters.values() == {"issued": 3, "refused": 3}
