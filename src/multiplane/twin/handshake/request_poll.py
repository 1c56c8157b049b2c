"""The handshake `request-poll`: the asker asks for each attempt, and asks again when no memory waits.

It is the message sequence of the simulator SeQUeNCe for single-heralded links. The *primary* end is the one
whose name is greater; it opens the negotiation of the emission time. Charts: docs/physics/handshakes.md.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from multiplane.api.policy import LinkFacts, LinkHost
from multiplane.twin.handshake.turns import Bond, Turns

TAKES_FROM_PROBABILITY: Final = 0.05
_Asker = tuple[int, int, int]
"""A memory of end 0 that polls: when a request of it is at end 1, its slot and its number."""


class RequestPollMessages:
    """Every message and every attempt is an event."""

    def __init__(self, facts: LinkFacts, host: LinkHost) -> None:
        self._facts = facts
        self._host = host
        self._turns = Turns(facts.memories)
        self._waiting: deque[tuple[int, int]] = deque()
        self._answer_is_primary = facts.sites[1] > facts.sites[0]
        self._blind_until_ps = 0

    def raw(self, end: int, slot: int) -> None:
        if number := self._turns.begin(end, slot):
            self._free(end, slot, number)

    def withdraw(self, end: int, slot: int) -> None:
        # Messages under way are not called back: an attempt ends at its herald, without a pair.
        number = self._turns.stop(end, slot)
        if end and (slot, number) in self._waiting:
            self._waiting.remove((slot, number))

    def _free(self, end: int, slot: int, number: int) -> None:
        if not self._turns.holds(end, slot, number):
            return
        if end:
            self._waiting.append((slot, number))
        else:
            self._host.at_ps(self._host.now_ps() + self._facts.delay_ps, self._request, slot, number)

    def _request(self, near: int, number: int) -> None:
        """REQUEST is at end 1: the memory that waits longest answers, or the RESPONSE is no."""
        due_ps = self._host.now_ps() + self._facts.delay_ps
        if not self._waiting:
            self._host.at_ps(due_ps, self._free, 0, near, number)
            return
        far, far_number = self._waiting.popleft()
        self._host.at_ps(due_ps, self._response, Bond(near, far, (number, far_number), due_ps))

    def _response(self, bond: Bond) -> None:
        """RESPONSE is at end 0; with NEGOTIATE if end 1 is primary, else end 0 sends NEGOTIATE now."""
        due_ps = self._host.now_ps() + self._facts.delay_ps
        self._host.at_ps(due_ps, self._emit if self._answer_is_primary else self._negotiate, bond)

    def _negotiate(self, bond: Bond) -> None:
        """NEGOTIATE is at end 1, which fixes the emission for when its ACK is at end 0."""
        self._host.at_ps(self._host.now_ps() + self._facts.delay_ps, self._emit, bond)

    def _emit(self, bond: Bond) -> None:
        """ACK is there, both ends emit."""
        now_ps = self._host.now_ps()
        self._host.at_ps(now_ps + self._facts.photon_ps, self._meet, bond, now_ps)

    def _meet(self, bond: Bond, emitted_ps: int) -> None:
        """The photons meet, and the middle tells both ends."""
        now_ps, facts = self._host.now_ps(), self._facts
        seen = self._host.chance(facts.success_probability) and now_ps >= self._blind_until_ps
        if seen and self._wanted(bond):
            self._blind_until_ps = now_ps + facts.dead_ps
            heard_ps = (now_ps + facts.herald_ps[0], now_ps + facts.herald_ps[1])
            self._host.at_ps(min(heard_ps), self._success, bond, emitted_ps, heard_ps)
            return
        again_ps = now_ps + facts.reset_ps
        self._host.at_ps(again_ps + facts.herald_ps[0], self._free, 0, bond.near, bond.numbers[0])
        self._host.at_ps(again_ps + facts.herald_ps[1], self._free, 1, bond.far, bond.numbers[1])

    def _success(self, bond: Bond, emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        if self._wanted(bond):
            self._turns.pair(bond)
            self._host.born((bond.near, bond.far), emitted_ps, heard_ps)
            return
        self._host.at_ps(heard_ps[0], self._free, 0, bond.near, bond.numbers[0])
        self._host.at_ps(heard_ps[1], self._free, 1, bond.far, bond.numbers[1])

    def _wanted(self, bond: Bond) -> bool:
        near_number, far_number = bond.numbers
        holds = self._turns.holds
        return holds(0, bond.near, near_number) and holds(1, bond.far, far_number)


class RequestPollJump:
    """One draw per pair: two memories stay together until they succeed, and polls are computed, not sent.

    A poll of another memory may reach end 1 after an attempt has failed and before its own asker is back, and
    take its place. When that will be is computed too, at the cost of an event, unless attempts hardly ever
    succeed: then the pairs of a link whose end 0 has memories to spare are up to 2.5 % too few.
    """

    def __init__(self, facts: LinkFacts, host: LinkHost) -> None:
        self._host = host
        self._success_probability = facts.success_probability
        self._turns = Turns(facts.memories)
        self._asking: list[_Asker] = []
        self._waiting: deque[tuple[int, int]] = deque()
        delay_ps = self._delay_ps = facts.delay_ps
        self._poll_ps = 2 * delay_ps
        # From a REQUEST at end 1 to the emission, and from there until an end can try again.
        self._lead_ps = delay_ps * (2 if facts.sites[1] > facts.sites[0] else 3)
        self._near_ps, self._far_ps = (facts.photon_ps + told + facts.reset_ps for told in facts.herald_ps)
        self._cycle_ps = self._lead_ps + self._near_ps + delay_ps
        # For so long after each failure the memory of end 1 waits for its own asker.
        self._idle_ps = self._cycle_ps - self._lead_ps - self._far_ps
        self._heard_ps = (facts.photon_ps + facts.herald_ps[0], facts.photon_ps + facts.herald_ps[1])
        self._first_heard_ps = min(self._heard_ps)

    def raw(self, end: int, slot: int) -> None:
        if number := self._turns.begin(end, slot):
            self._join(end, slot, number)

    def withdraw(self, end: int, slot: int) -> None:
        number = self._turns.stop(end, slot)
        bond = self._turns.bond(end, slot) if number else None
        if bond:
            self._turns.part(bond)
            self._part(end, bond)
        elif end and (slot, number) in self._waiting:
            self._waiting.remove((slot, number))
        elif not end:
            self._asking = [asker for asker in self._asking if asker[1:] != (slot, number)]

    def _free(self, end: int, slot: int, number: int) -> None:
        if self._turns.holds(end, slot, number):
            self._join(end, slot, number)

    def _join(self, end: int, slot: int, number: int) -> None:
        if not end:
            self._ask((self._host.now_ps() + self._delay_ps, slot, number))
        elif self._asking:
            self._bind(self._next_asker(), slot, number)
        else:
            self._waiting.append((slot, number))

    def _ask(self, asker: _Asker) -> None:
        """A REQUEST will be at end 1 at `due_ps`, and then every poll: is there a memory for it?"""
        if self._waiting:
            self._bind(asker, *self._waiting.popleft())
            return
        self._asking.append(asker)
        if self._success_probability >= TAKES_FROM_PROBABILITY:
            for bond in self._turns.bonds():
                self._plan_take(asker, bond)

    def _next_asker(self) -> _Asker:
        """The one whose request or poll reaches end 1 first from now on, when that will be."""
        now_ps, poll_ps = self._host.now_ps(), self._poll_ps
        next_ps = [
            due_ps if due_ps >= now_ps else now_ps + (due_ps - now_ps) % poll_ps
            for due_ps, _, _ in self._asking
        ]
        due_ps = min(next_ps)
        _, near, number = self._asking.pop(next_ps.index(due_ps))
        return due_ps, near, number

    def _bind(self, asker: _Asker, far: int, far_number: int, trials: int = 0) -> None:
        """The request of `asker` meets a memory of end 1; they succeed at trial `trials`, 0 to draw it."""
        due_ps, near, number = asker
        trials = trials or self._host.trials(self._success_probability)
        begun_ps = due_ps + self._lead_ps
        bond = Bond(near, far, (number, far_number), begun_ps, trials)
        self._turns.bind(bond)
        emitted_ps = begun_ps + (trials - 1) * self._cycle_ps
        self._host.at_ps(emitted_ps + self._first_heard_ps, self._success, bond, emitted_ps)
        if self._success_probability >= TAKES_FROM_PROBABILITY:
            for other in self._asking:
                self._plan_take(other, bond)

    def _plan_take(self, asker: _Asker, bond: Bond) -> None:
        """Find the first failure of `bond` after which a request of `asker` comes before its own."""
        due_ps, poll_ps, cycle_ps = asker[0], self._poll_ps, self._cycle_ps
        idle_ps = bond.begun_ps + self._far_ps
        trial = max(0, (due_ps - idle_ps - self._idle_ps) // cycle_ps + 1)
        # A request at the very instant of the failure has left earlier and is too early.
        after_ps = due_ps - idle_ps - trial * cycle_ps
        if after_ps <= 0:
            after_ps = (after_ps - 1) % poll_ps + 1
        if after_ps >= self._idle_ps:
            # From trial to trial it comes earlier by `slip_ps`, or later where that is negative.
            slip_ps = cycle_ps % poll_ps
            slip_ps -= poll_ps if slip_ps > self._delay_ps else 0
            if slip_ps == 0:
                return
            left_ps = after_ps - self._idle_ps if slip_ps > 0 else poll_ps - after_ps
            trial += left_ps // abs(slip_ps) + 1
            after_ps = (due_ps - idle_ps - trial * cycle_ps - 1) % poll_ps + 1
        if trial + 1 < bond.trials and after_ps < self._idle_ps:
            idle_ps += trial * cycle_ps
            self._host.at_ps(idle_ps + after_ps, self._take, asker, bond, trial, idle_ps + self._idle_ps)

    def _take(self, asker: _Asker, bond: Bond, trial: int, back_ps: int) -> None:
        """`asker` goes on in the place of the bond's own, which is back at `back_ps` and finds nothing."""
        if not bond.alive or asker not in self._asking:
            return
        self._turns.part(bond)
        self._asking.remove(asker)
        left = bond.trials - trial - 1
        self._bind((self._host.now_ps(), *asker[1:]), bond.far, bond.numbers[1], left)
        self._ask((back_ps, bond.near, bond.numbers[0]))

    def _success(self, bond: Bond, emitted_ps: int) -> None:
        if not bond.alive:
            return
        self._turns.pair(bond)
        near_ps, far_ps = self._heard_ps
        self._host.born((bond.near, bond.far), emitted_ps, (emitted_ps + near_ps, emitted_ps + far_ps))

    def _part(self, end: int, bond: Bond) -> None:
        """The memory at `end` is gone: the other one goes on when the attempt under way has ended."""
        now_ps = self._host.now_ps()
        if end:
            # The next request of end 0 that reaches end 1 after now.
            first_ps = bond.begun_ps - self._lead_ps
            rounds = max(0, -(-(now_ps - first_ps) // self._cycle_ps))
            self._ask((first_ps + rounds * self._cycle_ps, bond.near, bond.numbers[0]))
        else:
            # What end 0 has asked for already ends at its herald.
            rounds = max(0, -(-(now_ps - bond.begun_ps - self._near_ps) // self._cycle_ps))
            due_ps = bond.begun_ps + rounds * self._cycle_ps + self._far_ps
            self._host.at_ps(max(now_ps, due_ps), self._free, 1, bond.far, bond.numbers[1])
