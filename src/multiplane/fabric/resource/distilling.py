"""Purification of a pool of pairs between two ends: nested rounds, each of two pairs of the same round.

One end leads: it does its part and tells its bit; the other one does its own and answers. One message each
way, and both know.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from multiplane.api.instructions import Purify, Report
from multiplane.fabric.resource.pair_words import Desk, Half
from multiplane.fabric.resource.quality import Pair

REMEMBERED: Final = 256
"""So many pairs that are no more are known; a window holds far fewer."""


class Pool(Protocol):
    """Whose halves are purified."""

    def tell_begun(self, kept: Half, sacrificed: Half, bit: int, at_ns: int) -> None: ...

    def tell_done(self, kept: int, sacrificed: int, bit: int) -> None: ...

    def improved(self, kept: Half, sacrificed: Half, at_ns: int) -> Pair:
        """The kept pair after a round that worked."""
        ...

    def pure(self, half: Half) -> None:
        """All rounds are behind it."""
        ...

    def used(self, kept: Half, sacrificed: Half) -> None:
        """The memory of the sacrificed half is free."""
        ...

    def broken(self, half: Half) -> None:
        """Worth nothing any more: let go, tell the other end."""
        ...


@dataclass(slots=True)
class _Round:
    """A purification that this end has begun."""

    kept: Half
    sacrificed: Half
    at_ns: int
    mine: int = -1
    theirs: int = -1


class Distiller:
    """One end's part.

    Args: rounds: each pair goes through; leads: whether it is the one that begins.
    """

    def __init__(self, desk: Desk, pool: Pool, name: str, rounds: int, protocol: str, *, leads: bool) -> None:
        self._desk = desk
        self._pool = pool
        self._name = name
        self._rounds = rounds
        self._protocol = protocol
        self._leads = leads
        self._halves: dict[int, Half] = {}
        self._running: dict[tuple[int, int], _Round] = {}
        self._early: dict[tuple[int, int], tuple[int, int]] = {}
        self._past: dict[int, None] = {}

    def add(self, half: Half) -> None:
        """A pair of some round."""
        if half.shared in self._past:
            self._pool.broken(half)
            return
        if half.level >= self._rounds:
            self._halves.pop(half.shared, None)
            self._pool.pure(half)
            return
        self._halves[half.shared] = half
        if self._leads:
            self._lead(half.level)
            return
        for (kept, sacrificed), (bit, at_ns) in list(self._early.items()):
            if half.shared in (kept, sacrificed):
                self.begun(kept, sacrificed, bit, at_ns)

    def drop(self, half: Half) -> None:
        """It is gone."""
        if self._halves.get(half.shared) is half:
            self._pass(half.shared)

    def _pass(self, number: int) -> None:
        """That pair is no more: a word that names it is not waited for, a half that comes is let go."""
        self._halves.pop(number, None)
        self._past[number] = None
        if len(self._past) > REMEMBERED:
            del self._past[next(iter(self._past))]

    def _lead(self, level: int) -> None:
        free = [half for half in self._halves.values() if half.level == level and not half.busy]
        for kept, sacrificed in zip(free[::2], free[1::2], strict=False):
            self._purify(kept, sacrificed, -1, 0)

    def begun(self, kept: int, sacrificed: int, bit: int, at_ns: int) -> None:
        """The leader's word. What has not come yet is waited for."""
        mine = self._halves.get(kept), self._halves.get(sacrificed)
        self._early.pop((kept, sacrificed), None)
        if kept in self._past or sacrificed in self._past:
            self._give_up(kept, sacrificed)
        elif mine[0] is not None and mine[1] is not None:
            if not mine[0].busy and not mine[1].busy:
                self._purify(mine[0], mine[1], bit, at_ns)
        else:
            self._early[kept, sacrificed] = bit, at_ns
            if len(self._early) > 2 * len(self._halves) + 2:
                del self._early[next(iter(self._early))]

    def missing(self, number: int) -> None:
        """A pair will not come, or is broken: neither will the purification with it."""
        self._pass(number)
        for kept, sacrificed in [both for both in self._early if number in both]:
            del self._early[kept, sacrificed]
            self._give_up(kept, sacrificed)
        for running in list(self._running.values()):
            if number in (running.kept.shared, running.sacrificed.shared) and running.mine >= 0:
                del self._running[running.kept.shared, running.sacrificed.shared]
                if running.kept.shared != number:
                    self._break(running.kept)

    def _give_up(self, kept: int, sacrificed: int) -> None:
        """One of the two is no more: the leader is told, and the other one is let go."""
        self._pool.tell_done(kept, sacrificed, -1)
        for number in (kept, sacrificed):
            half = self._halves.get(number)
            self._pass(number)
            if half is not None:
                self._break(half)

    def _purify(self, kept: Half, sacrificed: Half, theirs: int, at_ns: int) -> None:
        kept.busy = sacrificed.busy = True
        running = self._running[kept.shared, sacrificed.shared] = _Round(kept, sacrificed, at_ns, -1, theirs)
        exchange = f"{self._name}/{kept.shared}+{sacrificed.shared}"
        asked = Purify(
            request=self._desk.request(),
            exchange=exchange,
            kept=kept.handle,
            sacrificed=sacrificed.handle,
            protocol=self._protocol,
        )
        self._desk.ask(asked, partial(self._mine, running))

    def _mine(self, running: _Round, report: Report) -> None:
        kept, sacrificed = running.kept, running.sacrificed
        if not report.ok or kept.gone or sacrificed.gone:
            self._running.pop((kept.shared, sacrificed.shared), None)
            if not self._leads:
                self._pool.tell_done(kept.shared, sacrificed.shared, -1)
            for half in (kept, sacrificed):
                self._break(half)
            return
        running.mine = report.bits[0]
        self.drop(sacrificed)
        sacrificed.gone = True
        self._pool.used(kept, sacrificed)
        if self._leads:
            running.at_ns = report.due_ns
            self._pool.tell_begun(kept, sacrificed, running.mine, report.due_ns)
        else:
            self._pool.tell_done(kept.shared, sacrificed.shared, running.mine)
            self._compare(running)

    def done(self, kept: int, sacrificed: int, bit: int) -> None:
        """The other end's word."""
        running = self._running.get((kept, sacrificed))
        if running is not None and running.mine >= 0:
            running.theirs = bit
            self._compare(running)

    def _compare(self, running: _Round) -> None:
        kept = running.kept
        del self._running[kept.shared, running.sacrificed.shared]
        kept.busy = False
        if running.mine != running.theirs or kept.gone:
            self._break(kept)
            return
        kept.pair = self._pool.improved(kept, running.sacrificed, running.at_ns)
        kept.known_ns = running.at_ns
        kept.level += 1
        self.add(kept)

    def _break(self, half: Half) -> None:
        self.drop(half)
        half.busy = False
        if not half.gone:
            self._pool.broken(half)
