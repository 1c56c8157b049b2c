"""Many wishes at once: each ends in one of four ways, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from tests.unit.service.unit_kit import SITES, Ear, Net, play, wish

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.units import Units, Wish
from multiplane.kernel.errors import Busy
from multiplane.kernel.nouns import Caller
from multiplane.service.planes.units import UnitRules

ENDS = {"delivered", "counter-offer", "refused", "expired"}


async def end_of(units: Units, caller: Caller, asked: Wish) -> str:
    """How a wish ends, as whoever wished hears it."""
    try:
        answer = await units.request(caller, asked)
    except Busy:
        return "refused"
    if answer.verdict != "accepted":
        return answer.verdict
    ear = Ear()
    await units.watch(caller, answer.unit, 0, ear)
    while True:
        ends = [what for what in ear.whats() if what in (*ENDS, "lost", "released")]
        if ends:
            return ends[-1]
        await ear.more()


def mixed(draw: random.Random, number: int, names: tuple[str, ...]) -> tuple[str, Wish]:
    """A pair, a GHZ state or a key between applications of different sites."""
    asker, *others = draw.sample(names, 3)
    kind = ("bell", "ghz", "key")[number % 3]
    parties = tuple(f"{name}-1" for name in others[: 2 if kind == "ghz" else 1])
    floor = 0.0 if kind == "key" else draw.choice((0.0, 0.8, 0.9999))
    return f"{asker}-1", wish(*parties, kind=kind, min_fidelity=floor, request=f"r{number}")


def test_five_hundred_wishes_at_once_each_end_and_leave_nothing() -> None:
    async def run(net: Net) -> None:
        draw = random.Random(5)
        net.fabric.spoil = lambda order, number, site: draw.random() < 0.05
        asked = [mixed(draw, number, SITES) for number in range(500)]
        ends = Counter(
            await asyncio.gather(
                *(end_of(net.units(alias[:-2]), net.caller(alias), wished) for alias, wished in asked)
            )
        )
        assert set(ends) <= ENDS, ends
        assert ends["delivered"] > 300, ends
        assert ends["counter-offer"] > 50, ends
        await asyncio.sleep(4000 + net.rules.keep_s)
        net.assert_no_memory_is_held()
        for name, place in net.places.items():
            assert not place.agent.core.units, f"{name} remembers units"
            for kind in ("unit", "unit-verdict"):
                assert net.store.scan(f"urn:qkd:test:{name}:kme", kind) == []

    play(run, rules=UnitRules(rate_per_s=1e6, burst=10_000))


def test_a_state_of_an_order_that_is_no_unit_s_is_let_go_of() -> None:
    async def run(net: Net) -> None:
        order = UnitOrder(order_id="check/ann--bob/1", kind="bell", sites=("ann", "bob"), size=1)
        net.places["ann"].memories.hand_over(order, "s0")
        await asyncio.sleep(0.01)
        net.assert_no_memory_is_held()

    play(run)
