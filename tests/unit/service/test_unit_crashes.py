"""Agents die and rise in the middle of units: no opposite verdicts, every end ends, all memories are free."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from tests.unit.service.unit_kit import SITES, Ear, Net, play, wish

from multiplane.api.units import Answer, Part, Wish
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.service.planes.units import UnitRules
from multiplane.service.resource.unit_rows import UNIT_KIND, VERDICT_KIND, UnitRow, units_of, verdicts_of

RULES = UnitRules(lease_s=0.2, stock_idle_s=3.0)
PACK = (Part(kind="bell", size=2), Part(kind="ghz", size=1))


def wishes(draw: random.Random) -> list[tuple[str, Wish]]:
    """A few wishes of all sorts from several sites."""
    found = []
    for number in range(draw.randint(1, 4)):
        asker, *others = draw.sample(SITES, draw.randint(2, 4))
        parties = tuple(f"{name}-1" for name in others)
        name = f"r{number}"
        if len(parties) == 1 and draw.random() < 0.4:
            asked = Wish(request=name, parties=parties, parts=PACK, valid_s=2.0)
        elif len(parties) == 1 and draw.random() < 0.5:
            asked = wish(*parties, kind="bell", size=2, options={"stock": "2"}, request=name)
        else:
            asked = wish(*parties, kind="ghz", size=draw.randint(1, 8), valid_s=2.0, request=name)
        found.append((f"{asker}-1", asked))
    return found


async def try_to_ask(net: Net, alias: str, asked: Wish, answers: list[Answer]) -> None:
    """A caller whose site may die under it."""
    try:
        answers.append(await net.units(alias[:-2]).request(net.caller(alias), asked))
    except MultiplaneError:
        return
    except asyncio.CancelledError:
        return


async def torment(net: Net, draw: random.Random) -> None:
    """Kill some agents, cut some channels, spoil some parts."""
    net.fabric.spoil = lambda order, number, site: draw.random() < 0.1
    for _ in range(draw.randint(0, 4)):
        await asyncio.sleep(draw.choice((0.0003, 0.001, 0.003, 0.01, 0.5)))
        name = draw.choice(SITES)
        if draw.random() < 0.4:
            net.places[name].links.close("cut")
            continue
        await net.fall(name)
        if draw.random() < 0.3 and net.places[name].memories.held:
            net.places[name].memories.lose(draw.choice(sorted(net.places[name].memories.held)))
        await asyncio.sleep(draw.choice((0.0005, 0.01, 0.3, 3.0)))
        await net.rise(name)
    net.fabric.spoil = lambda order, number, site: False


def check(net: Net) -> Counter[str]:
    """Verdicts agree over all stores; what is delivered is known to all ends; whole packs only."""
    owners = {name: f"urn:qkd:test:{name}:kme" for name in SITES}
    verdicts = {name: verdicts_of(net.store.scan(owner, VERDICT_KIND)) for name, owner in owners.items()}
    units: dict[str, UnitRow] = {}
    for owner in owners.values():
        for row in units_of(net.store.scan(owner, UNIT_KIND)):
            known = units.setdefault(row.digest, row)
            assert known.urns == row.urns
    counts: Counter[str] = Counter()
    for digest, row in units.items():
        known_at = {
            name: {one.decision.state: one.decision.index for one in verdicts[name].get(digest, ())}
            for name in dict.fromkeys(row.proposal.sites)
        }
        decider = known_at[row.proposal.sites[0]]
        for name, rows in known_at.items():
            for state, index in rows.items():
                assert decider.get(state, -1) == index, f"{digest} {state}: {name} holds another verdict"
        counts["delivered"] += sum(index >= 0 for index in decider.values())
        if len(row.proposal.parts) > 1:
            assert sum(index >= 0 for index in decider.values()) in (0, 3), "half a pack"
    return counts


async def scene(net: Net, seed: int) -> Counter[str]:
    draw = random.Random(seed)
    answers: list[Answer] = []
    net.fabric.lifetime_ns = 1_500_000_000 if draw.random() < 0.3 else 5_000_000_000
    asking = []
    for alias, asked in wishes(draw):
        asking.append(asyncio.ensure_future(try_to_ask(net, alias, asked, answers)))
        await asyncio.sleep(draw.choice((0.0, 0.0004, 0.01)))
    await torment(net, draw)
    await asyncio.sleep(20)  # beyond valid-until, and beyond the lease after the last to rise
    for task in asking:
        task.cancel()
    counts = check(net)
    for answer in answers:
        counts[answer.verdict] += 1
    net.assert_no_memory_is_held()
    for place in net.places.values():
        for live in place.agent.core.units.values():
            assert not live.end.must_ask, "an end has no verdict long after all rose again"
            assert live.state in ("expired", "released", "refused", "delivered"), live.state
    return counts


@pytest.mark.parametrize("block", range(6))
def test_whoever_dies_ends_agree_and_nothing_is_left(block: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(25 * block, 25 * (block + 1)):
        counts += play(lambda net, seed=seed: scene(net, seed), rules=RULES)  # type: ignore[misc]
    assert counts["delivered"] > 25
    assert counts["accepted"] > 10


def test_an_asker_that_dies_and_rises_goes_on_where_it_was() -> None:
    async def run(net: Net) -> None:
        answer = await net.units("ann").request(net.caller("ann-1"), wish("bob-1", size=40, valid_s=4.0))
        ear, other = Ear(), Ear()
        await net.units("bob").watch(net.caller("bob-1"), answer.unit, 0, other)
        await other.until("delivered", 5)
        await net.fall("ann")
        await asyncio.sleep(0.01)
        await net.rise("ann")
        await net.units("ann").watch(net.caller("ann-1"), answer.unit, 0, ear)
        for one in (ear, other):
            await one.until("delivered", 30)
        rows = [sorted(event.index for event in one.of("delivered")) for one in (ear, other)]
        assert rows[0][:30] == rows[1][:30] == list(range(30))

    play(run, rules=RULES)


async def restart(net: Net, *names: str) -> None:
    """All dies, the fabric too, and rises one after the other."""
    for name in names:
        await net.fall(name)
    net.fabric.begin_anew()
    for name in names:
        await net.rise(name)


def test_when_the_whole_network_began_anew_units_that_were_granted_go_on() -> None:
    async def run(net: Net) -> None:
        asked = wish("bob-1", kind="bell", rate_per_s=2.0, valid_s=30.0, request="rate")
        rate = await net.units("ann").request(net.caller("ann-1"), asked)
        asked = wish("bob-1", kind="ghz", size=40, valid_s=4.5, request="many")
        many = await net.units("cy").request(net.caller("cy-1"), asked)
        await asyncio.sleep(0.02)
        net.fabric.refuse = Refused("fabric.unattainable", "no links that are up lead there")
        await restart(net, "ann", "bob", "cy")
        at_ns = net.timeline.now_ns()
        await asyncio.sleep(2)
        net.fabric.refuse = None
        ear, other = Ear(), Ear()
        await net.units("bob").watch(net.caller("bob-1"), rate.unit, 0, ear)
        await net.units("cy").watch(net.caller("cy-1"), many.unit, 0, other)
        await asyncio.sleep(2)
        assert any(event.at_ns > at_ns for event in ear.of("delivered"))
        lost, came = other.of("lost"), other.of("delivered")
        assert 0 < len(lost) < 20
        assert sorted(event.index for event in lost + came) == list(range(40))

    play(run, rules=RULES)


def test_keys_of_a_unit_are_there_once_after_a_restart_and_the_unit_is_as_it_was() -> None:
    async def run(net: Net) -> None:
        answer = await net.units("ann").request(
            net.caller("ann-1"), wish("bob-1", kind="key", size=3, valid_s=100.0)
        )
        await asyncio.sleep(0.1)
        await restart(net, "ann", "bob")
        await asyncio.sleep(1)
        for name in ("ann", "bob"):
            (view,) = await net.units(name).units(net.caller(f"{name}-1"))
            assert (view.state, view.delivered, view.consumed) == ("delivered", 3, 0)
        assert len(await net.units("bob").keys(net.caller("bob-1"), answer.unit)) == 3
        await restart(net, "ann", "bob")
        await asyncio.sleep(1)
        with pytest.raises(Refused, match=r"unit\.consumed.*taken before"):
            await net.units("bob").keys(net.caller("bob-1"), answer.unit)

    play(run, rules=RULES)
