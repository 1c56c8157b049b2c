"""The handshake `request-poll`: the asker asks for each attempt, and asks again when no memory waits.

It is the message sequence of the simulator SeQUeNCe for single-heralded links. The *primary* end is the one
whose name is greater; it opens the negotiation of the emission time. Charts: docs/physics/handshakes.md.
"""

from __future__ import annotations

from collections import deque

from multiplane.api.policy import LinkFacts, LinkHost
from multiplane.twin.handshake.turns import Bond, Bonds, Turns


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
            self._turns.stop(0, bond.near)
            self._turns.stop(1, bond.far)
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

    Not seen: a poll that takes the memory of an attempt that has just failed before its own asker is back.
    """

    def __init__(self, facts: LinkFacts, host: LinkHost) -> None:
        self._facts = facts
        self._host = host
        self._turns = Turns(facts.memories)
        self._bonds = Bonds(facts.memories)
        self._asking: list[tuple[int, int, int]] = []
        self._waiting: deque[tuple[int, int]] = deque()
        delay_ps = self._delay_ps = facts.delay_ps
        self._poll_ps = max(1, 2 * delay_ps)
        # From a REQUEST at end 1 to the emission, and from there until an end can try again.
        self._lead_ps = delay_ps * (2 if facts.sites[1] > facts.sites[0] else 3)
        self._near_ps, self._far_ps = (facts.photon_ps + told + facts.reset_ps for told in facts.herald_ps)
        # End 0 asks too early when end 1 hears much later, and polls until its memory waits again.
        early_ps = max(0, self._far_ps - self._near_ps - delay_ps)
        polls = -(-early_ps // self._poll_ps)
        self._cycle_ps = self._lead_ps + self._near_ps + delay_ps + polls * self._poll_ps
        self._heard_ps = (facts.photon_ps + facts.herald_ps[0], facts.photon_ps + facts.herald_ps[1])
        self._first_heard_ps = min(self._heard_ps)

    def raw(self, end: int, slot: int) -> None:
        if number := self._turns.begin(end, slot):
            self._free(end, slot, number)

    def withdraw(self, end: int, slot: int) -> None:
        number = self._turns.stop(end, slot)
        bond = self._bonds.of(end, slot) if number else None
        if bond:
            self._bonds.end(bond)
            self._part(end, bond)
        elif end and (slot, number) in self._waiting:
            self._waiting.remove((slot, number))
        elif not end:
            self._asking = [entry for entry in self._asking if entry[:2] != (slot, number)]

    def _free(self, end: int, slot: int, number: int) -> None:
        if not self._turns.holds(end, slot, number):
            return
        if end:
            self._waiting.append((slot, number))
        else:
            self._asking.append((self._host.now_ps() + self._delay_ps, slot, number))
        if self._asking and self._waiting:
            self._match()

    def _match(self) -> None:
        """The request that reaches end 1 first gets the memory that waits longest."""
        now_ps, poll_ps = self._host.now_ps(), self._poll_ps
        arrivals = [
            (due_ps if due_ps >= now_ps else due_ps - (due_ps - now_ps) // poll_ps * poll_ps, index)
            for index, (due_ps, _, _) in enumerate(self._asking)
        ]
        due_ps, index = min(arrivals)
        _, near, number = self._asking.pop(index)
        far, far_number = self._waiting.popleft()
        bond = Bond(near, far, (number, far_number), due_ps + self._lead_ps)
        self._bonds.add(bond)
        trials = self._host.trials(self._facts.success_probability)
        emitted_ps = bond.begun_ps + (trials - 1) * self._cycle_ps
        self._host.at_ps(emitted_ps + self._first_heard_ps, self._success, bond, emitted_ps)

    def _success(self, bond: Bond, emitted_ps: int) -> None:
        if not bond.alive:
            return
        self._bonds.end(bond)
        self._turns.stop(0, bond.near)
        self._turns.stop(1, bond.far)
        near_ps, far_ps = self._heard_ps
        self._host.born((bond.near, bond.far), emitted_ps, (emitted_ps + near_ps, emitted_ps + far_ps))

    def _part(self, end: int, bond: Bond) -> None:
        """The memory at `end` is gone: the other one goes on when the attempt under way has ended."""
        now_ps = self._host.now_ps()
        if end:
            # The next request of end 0 that reaches end 1 after now.
            first_ps = bond.begun_ps - self._lead_ps
            rounds = max(0, -(-(now_ps - first_ps) // self._cycle_ps))
            self._asking.append((first_ps + rounds * self._cycle_ps, bond.near, bond.numbers[0]))
            if self._waiting:
                self._match()
        else:
            # What end 0 has asked for already ends at its herald.
            rounds = max(0, -(-(now_ps - bond.begun_ps - self._near_ps) // self._cycle_ps))
            due_ps = bond.begun_ps + rounds * self._cycle_ps + self._far_ps
            self._host.at_ps(max(now_ps, due_ps), self._free, 1, bond.far, bond.numbers[1])
