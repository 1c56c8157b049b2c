"""The handshake `grant`: the answering end tells when a memory is free, the asking end starts.

GRANT and START bring two memories together once; from then on both ends emit at agreed instants, one attempt
per herald and without a message, until the pair is there. Charts and rates: docs/physics/handshakes.md.
"""

from __future__ import annotations

from collections import deque

from multiplane.api.policy import LinkFacts, LinkHost
from multiplane.twin.handshake.turns import Bond, Turns


class _Grant:
    """GRANT, START and END; how the attempts of a bond pass is up to the fidelity."""

    def __init__(self, facts: LinkFacts, host: LinkHost) -> None:
        self._facts = facts
        self._host = host
        self._turns = Turns(facts.memories)
        self._free: deque[tuple[int, int]] = deque()
        self._grants: dict[int, tuple[int, int]] = {}
        self._delay_ps = facts.delay_ps
        self._success_probability = facts.success_probability
        self._heard_ps = (facts.photon_ps + facts.herald_ps[0], facts.photon_ps + facts.herald_ps[1])
        self._first_heard_ps = min(self._heard_ps)
        self._cycle_ps = max(self._heard_ps) + facts.reset_ps

    def raw(self, end: int, slot: int) -> None:
        if number := self._turns.begin(end, slot):
            self._ready(end, slot, number)

    def withdraw(self, end: int, slot: int) -> None:
        number = self._turns.stop(end, slot)
        bond = self._turns.bond(end, slot) if number else None
        if bond is None:
            # A memory of end 1 that was granted says nothing: the START that comes for it is refused.
            if not end and (slot, number) in self._free:
                self._free.remove((slot, number))
            return
        self._turns.part(bond)
        now_ps = self._host.now_ps()
        if end:
            # END, or the refusal of a START that is still under way.
            told_ps = max(now_ps, bond.begun_ps) + self._delay_ps
            self._host.at_ps(told_ps, self._ready, 0, bond.near, bond.numbers[0])
        else:
            self._end(bond, now_ps)

    def _end(self, bond: Bond, now_ps: int) -> None:
        """END, for the memory of end 1."""
        self._host.at_ps(now_ps + self._delay_ps, self._ready, 1, bond.far, bond.numbers[1])

    def _ready(self, end: int, slot: int, number: int) -> None:
        if not self._turns.holds(end, slot, number):
            return
        if end:
            self._tell_free(slot, number, self._host.now_ps() + self._delay_ps)
        else:
            self._free.append((slot, number))
            self._start(self._host.now_ps())

    def _tell_free(self, slot: int, number: int, known_ps: int) -> None:
        """End 1 sends GRANT, which is at end 0 at `known_ps`."""
        self._host.at_ps(known_ps, self._granted, slot, number, known_ps)

    def _granted(self, slot: int, number: int, known_ps: int) -> None:
        """GRANT is at end 0; one for the same memory that it still has is outdated."""
        self._grants.pop(slot, None)
        self._grants[slot] = (number, known_ps)
        self._start(known_ps)

    def _start(self, now_ps: int) -> None:
        """End 0 sends START for the memories that both ends have free, as soon as it knows."""
        while self._free and self._grants:
            near, near_number = self._free.popleft()
            far = next(iter(self._grants))
            far_number, known_ps = self._grants.pop(far)
            begun_ps = max(known_ps, now_ps) + self._delay_ps
            bond = Bond(near, far, (near_number, far_number), begun_ps)
            if self._turns.holds(1, far, far_number):
                self._turns.bind(bond)
                self._attempt(bond)
            else:
                self._host.at_ps(begun_ps + self._delay_ps, self._ready, 0, near, near_number)

    def _attempt(self, bond: Bond) -> None:
        """Let the attempts of `bond` pass; the first emission is at `bond.begun_ps`."""
        raise NotImplementedError

    def _success(self, bond: Bond, emitted_ps: int) -> None:
        if not bond.alive:
            return
        self._turns.pair(bond)
        near_ps, far_ps = self._heard_ps
        self._host.born((bond.near, bond.far), emitted_ps, (emitted_ps + near_ps, emitted_ps + far_ps))


class GrantMessages(_Grant):
    """Every message and every attempt is an event."""

    def __init__(self, facts: LinkFacts, host: LinkHost) -> None:
        super().__init__(facts, host)
        self._blind_until_ps = 0

    def _attempt(self, bond: Bond) -> None:
        self._host.at_ps(bond.begun_ps, self._emit, bond)

    def _emit(self, bond: Bond) -> None:
        """START is there, or the herald of a failure: both ends emit."""
        if bond.alive:
            now_ps = self._host.now_ps()
            self._host.at_ps(now_ps + self._facts.photon_ps, self._meet, bond, now_ps)

    def _meet(self, bond: Bond, emitted_ps: int) -> None:
        """The photons meet, and the middle tells both ends."""
        now_ps, facts = self._host.now_ps(), self._facts
        if self._host.chance(facts.success_probability) and now_ps >= self._blind_until_ps:
            self._blind_until_ps = now_ps + facts.dead_ps
            self._host.at_ps(now_ps + min(facts.herald_ps), self._success, bond, emitted_ps)
        else:
            self._host.at_ps(emitted_ps + self._cycle_ps, self._emit, bond)


class GrantJump(_Grant):
    """One draw per pair. Attempts of a bond depend on nothing else: the law of the times is the same.

    GRANT is no event either: memories are matched as soon as both are raw, for when both ends will know it.
    """

    def _end(self, bond: Bond, now_ps: int) -> None:
        started_ps = bond.begun_ps - self._delay_ps
        if now_ps < started_ps:  # START has not left: the grant is for the next memory of end 0
            self._grants[bond.far] = (bond.numbers[1], started_ps)
            self._start(now_ps)
        else:
            super()._end(bond, now_ps)

    def _tell_free(self, slot: int, number: int, known_ps: int) -> None:
        self._granted(slot, number, known_ps)

    def _attempt(self, bond: Bond) -> None:
        trials = self._host.trials(self._success_probability)
        emitted_ps = bond.begun_ps + (trials - 1) * self._cycle_ps
        self._host.at_ps(emitted_ps + self._first_heard_ps, self._success, bond, emitted_ps)
