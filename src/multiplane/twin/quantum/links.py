"""Links that make pairs: memories on two sides, who wants pairs, and the link protocol that brings them.

A link is the host of its protocol (`api.policy.LinkHost`). A memory that is freed while somebody wants pairs
goes straight back to the protocol. Pairs are dealt to requests in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from multiplane.api.instructions import Generate, Report
from multiplane.api.policy import LinkFacts, LinkProtocol
from multiplane.kernel.errors import Busy, Faulty
from multiplane.kernel.ports import Timeline
from multiplane.physics.bell import Correlations, relabel
from multiplane.twin.quantum.acts import drop, equal_probability
from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.nodes import Node, Side
from multiplane.twin.quantum.sources import Source
from multiplane.twin.quantum.states import Qubit

MOST_WISHES: Final = 1_000
FRAME_BITS: Final = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Phase and parity of phi+, phi-, psi+, psi-."""

FAILED: Final = "was lost when its device failed"

MakePair = Callable[[Qubit, Qubit, Correlations, int], object]
"""Puts two new halves into a state of these correlations and this frame."""


class Wish:
    """A `Generate` under way; `left` pairs to go, or None without a limit."""

    __slots__ = ("asked", "left", "made", "node", "request")

    def __init__(self, node: Node, asked: Generate) -> None:
        self.node = node
        self.request = asked.request
        self.asked = asked
        self.left = asked.pairs or None
        self.made = 0


class Hooks(NamedTuple):
    """What a link calls: to make a state of a new pair, and when a request has ended."""

    make: MakePair
    ended: Callable[[Wish], None]


class Tags:
    """The times that devices of both ends put on halves of the same pair, by clocks that show the same."""

    def __init__(self, jitter_ps: float, chance: Chance) -> None:
        self._jitter_ps, self._chance = jitter_ps, chance

    def after_ns(self, seen_ps: int) -> tuple[int, int]:
        """Picoseconds after the whole nanosecond in which a pair was there, at both ends; of either sign."""
        below_ps = seen_ps % 1000
        near, far = self._chance.normal()
        return round(below_ps + self._jitter_ps * near), round(below_ps + self._jitter_ps * far)


