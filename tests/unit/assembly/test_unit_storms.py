"""Any process dies in the middle of units, over channels that lose, repeat and reorder: the ends still agree.

MULTIPLANE_FULL=1 runs 2,000 interleavings; a sample otherwise.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter

import pytest
from tests.support import shared
from tests.support.storm import Storm, in_storm

from multiplane.api.units import Answer, Part, Wish
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import element_urn
from multiplane.service.agent.live import ENDED
from multiplane.service.planes.units import UnitRules
from multiplane.service.resource.unit_rows import UNIT_KIND, VERDICT_KIND, UnitRow, units_of, verdicts_of
from multiplane.twin.oracle import Oracle
from multiplane.twin.scenario import parse

FULL = os.environ.get("MULTIPLANE_FULL", "") not in ("", "0")
SEEDS = 2_000 if FULL else 200
EDGES = [("a", "b"), ("b", "c"), ("b", "d")]
WORLD = parse(
    shared.scenario(
        EDGES,
        memories=8,
        fidelity=0.9,
        success_probability=0.02,
        t1_s=1_000.0,
        t2_s=100.0,
        cutoff_s=20.0,
        saes=True,
    ),
    "storm.toml",
)
VALID_S = 4.0
LEASE_S = UnitRules().lease_s
ANSWER_S = 0.05
"""Far more than the way to the farthest site and back, in calm weather."""


def wishes(draw: random.Random) -> list[tuple[str, Wish]]:
    """Of all kinds, from several sites."""
    found = []
    for number in range(draw.randint(2, 4)):
        asker, *others = draw.sample("abcd", draw.choice((2, 2, 3)))
        kind, purified = ("ghz", 0.8) if len(others) > 1 else ("bell", 0.9)
        floor = draw.choice((0.0, purified))
        parts = [Part(kind=kind, size=draw.randint(1, 6), min_fidelity=floor)]
        if len(others) == 1 and draw.random() < 0.2:
            parts = [Part(kind="bell", size=2), Part(kind="bell", size=1)]
        parties = tuple(f"{name}-1" for name in others)
        found.append(
            (asker, Wish(request=f"r{number}", parties=parties, parts=tuple(parts), valid_s=VALID_S))
        )
    return found


async def ask(storm: Storm, name: str, wish: Wish, answers: list[Answer]) -> None:
    """By an application whose site, and whose broker, may die meanwhile."""
    for _ in range(4):
        site = storm.places[name].site
        if site is not None and site.units is not None:
            try:
                answers.append(await site.units.request(storm.caller(name), wish))
            except (MultiplaneError, asyncio.CancelledError):
                await asyncio.sleep(0.3)
            else:
                return


async def strike(storm: Storm) -> str:
    """A process, or all at once, a link, the channels of a site, while something is under way."""
    draw = storm.draw
    await asyncio.sleep(draw.choice((0.0, 0.0005, 0.002, 0.01, 0.05)) * draw.random() * 2)
    victim = draw.choice((*storm.places, *3 * ["control"], "all", "link", "ways"))
    away_s = draw.choice((0.0, 0.005, 0.3, 2.0))
    if victim == "link":
        await storm.darken(*draw.choice(EDGES), away_s)
        return victim
    if victim == "ways":
        life = storm.places[draw.choice("abcd")].life
        assert life is not None
        life.cut()
        return victim
    sites = storm.places if victim == "all" else [victim] if victim in storm.places else ()
    control = victim in ("control", "all")
    if control:
        await storm.control_falls()
    for name in sites:
        await storm.fall(name)
    await asyncio.sleep(away_s)
    for name in sites:
        await storm.rise(name)
    if control:
        await storm.control_rises()
    return victim if victim in ("control", "all") else "site"


async def scene(storm: Storm) -> Counter[str]:
    answers: list[Answer] = []
    asking = [asyncio.ensure_future(ask(storm, name, wish, answers)) for name, wish in wishes(storm.draw)]
    storm.weather.calm = storm.draw.random() < 0.2
    counts = Counter([await strike(storm) for _ in range(storm.draw.randint(1, 3))])
    await asyncio.sleep(storm.draw.choice((0.0, 0.2)))
    storm.weather.calm = True
    calm_ns = storm.timeline.now_ns()
    await asyncio.wait(asking, timeout=12)
    for task in asking:
        task.cancel()
    last_ns = max(calm_ns, *(row.proposal.valid_until_ns for row in rows(storm).values()), *storm.back_ns)
    due_ns = last_ns + round((LEASE_S + ANSWER_S) * 1e9)
    await asyncio.sleep(max(0.0, (due_ns - storm.timeline.now_ns()) / 1e9))
    counts["delivered"] = check(storm)
    counts["spoilt"] = storm.weather.spoilt
    counts["run delivered"] = counts["delivered"] > 0
    await everything_is_free(storm)
    return counts


def rows(storm: Storm) -> dict[str, UnitRow]:
    """All units by digest; each store has them under the same names."""
    found: dict[str, UnitRow] = {}
    for name in storm.places:
        for row in units_of(storm.store.scan(element_urn("shared", name), UNIT_KIND)):
            assert found.setdefault(row.digest, row).urns == row.urns
    return found


def check(storm: Storm) -> int:
    """Verdicts of all ends, in what is durable and in what applications were told; how many delivered."""
    delivered = 0
    for digest, row in rows(storm).items():
        known = {}
        for name in dict.fromkeys(row.proposal.sites):
            durable = verdicts_of(storm.store.scan(element_urn("shared", name), VERDICT_KIND))
            known[name] = {one.decision.state: one.decision.index for one in durable.get(digest, ())}
        asker = row.proposal.sites[0]
        for name, verdicts in known.items():
            for state, index in verdicts.items():
                assert known[asker].get(state, -1) == index, f"{digest} {state}: {index} at {name}"
            site = storm.places[name].site
            assert site is not None
            assert site.units is not None
            live = site.units.core.units.get(digest)
            if live is None:  # this end died before the name was durable
                assert not verdicts
                continue
            assert not live.end.must_ask, f"{name} has no verdict on {live.end.doubts}"
            assert live.state in (*ENDED, "delivered"), live.state
            assert live.row.urns == row.urns
            mine = sorted(state for state, index in known[asker].items() if index >= 0)
            assert sorted(live.delivered.values()) == mine, (
                f"{digest}: {name} does not know what was delivered"
            )
        count = sum(index >= 0 for index in known[asker].values())
        if len(row.proposal.parts) > 1:
            assert count in (0, sum(part.size for part in row.proposal.parts)), "half a pack"
        delivered += count
    return delivered


async def everything_is_free(storm: Storm) -> None:
    """What units hold at once; what a control that died has left behind a lease after it came back."""
    for place in storm.places.values():
        assert place.site is not None
        assert place.site.units is not None
        book = place.site.units.core.book
        assert not [one for unit in place.site.units.core.units for one in book.live(unit)]
    await asyncio.sleep(40)
    figures = await storm.centre.unit_control.quis()
    assert not figures.phases, figures
    assert figures.memories_reserved == figures.memories_in_use == 0
    for place in storm.places.values():
        assert place.site is not None
        assert place.site.repeater is not None
        assert await place.site.repeater.jobs(storm.centre.caller) == ()
    assert Oracle(storm.centre.twin.quantum).held() == 0, "a memory leaks"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_dies_in_whatever_weather_the_ends_agree_and_everything_is_free() -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts += in_storm(WORLD, seed, scene)
    assert counts["run delivered"] > 0.6 * SEEDS, counts
    rare = 3 * min(counts["all"], counts["link"], counts["ways"])
    assert min(counts["control"], counts["site"], rare) > SEEDS / 4, counts
    assert counts["spoilt"] > 5 * SEEDS, counts
