"""Carries out what a scenario says will happen: faults and attackers begin and end on the twin's timeline.

Each of them has chance of its own on each link or site. Nothing polls: the next event of each is scheduled
when the one before is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from multiplane.kernel.ports import Timeline
from multiplane.kernel.quantity import PS_PER_NS
from multiplane.physics.tampered_bb84 import Tampering
from multiplane.twin.attackers import tampering, wear
from multiplane.twin.chance import Chance
from multiplane.twin.happenings import Fault, When
from multiplane.twin.modules import Modules
from multiplane.twin.optics import Optics
from multiplane.twin.scenario import World
from multiplane.twin.world_control import WorldControl

RAMP_STEPS: Final = 60
"""In so many equal steps a ramp reaches its full size."""
_S_PER_H: Final = 3_600.0


class Spell(NamedTuple):
    """Once: from `begin_ns` to `end_ns` of the run, which is None when it lasts for ever."""

    begin_ns: int
    end_ns: int | None


def spells(when: When, chance: Chance) -> Iterator[Spell]:
    """Every time it happens, in order, one over before the next begins."""
    last_ns: int | None = None
    for begin_ns in _begins(when, chance):
        if when.until_ns is not None and begin_ns >= when.until_ns:
            return
        if last_ns is not None and begin_ns < last_ns:
            continue
        last_ns = when.until_ns
        if when.duration_ns is not None:
            end_ns = begin_ns + when.duration_ns
            last_ns = end_ns if last_ns is None else min(last_ns, end_ns)
        yield Spell(begin_ns, last_ns)
        if last_ns is None:
            return


def _begins(when: When, chance: Chance) -> Iterator[int]:
    if when.rate_per_h:
        at_ns = when.from_ns
        while True:  # the clock of failures stands still while it is broken
            at_ns += chance.gap_ns(when.rate_per_h / _S_PER_H)
            yield at_ns
            at_ns += when.duration_ns or 0
    elif when.every_ns:
        at_ns = when.from_ns
        while True:
            yield at_ns
            at_ns += when.every_ns
    else:
        yield from when.at_ns or (when.from_ns,)


Begin = Callable[[Spell], None]
End = Callable[[], None]


class Fate:
    """All faults and attackers of a world. It does nothing before `start`."""

    def __init__(
        self, world: World, timeline: Timeline, control: WorldControl, modules: Modules, optics: Optics
    ) -> None:
        self._world = world
        self._timeline = timeline
        self._control, self._modules, self._optics = control, modules, optics
        self._start_ps = 0

    def start(self, seed: bytes, epoch: int) -> None:
        """Count the scenario's times from now on.

        Args: seed, epoch: those of the twin; another epoch brings other chances.
        """
        self._start_ps = self._timeline.base_ps()
        for number, attacker in enumerate(self._world.attackers, start=1):
            name = f"attacker {number}: {attacker.kind}"
            for link in attacker.links:
                begin: Begin = partial(self._do, link, name, tampering(attacker))
                chance = Chance(seed, f"{name} on {link}", epoch)
                self._next(spells(attacker.when, chance), begin, partial(self._optics.do, link, name, None))
        for number, fault in enumerate(self._world.faults, start=1):
            name = f"fault {number}: {fault.kind}"
            for place in fault.sites if fault.kind == "site" else fault.links:
                begin, end = self._acts(fault, name, place)
                chance = Chance(seed, f"{name} on {place}", epoch)
                self._next(spells(fault.when, chance), begin, end)

    def _acts(self, fault: Fault, name: str, place: str) -> tuple[Begin, End]:
        """What begins a fault at a link or site, and what ends it."""
        match fault.kind:
            case "cut":
                return lambda _: self._optics.cut(place, name), lambda: self._optics.restore(place, name)
            case "device":
                (site,) = fault.sites
                return (
                    lambda _: self._modules.break_module(place, site, name),
                    lambda: self._modules.repair_module(place, site, name),
                )
            case "site":
                return lambda _: self._control.lose(place, name), lambda: self._control.bring_back(
                    place, name
                )
            case _:  # drift, clock
                return partial(self._ramp, fault, name, place), partial(self._optics.do, place, name, None)

    def _next(self, rest: Iterator[Spell], begin: Begin, end: End) -> None:
        spell = next(rest, None)
        if spell is not None:
            self._at(spell.begin_ns, self._begin, rest, spell, begin, end)

    def _begin(self, rest: Iterator[Spell], spell: Spell, begin: Begin, end: End) -> None:
        begin(spell)
        if spell.end_ns is not None:
            self._at(spell.end_ns, self._end, rest, begin, end)

    def _end(self, rest: Iterator[Spell], begin: Begin, end: End) -> None:
        end()
        self._next(rest, begin, end)

    def _do(self, link: str, name: str, done: Tampering, _: Spell) -> None:
        self._optics.do(link, name, done)

    def _ramp(self, fault: Fault, name: str, link: str, spell: Spell) -> None:
        if not fault.ramp_ns:
            self._optics.do(link, name, wear(fault, 1.0))
            return
        self._step(fault, name, link, spell, 1)

    def _step(self, fault: Fault, name: str, link: str, spell: Spell, number: int) -> None:
        """One step of a ramp, unless the spell is over by then."""
        due_ns = spell.begin_ns + fault.ramp_ns * number // RAMP_STEPS
        if spell.end_ns is None or due_ns < spell.end_ns:
            self._at(due_ns, self._worsen, fault, name, link, spell, number)

    def _worsen(self, fault: Fault, name: str, link: str, spell: Spell, number: int) -> None:
        self._optics.do(link, name, wear(fault, number / RAMP_STEPS))
        if number < RAMP_STEPS:
            self._step(fault, name, link, spell, number + 1)

    def _at(self, at_ns: int, handler: Callable[..., None], *args: object) -> None:
        self._timeline.at_ps(self._start_ps + at_ns * PS_PER_NS, handler, *args)