class Link:
    """One link. Its protocol is set once, after it was made for this host.

    `photon_probability`: that a photon sent from one end is stored at the other; `tags` is set with it. `lit`
    is False while no light passes: nobody tries, and what is held lives on. Counts since the start:
    `attempts` (with one draw per pair when they are drawn, which is ahead of time), `heralds` (pairs that
    came), `made` (wanted ones). `fault`: why the protocol makes no more pairs, if so.
    """

    protocol: LinkProtocol
    photon_probability: float
    tags: Tags

    def __init__(
        self,
        facts: LinkFacts,
        source: Source,
        timeline: Timeline,
        chance: Chance,
        hooks: Hooks,
    ) -> None:
        self.id = facts.link
        self.facts = facts
        self.sides: list[Side] = []
        self.made = self.attempts = self.heralds = 0
        self.lit = True
        self.now_ps = timeline.base_ps
        self.at_ps = timeline.at_ps
        self._timeline = timeline
        self._chance = chance
        self._make = hooks.make
        self._ended = hooks.ended
        self._wishes: deque[Wish] = deque()
        self._unlimited = 0
        self._wanted = 0
        self.fault = ""
        self._tune(source)

    def _tune(self, source: Source) -> None:
        self.source = source
        self._frames = tuple(
            (index, relabel(source.pair, index)) for index in range(4) if source.odds[index] > 0.0
        )
        self._odds = tuple(source.odds[index] for index, _ in self._frames)

    def trials(self, probability: float) -> int:
        """Attempts up to and including the first success."""
        number = self._chance.trials(probability)
        self.attempts += number
        return number

    def chance(self, probability: float) -> bool:
        """Whether one attempt succeeds."""
        self.attempts += 1
        return self._chance.chance(probability)

    def passes(self) -> bool:
        """Whether a photon that leaves one end now is stored at the other."""
        return self._chance.chance(self.photon_probability) and self.lit

    def darken(self) -> None:
        """No light passes from now on: attempts under way are given up, pairs that are held live on."""
        self.lit = False
        self._take_back(0)

    def light(self) -> None:
        """Light passes again: those who want pairs are served on."""
        if not self.lit:
            self.lit = True
            self._fill()

    def change(self, source: Source, facts: LinkFacts, protocol: LinkProtocol) -> None:
        """Make other pairs from now on, at another pace; attempts under way begin anew."""
        self._take_back(0)
        self._tune(source)
        self.facts, self.protocol = facts, protocol
        self._fill()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for pairs."""
        return bool(self._wishes)

    def want(self, wish: Wish) -> None:
        """Make pairs for a request.

        Raises: Busy(`instruction.queue_full`), Faulty(`instruction.link_failed`).
        """
        if self.fault:
            raise Faulty("instruction.link_failed", self.fault)
        if len(self._wishes) >= MOST_WISHES:
            reason = f"link: {MOST_WISHES} requests wait on {self.id}, expected fewer"
            raise Busy("instruction.queue_full", reason)
        self._wishes.append(wish)
        if wish.left is None:
            self._unlimited += 1
        else:
            self._wanted += wish.left
        self._fill()

    def end(self, wish: Wish) -> bool:
        """Make no more pairs for a request; False if it had ended before."""
        if wish not in self._wishes:
            return False
        self._wishes.remove(wish)
        if wish.left is None:
            self._unlimited -= 1
        else:
            self._wanted -= wish.left
        self._ended(wish)
        if not self._unlimited:
            self._withdraw()
        return True

    def fail(self, reason: str) -> None:
        """The protocol makes no more pairs: requests end with `reason`, and none is taken any more."""
        self.fault = reason
        now_ps = self.now_ps()
        for wish in list(self._wishes):
            self.end(wish)
            report = Report(
                request=wish.request,
                node=wish.node.name,
                due_ns=self._timeline.epoch_ns + now_ps // 1000,
                ok=False,
                code="instruction.link_failed",
                reason=reason,
                asker=wish.node.name,
                link=self.id,
            )
            self.at_ps(now_ps, wish.node.tell, report)

    def release(self, side: Side, slot: int) -> None:
        """A memory is free again."""
        if self._unlimited and self.lit:
            side.raw.add(slot)
            self.protocol.raw(side.end, slot)
        else:
            side.free.append(slot)
            if self._wanted:
                self._fill()

    def born(self, slots: tuple[int, int], emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        """The memories `slots` hold a pair since `emitted_ps`; the two ends know it at `heard_ps`.

        An end that hears of it now is told before this returns, and may act on it: call it last.
        """
        self.heralds += 1
        near, far = self.sides
        near.raw.discard(slots[0])
        far.raw.discard(slots[1])
        wish = self._next()
        if wish is None:
            self.release(near, slots[0])
            self.release(far, slots[1])
            return
        self.made += 1
        frame, pair = self._frames[0 if len(self._frames) == 1 else self._chance.pick(self._odds)]
        if wish.asked.corrected:
            frame, pair = 0, self.source.pair
        if wish.asked.keep:
            request, number = wish.request, self.made
            now_ps = self.now_ps()
            one = Qubit(near, slots[0], emitted_ps, number, request)
            two = Qubit(far, slots[1], emitted_ps, number, request)
            self._make(one, two, pair, frame)
            tags_ps = self.tags.after_ns(emitted_ps)
            for half, due_ps, tag_ps in zip((one, two), heard_ps, tags_ps, strict=True):
                if half.side.cutoff_ps:
                    watch(half, self._timeline)
                if due_ps <= now_ps:
                    self._hear(half, wish, due_ps, frame, tag_ps)
                else:
                    self.at_ps(due_ps, self._hear, half, wish, due_ps, frame, tag_ps)
        else:
            self._measured(slots, heard_ps, wish, frame, pair)

    def _next(self) -> Wish | None:
        """Whom the next pair is for."""
        wishes = self._wishes
        if not wishes:
            return None
        wish = wishes[0]
        if len(wishes) > 1:
            wishes.rotate(-1)
        wish.made += 1
        if wish.left is not None:
            wish.left -= 1
            self._wanted -= 1
            if not wish.left:
                wishes.remove(wish)
                self._ended(wish)
                if not self._unlimited:
                    self._withdraw()
        return wish

    def _fill(self) -> None:
        """Lend free memories to the protocol, as many as there are pairs to make."""
        if not self.lit:
            return
        for side in self.sides:
            while side.free and (self._unlimited or len(side.raw) < self._wanted):
                slot = side.free.popleft()
                side.raw.add(slot)
                self.protocol.raw(side.end, slot)

    def _withdraw(self) -> None:
        """Take back what nobody wants any more, the last lent first."""
        self._take_back(self._wanted)

    def _take_back(self, most: int) -> None:
        """Leave at most so many memories of each end to the protocol."""
        for side in self.sides:
            for slot in sorted(side.raw, reverse=True)[: max(0, len(side.raw) - most)]:
                self.protocol.withdraw(side.end, slot)
                side.raw.remove(slot)
                side.free.append(slot)

    def _hear(self, half: Qubit, wish: Wish, due_ps: int, frame: int, tag_ps: int) -> None:
        """A half is at this node: it gets its handle."""
        node, epoch_ns = half.node, self._timeline.epoch_ns
        due_ns = epoch_ns + due_ps // 1000
        if half.slot >= 0 and not half.side.working:
            lose(half, due_ns, FAILED)
        if half.slot < 0:
            node.tell(expired(half, wish.node.name, due_ns))
            return
        handle = node.hold(half)
        if node.listener is None and not node.watchers:
            return
        node.tell(
            Report(
                request=wish.request,
                node=node.name,
                due_ns=due_ns,
                handles=(handle,),
                bits=FRAME_BITS[frame],
                asker=wish.node.name,
                link=self.id,
                number=half.number,
                since_ns=epoch_ns + half.since_ps // 1000,
                tag_ps=tag_ps,
            )
        )

    def _measured(
        self, slots: tuple[int, int], heard_ps: tuple[int, int], wish: Wish, frame: int, pair: Correlations
    ) -> None:
        """Both halves are measured as they are made: bits instead of handles."""
        flips = tuple(side.memory.flip_probability for side in self.sides)
        first = self._chance.word() & 1
        equal = self._chance.chance(equal_probability(pair, wish.asked.basis, flips))
        bits = (first, first if equal else 1 - first)
        for side, slot, due_ps, bit in zip(self.sides, slots, heard_ps, bits, strict=True):
            report = Report(
                request=wish.request,
                node=side.node.name,
                due_ns=self._timeline.epoch_ns + due_ps // 1000,
                bits=(bit, *FRAME_BITS[frame]),
                asker=wish.node.name,
                link=self.id,
                number=self.made,
            )
            self._timeline.at_ps(due_ps, self._tell_bit, side, slot, report)

    def _tell_bit(self, side: Side, slot: int, report: Report) -> None:
        self.release(side, slot)
        side.node.tell(report)


def watch(qubit: Qubit, timeline: Timeline) -> None:
    """Throw a qubit away when it is as old as its memory allows; one timer for all of a side."""
    side = qubit.side
    side.aging.append(qubit)
    if not side.waking:
        side.waking = True
        due_ps = qubit.since_ps + side.cutoff_ps
        timeline.at_ps(due_ps, _wake, side, timeline, due_ps)


def _wake(side: Side, timeline: Timeline, now_ps: int) -> None:
    """The oldest qubit of a side is too old, unless it is gone."""
    cutoff_ps = side.cutoff_ps
    aging = side.aging
    while aging and (
        aging[0].slot < 0 or aging[0].side is not side or aging[0].since_ps + cutoff_ps <= now_ps
    ):
        qubit = aging.popleft()
        if qubit.slot >= 0 and qubit.side is side:
            why = f"was thrown away at the cut-off of {side.memory.kind.cutoff_s:g} s"
            lose(qubit, timeline.epoch_ns + now_ps // 1000, why)
    side.waking = bool(aging)
    if aging:
        due_ps = aging[0].since_ps + cutoff_ps
        timeline.at_ps(due_ps, _wake, side, timeline, due_ps)


def lose(qubit: Qubit, due_ns: int, why: str) -> None:
    """A qubit is gone, and not because its node wanted it so; the node is told if it knew of it."""
    node, side, slot = qubit.node, qubit.side, qubit.slot
    drop(qubit)
    side.expired += 1
    if qubit.handle:
        node.expire(qubit.handle, why)
        node.tell(expired(qubit, "", due_ns))
    side.release(side, slot)


def expired(qubit: Qubit, asker: str, due_ns: int) -> Report:
    """What its node is told of a qubit that was thrown away or lost."""
    why = "reached the cut-off of its memory" if qubit.side.working else FAILED
    return Report(
        request=qubit.request,
        node=qubit.node.name,
        due_ns=due_ns,
        ok=False,
        handles=(qubit.handle,) if qubit.handle else (),
        code="instruction.expired",
        reason=f"pair {qubit.number} {why}",
        asker=asker,
        link=qubit.side.link_id,
        number=qubit.number,
    )
