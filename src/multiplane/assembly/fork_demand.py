"""Applications that ask for key at a given rate, and when the stock they ask from runs dry.

A stock is *dry* from the first request that is answered 503 (`key.dry`, `key.cold`, `key.route_lost`) after
one that was granted. A demand that was never granted anything is not dry: its way never opened.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from multiplane.kernel.errors import Busy
from multiplane.kernel.nouns import Noun
from multiplane.kernel.ports import Clock
from multiplane.kernel.quantity import PS_PER_NS, ns_from_s

KEY_BIT: Final = 256
MOST_KEYS: Final = 128
MOST_OPEN: Final = 128
ASK_EVERY_S: Final = 0.25
DRY_CODES: Final = frozenset({"key.dry", "key.cold", "key.route_lost"})

Issue = Callable[[str, str, int], Awaitable[None]]
"""(owner, peer, number): get `number` keys of 256 bits for applications at two sites. Raises: Busy."""


class Demand(Noun, frozen=True, kw_only=True):
    """Applications at `owner` ask for `rate_bit_per_s` > 0 of key with applications at `peer`."""

    owner: str
    peer: str
    rate_bit_per_s: float


class Drawn(msgspec.Struct, kw_only=True):
    """What became of a demand; times in nanoseconds since it began."""

    served_bit: int = 0
    refused: int = 0
    dry_ns: int | None = None
    code: str = ""


async def draw(
    clock: Clock, issue: Issue, demand: Demand, drawn: Drawn, *, chance: random.Random | None
) -> None:
    """Ask for key at the rate of a demand until cancelled; note in `drawn` what came of it.

    Each request is for as many keys as are needed in a quarter of a second (1 to 128). None waits for the
    answer to another, but no more than 128 are open: those that would be are not made.

    Args: chance: draws the times between requests from an exponential distribution; None = all are equal.
    """
    number = max(1, min(round(demand.rate_bit_per_s * ASK_EVERY_S / KEY_BIT), MOST_KEYS))
    mean_s = number * KEY_BIT / demand.rate_bit_per_s
    begun_ns = due_ns = clock.now_ns()
    async with asyncio.TaskGroup() as opened:
        waiting: set[asyncio.Task[None]] = set()
        while True:
            due_ns += ns_from_s(mean_s if chance is None else chance.expovariate(1.0 / mean_s))
            await clock.sleep_until_ps((due_ns - clock.epoch_ns) * PS_PER_NS)
            if len(waiting) < MOST_OPEN:
                after_ns = clock.now_ns() - begun_ns
                task = opened.create_task(_ask(issue, demand, number, drawn, after_ns))
                waiting.add(task)
                task.add_done_callback(waiting.discard)


async def _ask(issue: Issue, demand: Demand, number: int, drawn: Drawn, after_ns: int) -> None:
    """One request, made `after_ns` after the demand began."""
    try:
        await issue(demand.owner, demand.peer, number)
    except Busy as error:
        drawn.refused, drawn.code = drawn.refused + 1, error.code
        if drawn.dry_ns is None and drawn.served_bit and error.code in DRY_CODES:
            drawn.dry_ns = after_ns
    else:
        drawn.served_bit += number * KEY_BIT
