"""Stock of persistent entanglement between two sites that no link joins: how full it is, what to give. Pure.

A stock is a unit of the two agents themselves. Its states wait in memories at both ends, agreed upon, and are
handed over to a unit of applications when one is asked for. It is filled up to `high` whenever fewer than
`low` of its states are fresh; a state ceases to be fresh so long before it falls below the floor that another
can be made in the meantime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from multiplane.service.resource.addresses import Holding
from multiplane.service.resource.verdicts import FOR_EVER_NS


class Marks(NamedTuple):
    """When to fill and how far.

    Args: renew_ns: how long before a state's end another one is ordered.
    """

    low: int
    high: int
    renew_ns: int


def marks(high: int, expected_ns: int) -> Marks:
    """Marks for a stock of `high` states of which one takes `expected_ns` in the mean.

    A state is renewed three times as long before its end: by then 95 % of exponential waits are over.
    """
    return Marks(low=high - high // 4, high=high, renew_ns=3 * expected_ns)


def wanting(levels: Marks, ends_ns: Sequence[int], on_order: int, now_ns: int) -> int:
    """How many states to order now.

    Args: ends_ns: when each state of the stock falls below its floor.
    """
    fresh = sum(end_ns - levels.renew_ns > now_ns for end_ns in ends_ns)
    return levels.high - fresh - on_order if fresh + on_order < levels.low else 0


def next_due_ns(levels: Marks, ends_ns: Sequence[int], now_ns: int) -> int:
    """When the next state ceases to be fresh."""
    turns = (end_ns - levels.renew_ns for end_ns in ends_ns)
    return min((turn_ns for turn_ns in turns if turn_ns > now_ns), default=FOR_EVER_NS)


def choose(there: Sequence[Holding], number: int, until_ns: int) -> list[Holding]:
    """States to hand over that last until a time: of those, the ones that end first. All or none."""
    lasting = sorted(
        (one for one in there if one.expires_ns >= until_ns), key=lambda one: (one.expires_ns, one.state)
    )
    return lasting[:number] if len(lasting) >= number else []
