"""Five hundred wishes at once through the whole stack: pairs, GHZ states and keys, some of them hopeless.

Each comes to the door of its site, as from the server there. Agents, broker, key managers, controllers of all
strata, repeaters and devices of the twin do the rest, in the places that `multiplane up` gives them. What is
delivered is used: states are measured and keys collected at every end.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.support import shared
from tests.unit.assembly.test_shared_crowd import grid, name
from tests.unit.service.kit import ledgers
from tests.unit.service.unit_kit import Ear

from multiplane.api.states import Step
from multiplane.api.units import Part, Units, Wish
from multiplane.assembly.study import Study, run_study
from multiplane.assembly.unit_control import UnitControl
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import Caller, ends
from multiplane.service.agent.live import Live
from multiplane.service.resource.addresses import Holding
from multiplane.service.resource.blocks import WORD_BYTE, words_of
from multiplane.service.resource.unit_rows import UNIT_KIND, VERDICT_KIND
from multiplane.twin.scenario import World, parse

ISLE = ("isle1", "isle2")
"""Two sites that nothing links with the others; the fibre between them is cut while all are asking."""
CUT_S = 0.02
KEEP_S = 650.0
"""After so long no unit is remembered."""
ANY: tuple[str, ...] = ("delivered", "counter-offer", "refused", "expired")
PERIODIC = {"multiplane.fabric.reporting", "multiplane.fabric.controller", "multiplane.service.kme"}
"""Modules whose timers go on for as long as the network lives."""


def world(wide: int, high: int) -> World:
    """A grid and the isle: each fibre has modules that make key, and memories at both ends."""
    links = [*grid(wide, high), ISLE]
    text = shared.scenario(
        links, memories=8, success_probability=0.05, t2_s=60.0, saes=True, key_bit_per_s=2_000_000
    )
    return parse(text, "crowd.toml")


def sites_of(rng: random.Random, wide: int, high: int, count: int, corner: int) -> list[str]:
    """Different sites near one another; in nine of ten cases in a corner, in one another's way."""
    w, h = (wide, high) if rng.random() < 0.1 else (corner, corner)
    x, y = rng.randrange(w), rng.randrange(h)
    found: dict[str, None] = {}
    while len(found) < count:
        there = x + rng.randint(-2, 2), y + rng.randint(-2, 2)
        found[name(wide, min(max(there[0], 0), w - 1), min(max(there[1], 0), h - 1))] = None
    return list(found)


def wishes(wide: int, high: int) -> Iterator[tuple[str, Wish, tuple[str, ...]]]:
    """Who asks, for what, and how it may end: 200 pairs, 200 wishes for keys, 100 GHZ states."""
    rng = random.Random(5)
    for number in range(500):
        kind = ("bell", "key", "ghz", "key", "bell")[number % 5]
        parties = rng.choice((3, 4)) if kind == "ghz" else 2
        sites = sites_of(rng, wide, high, parties, 4 if kind == "key" else 8)
        part = Part(kind=kind, size=rng.randint(1, 3), min_fidelity=rng.choice((0.0, 0.7, 0.8)))
        valid_s, may = 0.0, ANY
        if kind == "key":
            part = Part(kind=kind, size=part.size, size_bit=rng.choice((128, 256, 1000)))
            valid_s, may = 20.0, ("delivered",)
        match number % 50:
            case 0 | 1:
                sites, may = [sites[0], ISLE[0]], ("refused",)
            case 2 | 4:
                part = Part(kind=kind, min_fidelity=0.9999)
                may = ("counter-offer", "refused") if kind == "ghz" else ("counter-offer",)
            case 5 | 7:
                valid_s, may = 1e-4, ("refused",)
            case 10:
                sites, part, valid_s, may = list(ISLE), Part(kind=kind, size=50), 0.5, ("expired",)
        asker, *others = (f"{site}-1" for site in sites)
        yield asker, Wish(request=f"r{number}", parties=tuple(others), parts=(part,), valid_s=valid_s), may


