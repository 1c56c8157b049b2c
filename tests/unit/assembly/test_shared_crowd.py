"""Many orders at once: each one ends, and everything is free afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

from tests.support.shared import Ear, Quis, in_study, leaks, order, world

from multiplane.api.fabric_units import UnitOrder
from multiplane.assembly.study import Study
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import ends

NS_PER_S = 10**9


def name(wide: int, x: int, y: int) -> str:
    """Of a site of a grid."""
    return f"n{y * wide + x:04d}"


def grid(wide: int, high: int) -> Iterator[tuple[str, str]]:
    """Its links."""
    for y in range(high):
        for x in range(wide):
            if x + 1 < wide:
                yield name(wide, x, y), name(wide, x + 1, y)
            if y + 1 < high:
                yield name(wide, x, y), name(wide, x, y + 1)


def orders(rng: random.Random, wide: int, high: int, count: int, now_ns: int) -> Iterator[UnitOrder]:
    """Of all kinds: pairs and GHZ states, near and some far, hasty and patient, some of them hopeless.

    Most are asked for in a corner of six by six sites, where they are in one another's way.
    """
    for number in range(count):
        w, h = (wide, high) if number % 25 == 0 else (min(wide, 6), min(high, 6))
        parties = 3 if number % 4 == 3 else 2
        sites = set[str]()
        x, y = rng.randrange(w), rng.randrange(h)
        while len(sites) < parties:
            sites.add(
                name(
                    wide,
                    max(0, min(w - 1, x + rng.randint(-2, 2))),
                    max(0, min(h - 1, y + rng.randint(-2, 2))),
                )
            )
        yield order(
            f"o{number}",
            *rng.sample(sorted(sites), parties),
            size=rng.randint(1, 3),
            min_fidelity=rng.choice((0.0, 0.7, 0.8, 0.999)),
            deadline_ns=now_ns + rng.choice((2_000_000, 50_000_000, NS_PER_S, 20 * NS_PER_S)),
            priority=rng.choice((0, 0, 0, 1)),
            sacrifice_share=rng.choice((0.0, 0.3)),
            measure=rng.choice(("", "z")) if parties == 2 else "",
        )


def crowd(wide: int, high: int, count: int, seed: int) -> Counter[str]:
    """How orders ended: `released`, `failed`, or the code of a refusal."""
    found: Counter[str] = Counter()

    async def workload(study: Study, quis: Quis) -> None:
        for site in study.sites:
            await Ear(study, site, keeps_s=0.005).listen()
        rng = random.Random(seed)
        began_ns = study.timeline.now_ns()
        placed = []
        for each in orders(rng, wide, high, count, began_ns):
            try:
                await study.centre.units.place(study.centre.caller, each)
            except (Busy, Refused) as error:
                found[error.code] += 1
            else:
                placed.append(each.order_id)
        await asyncio.sleep(0.2)
        await study.scenario.cut(study.centre.caller, ends(name(wide, 0, 0), name(wide, 1, 0)))
        for order_id in placed:
            found[(await quis.until(order_id, "released", "failed")).phase.value] += 1
        assert study.timeline.now_ns() - began_ns <= 20 * NS_PER_S
        await asyncio.sleep(5)
        assert not leaks(study)
        assert not study.centre.edc.open_errands

    in_study(world(grid(wide, high), success_probability=0.02), seed, workload)
    return found


def test_each_of_many_orders_ends_and_nothing_is_left() -> None:
    found = crowd(6, 6, 40, 1)
    assert found.total() == 40
    assert found["released"] >= 15
    assert found["fabric.unattainable"] >= 5
