"""Network layer: one circuit at one of its sites, after QNP (Kozlowski, Dahlberg, Wehner 2020).

A site inside swaps a pair of each side as soon as both are there and its level allows. TRACK follows each
half through the swaps and tells the other end what became of it: which pairs, which Pauli frame, how good.
EXPIRE goes to whoever holds the rest of something that is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import msgspec

from multiplane.api.instructions import LinkSheet, Report, Swap
from multiplane.api.states import TraceRow
from multiplane.fabric.planes import Circuit
from multiplane.fabric.resource.link_layer import LinkEvents, LinkWish
from multiplane.fabric.resource.pair_words import (
    DOWN,
    UP,
    Create,
    Desk,
    Distil,
    Distilled,
    Error,
    Expire,
    Half,
    PairMessage,
    Tell,
    Track,
    Want,
)
from multiplane.fabric.resource.quality import Pair, gates_of, of_memory, rested, swapped
from multiplane.fabric.resource.tags import onward

REMEMBERED: Final = 1024
"""So many swaps and words that nobody has asked for yet are kept for each circuit."""
Place = tuple[int, int]
"""Side, and number of a pair on that side's link."""


class CircuitEvents(NamedTuple):
    """What the ends hear; a site inside hears of failures only.

    Args:
        came: a half at this end, all rounds on its link done; tracked: the other end's TRACK for it.
        broken: the half with this number is lost, or what it was to be.
        passed: what is for the end alone (`Distil`, `Want`, `Joined` and the like).
    """

    came: Callable[[Half], None]
    tracked: Callable[[Half, Track], None]
    broken: Callable[[int], None]
    passed: Callable[[PairMessage], None]
    failed: Callable[[str, str], None]


class _Joint(NamedTuple):
    """A swap that was done here."""

    halves: tuple[Half, Half]
    frame: int
    row: TraceRow
    at_ns: int