class Crowd:
    """Applications, what became of their wishes, and what they got."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.callers = study.callers()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.agreeing: Counter[bool] = Counter()
        self.keys: Counter[bytes] = Counter()
        self.key_bit = 0

    def desk(self, alias: str) -> tuple[Units, Caller]:
        """Where an application asks, and as whom."""
        return self.study.units(alias[:-2]), self.callers[alias]

    async def live(self, alias: str, asked: Wish, may: tuple[str, ...]) -> None:
        """One wish, from its beginning to its end."""
        units, caller = self.desk(alias)
        try:
            answer = await units.request(caller, asked)
        except Busy:
            end = "refused"
        else:
            accepted = answer.verdict == "accepted"
            end = (
                await self._watch((alias, *asked.parties), asked.parts[0], answer.unit)
                if accepted
                else answer.verdict
            )
        assert end in may, (alias, asked, end)
        self.ended[asked.parts[0].kind, end] += 1

    async def _watch(self, aliases: tuple[str, ...], part: Part, unit: str) -> str:
        ears = [Ear() for _ in aliases]
        for alias, ear in zip(aliases, ears, strict=True):
            units, caller = self.desk(alias)
            await units.watch(caller, unit, 0, ear)
        while lacking := [ear for ear in ears if len(ear.of("delivered")) < part.size]:
            if over := {"expired", "refused"} & set(lacking[0].whats()):
                return over.pop()
            await lacking[0].more()
        await self._try_as_stranger(aliases, unit)
        await (self._collect if part.kind == "key" else self._measure)(
            dict(zip(aliases, ears, strict=True)), unit, part
        )
        return "delivered"

    async def _try_as_stranger(self, aliases: tuple[str, ...], unit: str) -> None:
        """Nobody else can use it, at whichever of its sites."""
        stranger = self.callers[f"{ISLE[1]}-1"]
        for units, _ in map(self.desk, aliases):
            with pytest.raises(Refused, match="an end of"):
                await units.keys(stranger, unit)
            with pytest.raises(Refused, match="an end of"):
                await units.operate(stranger, unit, (Step(do="measure", on=("any",)),))

    async def _measure(self, ears: dict[str, Ear], unit: str, part: Part) -> None:
        """All ends measure in z; nobody can do so twice."""
        rows = []
        for alias, ear in ears.items():
            units, caller = self.desk(alias)
            there = sorted(ear.of("delivered"), key=lambda event: event.index)
            steps = tuple(Step(do="measure", on=event.addresses) for event in there)
            rows.append((await units.operate(caller, unit, steps)).bits)
            with pytest.raises(Refused, match="consumed"):
                await units.operate(caller, unit, steps[:1])
        self.agreeing.update(len(set(bits)) == 1 for bits in zip(*rows, strict=True))

    async def _collect(self, ears: dict[str, Ear], unit: str, part: Part) -> None:
        """Both ends take their keys; nobody can do so twice."""
        taken = []
        for units, caller in map(self.desk, ears):
            taken.append(await units.keys(caller, unit))
            with pytest.raises(Refused, match="taken before"):
                await units.keys(caller, unit)
        assert taken[0] == taken[1]
        assert [8 * len(key.key) for key in taken[0]] == [part.size_bit] * part.size
        self.keys.update(key.key for key in taken[0])
        self.key_bit += part.size * words_of(part.size_bit) * 8 * WORD_BYTE


def timers(study: Study) -> set[str]:
    """Modules that wait for a time; where one has another do it, that one."""
    later = [entry for span in study.timeline._later.values() for entry in span]
    handlers = [handler for _, _, handler, _ in [*study.timeline._heap, *later]]
    wrapped = [inspect.getclosurevars(one).nonlocals if inspect.isfunction(one) else {} for one in handlers]
    return {each.get("do", one).__module__ for one, each in zip(handlers, wrapped, strict=True)}


async def remains(crowd: Crowd) -> list[str]:
    """What a crowd has left behind."""
    study, control = crowd.study, crowd.study.centre.unit_control
    assert isinstance(control, UnitControl)
    broker = control._broker
    found = [*shared.leaks(study), *sorted(timers(study) - PERIODIC)]
    found += (
        [f"broker: {len(broker._orders)}, {len(broker._owners)}"] if broker._orders or broker._owners else []
    )
    found += [f"{control.edc.open_errands} errands"] if control.edc.open_errands else []
    for site in study.sites.values():
        rows = sum(len(study.store.scan(site.caller.principal, kind)) for kind in (UNIT_KIND, VERDICT_KIND))
        found += [f"{site.parts.site}: {rows} rows"] if rows else []
    gc.collect()  # of networks of other tests, too
    found += [f"a {type(one).__name__}" for one in gc.get_objects() if isinstance(one, Live | Holding)]
    accounts = (await ledgers(study)).values()
    for side in ("near", "far"):
        issued_bit = sum(one.delivered_bit for one in accounts if one.side == side)
        found += (
            [f"{side}: {issued_bit} bits issued, not {crowd.key_bit}"] if issued_bit != crowd.key_bit else []
        )
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("wide", "high"), [(10, 10), (40, 25)])
def test_each_of_500_wishes_of_all_kinds_ends_and_leaves_nothing(wide: int, high: int) -> None:
    async def run(study: Study) -> None:
        tasks = len(asyncio.all_tasks())
        crowd = Crowd(study)
        async with asyncio.TaskGroup() as group:
            for each in wishes(wide, high):
                group.create_task(crowd.live(*each))
            await asyncio.sleep(CUT_S)
            await study.scenario.cut(study.centre.caller, ends(*ISLE))
        ended = crowd.ended
        assert ended.total() == 500
        assert ended["key", "delivered"] == 190
        assert ended["bell", "delivered"] >= 80, ended
        assert ended["ghz", "delivered"] >= 25, ended
        assert ended["bell", "counter-offer"] >= 10, ended
        assert ended["key", "refused"] == 10
        assert ended["bell", "expired"] >= 10, ended
        assert 0.85 < crowd.agreeing[True] / crowd.agreeing.total() < 0.99, "fidelity is high, and not 1"
        assert set(crowd.keys.values()) == {1}
        await asyncio.sleep(KEEP_S)
        assert await remains(crowd) == []
        assert len(asyncio.all_tasks()) == tasks

    run_study(world(wide, high), 1, run)
