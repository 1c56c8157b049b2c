"""MadQCI with tired links under stated demands: what a copy foresees, and what then happens over HTTPS."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

from tests.scenes.tools.network import Network
from tests.scenes.tools.openloop import OpenLoop

from multiplane.assembly.control import LOCAL_OPERATOR, Control, control
from multiplane.assembly.fork_demand import ASK_EVERY_S, KEY_BIT, MOST_KEYS, Demand
from multiplane.assembly.fork_state import Moment, moment_of
from multiplane.kernel.nouns import ends

Pair = tuple[str, str]
OPENING_S = 30.0
SLOWER = (1.0, 3.0)
"""A busy machine gets a second chance at a third of the rate."""
LOOK_S = 0.2

LOSSES_DB = {("quijote", "quiron"): 23.0, ("norte", "quevedo"): 23.0, ("distrito", "norte"): 22.0}
"""A link of MadQCI makes more than applications here could use up: these get worse before the question."""
DEMANDS_BIT_PER_S: dict[Pair, float] = {
    ("quiron", "quintin"): 1.1e5,
    ("quijote", "quiron"): 1.0e5,
    ("quijote", "norte"): 5.4e4,
    ("quevedo", "norte"): 4.4e4,
    ("norte", "quevedo"): 1.05e5,
    ("distrito", "norte"): 1.4e5,
}
PROMPT_MS = 90.0
"""Of the network's time: half of the answers come sooner, or requests were late by themselves. At rate 3 they
take 9 to 36 ms on two idle cores."""
LATE_MS = 1500.0
"""The same: 99 of 100 answers come sooner, after waiting for stock, or the network lagged behind its rate."""
WAITING_MS = 1000.0
"""By the client's clock."""
FAST = 20.0
"""The rate at which the network fills its stocks before the question."""


class TooBusy(AssertionError):
    """The machine lets the network fall behind its rate, whatever it does."""


class Lived(NamedTuple):
    """What happened: the state before; network seconds to the first 503 of each pair."""

    moment: Moment
    dry_s: dict[Pair, float | None]
    kept_up: bool
    shown: str


def demands(times: float = 1.0) -> tuple[Demand, ...]:
    """So many times the demands, as a question to a copy."""
    return tuple(
        Demand(owner=owner, peer=peer, rate_bit_per_s=times * rate)
        for (owner, peer), rate in DEMANDS_BIT_PER_S.items()
    )


async def lived(
    network: Network, rate: float, for_s: float, *, seed: int | None = None, times: float = 1.0
) -> Lived:
    """One run of `live` in which the network kept up with its rate, or a lower one. Raises: TooBusy."""
    for slower in SLOWER:
        one = await live(network, rate / slower, for_s, seed, times)
        if one.kept_up:
            return one
    raise TooBusy(f"this machine is too busy for rate {rate / slower:g}\n{one.shown}")


async def live(
    network: Network, rate: float, for_s: float, seed: int | None = None, times: float = 1.0
) -> Lived:
    """Weaken links, open pairs, let stocks fill, look, then ask for `for_s` seconds of the network's time.

    Args: seed: of random times between requests, those of a copy of this seed; None = all are equal.
    """
    loops = {pair: _loop(network, pair, times * bit, rate) for pair, bit in DEMANDS_BIT_PER_S.items()}
    async with control(network.state) as doors:
        for sites, loss_db in LOSSES_DB.items():
            await doors.scenario.set_loss(LOCAL_OPERATOR, ends(*sites), loss_db)
        await doors.pace.set_rate(LOCAL_OPERATOR, FAST)
        await asyncio.gather(*(_opened(loop) for loop in loops.values()))
        await _full(doors)
        await doors.pace.set_rate(LOCAL_OPERATOR, rate)
        for pair, loop in loops.items():
            loop.forget()
            loop.chance = None if seed is None else random.Random(f"{seed}/{pair}")
        begin = await doors.operator.moment(LOCAL_OPERATOR)
        begun_s = asyncio.get_running_loop().time()
        await asyncio.gather(*(loop.offer(for_s / rate) for loop in loops.values()))
        end = await doors.operator.report(LOCAL_OPERATOR)
        took_s = asyncio.get_running_loop().time() - begun_s
    for loop in loops.values():
        await loop.close()
    true_rate = (end.at_ns - begin.report.at_ns) / 1e9 / took_s
    dry_s = {
        pair: None if loop.refused_s is None else loop.refused_s * true_rate for pair, loop in loops.items()
    }
    shown = "\n".join(f"{pair}: {loop.shown()}" for pair, loop in loops.items())
    kept_up = all(
        loop.p_ms(0.5) * rate <= PROMPT_MS and (loop.p_ms(0.99) - WAITING_MS) * rate <= LATE_MS
        for loop in loops.values()
    )
    return Lived(moment_of(begin), dry_s, kept_up, shown)


async def _opened(loop: OpenLoop) -> None:
    """Keys are granted once: the way is open. It asks again until then."""
    deadline_s = asyncio.get_running_loop().time() + OPENING_S
    while not loop.took_s and asyncio.get_running_loop().time() < deadline_s:
        await loop.offer(1e-9)
    assert loop.took_s, loop.shown()


async def _full(doors: Control) -> None:
    """Wait until no stock is being filled and nothing is on its way."""
    async with asyncio.timeout(OPENING_S):
        while True:
            report = await doors.operator.report(LOCAL_OPERATOR)
            if not any(ledger.filling for kme in report.kmes for ledger in kme.ledgers):
                return
            await asyncio.sleep(LOOK_S)


def _loop(network: Network, pair: Pair, rate_bit_per_s: float, rate: float) -> OpenLoop:
    owner, peer = (network.sae_at(site).name for site in pair)
    number = max(1, min(round(rate_bit_per_s * ASK_EVERY_S / KEY_BIT), MOST_KEYS))
    return OpenLoop(network, owner, peer, rate_bit_per_s * rate / (number * KEY_BIT), number=number)