class CircuitSite:
    """One site's part of a circuit.

    Args: sheets: of the links up and down the path, None at an end; enough: as of `LinkWish`.
    """

    def __init__(
        self,
        desk: Desk,
        circuit: Circuit,
        site: str,
        sheets: tuple[LinkSheet | None, LinkSheet | None],
        events: CircuitEvents,
        *,
        enough: int,
    ) -> None:
        self.desk, self.circuit, self.site = desk, circuit, site
        self.place = circuit.path.index(site)
        self.last = len(circuit.path) - 1
        self.inner = 0 < self.place < self.last
        self.sheets = sheets
        self.links: list[LinkWish | None] = [None, None]
        self._events = events
        self._waiting: tuple[dict[int, Half], dict[int, Half]] = ({}, {})
        self._swapping: dict[Place, Half] = {}
        self._cut: set[Place] = set()
        self._joints: dict[Place, _Joint] = {}
        self._tracks: dict[Place, list[Track]] = {}
        self._swaps = self._want_seq = 0
        levels = (_END, *circuit.levels, _END)
        self._partner = (
            max((at for at in range(self.place) if levels[at] >= levels[self.place]), default=0),
            min(
                (at for at in range(self.place + 1, self.last + 1) if levels[at] >= levels[self.place]),
                default=self.last,
            ),
        )
        self._levels = levels
        for side, sheet in enumerate(sheets):
            if sheet is not None:
                heard = LinkEvents(self._ready, events.failed)
                self.links[side] = LinkWish(
                    desk, circuit, self.place, side, sheet=sheet, enough=enough, events=heard
                )

    def begin(self, peer: str = "") -> None:
        """The job is taken on, or the channel to `peer` is there again."""
        for link in self.links:
            if link is not None and peer in ("", link.peer):
                link.begin()

    def pause(self, paused: bool) -> None:
        """No more pairs for now: what is half made is let go."""
        for link in self.links:
            if link is not None:
                link.pause(paused)
        if paused and self.inner:
            for half in self.halves():
                if (half.side, half.number) not in self._swapping:
                    self.release(half)

    def close(self) -> None:
        """Never more; what it holds is let go."""
        for link in self.links:
            if link is not None:
                link.close()
        for half in self.halves():
            self.release(half)

    def release(self, half: Half) -> None:
        """Free the memory of a half of this circuit."""
        self._waiting[half.side].pop(half.number, None)
        link = self.links[half.side]
        if link is not None:
            link.release(half)

    def release_number(self, number: int) -> None:
        """The same by the number of its pair, at an end."""
        for link in self.links:
            half = None if link is None else link.halves.get(number) or link.handed.get(number)
            if half is not None:
                self.release(half)

    def expire_number(self, number: int) -> None:
        """At an end: let go of the half with this number, and let the rest of the circuit know."""
        for link in self.links:
            if link is not None:
                self.release_number(number)
                link.expire(number)

    def expire(self, half: Half) -> None:
        """Let go of a half, and let the rest of the circuit know."""
        self._tracks.pop((half.side, half.number), None)
        link = self.links[half.side]
        if link is not None:
            self.release(half)
            link.expire(half.number)

    def halves(self) -> list[Half]:
        """All that this site holds for the circuit and has not handed over."""
        return [half for link in self.links if link is not None for half in link.halves.values()]

    def handed(self) -> list[Half]:
        """What it has handed over and nobody has let go of."""
        return [half for link in self.links if link is not None for half in link.handed.values()]

    # what comes from below

    def report(self, report: Report) -> None:
        """Of a pair of one of its links."""
        for link in self.links:
            if link is not None and link.sheet.link == report.link:
                link.report(report)

    def thrown_away(self, half: Half) -> None:
        """The devices have lost a half that this site still holds."""
        link = self.links[half.side]
        self._waiting[half.side].pop(half.number, None)
        if link is None or half.gone:
            return
        link.gone(half)
        link.expire(half.number)
        if not self.inner:
            self._events.broken(half.number)

    def _ready(self, half: Half) -> None:
        """A pair of all rounds of its link."""
        partner = self._partner[half.side]
        half.extended = not self.inner or abs(partner - self.place) == 1
        self._waiting[half.side][half.number] = half
        cutoff_ns = self.circuit.cutoff_ns[self.place if half.side == DOWN else self.place - 1]
        if cutoff_ns:
            # An end waits until nobody inside can still hold its pair.
            due_ns = (
                half.since_ns + cutoff_ns if self.inner else half.known_ns + 2 * sum(self.circuit.cutoff_ns)
            )
            self.desk.wake(max(0, due_ns - self.desk.now_ns), partial(self._cut_off, half, due_ns))
        if self.inner:
            if self._starts(half.side):
                self.track(half, half.number, half.frame, half.pair)
        else:
            self._events.came(half)
        for track in self._tracks.pop((half.side, half.number), ()):
            self._tracked(half.side, track)
        if self.inner:
            self._match()

    def _cut_off(self, half: Half, due_ns: int, now_ns: int) -> None:
        """Give a half up, but not because software is late: fidelity is judged at the end."""
        if self._waiting[half.side].get(half.number) is not half:
            return
        left_ns = due_ns + self.desk.slack_ns() - now_ns
        if left_ns > 0:
            self.desk.wake(left_ns, partial(self._cut_off, half, due_ns))
            return
        self.expire(half)
        if not self.inner:
            self._events.broken(half.number)

    def settle(self, half: Half) -> None:
        """An end knows what its half is now: it waits no more."""
        self._waiting[half.side].pop(half.number, None)

    def freed(self, handle: int) -> None:
        """Whoever a half was handed over to has let go of its memory."""
        for link in self.links:
            for half in [] if link is None else [*link.halves.values(), *link.handed.values()]:
                if link is not None and half.handle == handle:
                    link.gone(half)

    def hand_over(self, half: Half) -> None:
        """It is the service's from now on."""
        self._link(half.side).hand_over(half)

    # swaps

    def _match(self) -> None:
        """Swap while there is a pair on both sides, the oldest first."""
        while True:
            sides = [next((half for half in side.values() if half.extended), None) for side in self._waiting]
            up, down = sides
            if up is None or down is None:
                return
            for half in (up, down):
                del self._waiting[half.side][half.number]
                self._swapping[half.side, half.number] = half
            asked = Swap(request=self.desk.request(), left=up.handle, right=down.handle)
            self.desk.ask(asked, partial(self._swapped, up, down))

    def _swapped(self, up: Half, down: Half, report: Report) -> None:
        cut = [half for half in (up, down) if (half.side, half.number) in self._cut]
        for half in (up, down):
            self._swapping.pop((half.side, half.number), None)
            self._cut.discard((half.side, half.number))
        if report.ok:
            self._join(up, down, report)
            for half in cut:
                self._expired(half.side, half.number)
            return
        for half in (up, down):
            link = self._link(half.side)
            if report.code == "instruction.failed":
                link.gone(half)
            if half in cut:
                link.replace(half.number)
            else:
                link.expire(half.number)
            link.release(half)

    def _join(self, up: Half, down: Half, report: Report) -> None:
        """The two are one pair now, whose halves are elsewhere."""
        self._swaps += 1
        row = TraceRow(
            what="swap",
            name=f"{self.site}/{self._swaps}",
            site=self.site,
            parts=(up.row.name, down.row.name),
            at_ns=report.due_ns,
            bits=report.bits,
        )
        joint = _Joint((up, down), report.bits[0] + 2 * report.bits[1], row, report.due_ns)
        for half in joint.halves:
            self._joints[half.side, half.number] = joint
            self._link(half.side).gone(half)
        while len(self._joints) > REMEMBERED:
            del self._joints[next(iter(self._joints))]
        for half in joint.halves:
            for track in self._tracks.pop((half.side, half.number), ()):
                self._pass_on(half.side, track, joint)

    # TRACK and EXPIRE

    def heard(self, peer: str, message: PairMessage) -> None:
        """A word of a neighbour on the path."""
        side = next(
            (side for side, link in enumerate(self.links) if link is not None and link.peer == peer), None
        )
        if side is None:
            return
        match message:
            case Create() | Error():
                self._link(side).heard(message)
            case Distil(far=False) | Distilled(far=False):
                self._link(side).heard(message)
            case Expire():
                self._expired(side, message.number)
            case Track():
                self._tracked(side, message)
            case _:
                onward = self.links[1 - side]
                if onward is None:
                    self._events.passed(message)
                else:
                    if isinstance(message, Want):
                        self._wanted(message)
                    self.desk.put(Tell(onward.peer, message))

    def _wanted(self, want: Want) -> None:
        """A later word counts."""
        if want.seq > self._want_seq:
            self._want_seq = want.seq
            self.pause(not want.more)

    def send(self, message: PairMessage) -> None:
        """From this end towards the other."""
        for link in self.links:
            if link is not None:
                self.desk.put(Tell(link.peer, message))

    def _starts(self, side: int) -> bool:
        """Whether some site beyond the next one on that side waits for this one's TRACK."""
        return self._reach(self.place, side) not in (self.place, self.place + (1 if side == DOWN else -1))

    def _reach(self, origin: int, side: int) -> int:
        """The last site that waits for TRACK from `origin` in that direction."""
        step = 1 if side == DOWN else -1
        ceiling, reached = self._levels[origin], origin
        at = origin + step
        while 0 <= at <= self.last:
            reached = at
            if self._levels[at] >= ceiling:
                break
            at += step
        return self._last_waiting(origin, reached, step)

    def _last_waiting(self, origin: int, reached: int, step: int) -> int:
        """Of the sites up to `reached`, the last for which `origin` is the partner."""
        for at in range(reached, origin, -step):
            between = range(origin + step, at, step)
            if all(self._levels[other] < self._levels[at] for other in between) and (
                self._levels[origin] >= self._levels[at]
            ):
                return at
        return origin

    def track(self, half: Half, first: int, frame: int, pair: Pair) -> None:
        """Send TRACK for a half that is held here, across its link."""
        sheet = self.sheets[half.side]
        link = self.links[half.side]
        if sheet is None or link is None:
            return
        message = Track(
            order_id=self.desk.order_id,
            binding=self.desk.binding,
            circuit=self.circuit.circuit,
            number=half.number,
            origin=self.place,
            first=first,
            frame=frame,
            pair=pair,
            resting=of_memory(sheet, self.site, half.since_ns),
            known_ns=half.known_ns,
            made_ns=half.since_ns,
            rows=(*half.rows, half.row),
            elapsed_ps=None if half.seen_ps is None else 0,
            gates=gates_of(sheet, self.site),
        )
        self.desk.put(Tell(link.peer, message))

    def _tracked(self, side: int, track: Track) -> None:
        joint = self._joints.get((side, track.number))
        if joint is not None:
            self._pass_on(side, track, joint)
            return
        half = self._waiting[side].get(track.number)
        if half is not None and not self.inner:
            self._events.tracked(half, track)
            return
        if half is not None and track.origin == self._partner[side]:
            half.extended = True
        tracks = self._tracks.setdefault((side, track.number), [])
        tracks.append(track)
        while len(self._tracks) > REMEMBERED:
            del self._tracks[next(iter(self._tracks))]
        if self.inner:
            self._match()

    def _pass_on(self, side: int, track: Track, joint: _Joint) -> None:
        """Across the other link, with what this site has added."""
        here, there = joint.halves[side], joint.halves[1 - side]
        step = 1 if side == UP else -1
        target = self._reach(track.origin, 1 - side)
        link, sheet = self.links[1 - side], self.sheets[1 - side]
        if link is None or sheet is None or (target - self.place) * step <= 0:
            return
        pair = Pair(*track.pair)
        pair = rested(pair, of_memory(self._sheet(side), self.site), joint.at_ns - here.known_ns)
        other = rested(there.pair, of_memory(sheet, self.site), joint.at_ns - there.known_ns)
        up = self._sheet(UP)
        message = msgspec.structs.replace(
            track,
            number=there.number,
            frame=track.frame ^ joint.frame ^ there.frame,
            pair=swapped(pair, other, up, self.site),
            made_ns=min(track.made_ns, there.since_ns),
            rows=(*track.rows, *there.rows, there.row, joint.row),
            elapsed_ps=onward(track.elapsed_ps, here, there),
        )
        self.desk.put(Tell(link.peer, message))

    def _link(self, side: int) -> LinkWish:
        link = self.links[side]
        assert link is not None
        return link

    def _sheet(self, side: int) -> LinkSheet:
        sheet = self.sheets[side]
        assert sheet is not None
        return sheet

    def _expired(self, side: int, number: int) -> None:
        """What a pair of that side's link was to be is broken."""
        self._tracks.pop((side, number), None)
        if (side, number) in self._swapping:
            self._cut.add((side, number))
            return
        joint = self._joints.pop((side, number), None)
        if joint is not None:
            other = joint.halves[1 - side]
            self._joints.pop((other.side, other.number), None)
            self._link(side).replace(number)
            self._link(other.side).expire(other.number)
            return
        link = self.links[side]
        half = None if link is None else link.expired(number)
        self._waiting[side].pop(number, None)
        if not self.inner:
            self._events.broken(number)
        elif link is not None and half is not None:
            link.release(half)


_END: Final = 1 << 30
