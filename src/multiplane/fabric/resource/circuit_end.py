"""One end of a circuit: halves that TRACK has reached are put right, purified, and handed over.

What is handed over has the same name at both ends: the circuit, its binding and the number of the pair on the
first link. Which states are sacrificed, and in which basis, follows from the name; so do both ends agree.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from multiplane.api.fabric_units import HeldState, StateLost
from multiplane.api.instructions import Gate, LinkSheet, Measure, Report
from multiplane.api.states import TraceRow
from multiplane.fabric.planes import Circuit, Job, Junction
from multiplane.fabric.resource.end_pool import Confirmed, EndEvents, EndPool, Weaver, enough_pairs
from multiplane.fabric.resource.network_layer import CircuitEvents, CircuitSite
from multiplane.fabric.resource.pair_words import (
    FRAME_GATES,
    Desk,
    Distil,
    Distilled,
    Grown,
    Half,
    Held,
    Joined,
    Lost,
    Outcome,
    PairMessage,
    Track,
    Want,
)
from multiplane.fabric.resource.parts import hand_over_bit, read, take_part
from multiplane.fabric.resource.quality import (
    Leg,
    Pair,
    form_of,
    gates_of,
    leg_of,
    of_memory,
    rested,
    turned_leg,
)
from multiplane.fabric.resource.sacrifice import Outcomes, Tally, differ, flips, sacrifice_of
from multiplane.fabric.resource.tags import dated

MOST_BITS: Final = 1024


class CircuitEnd:
    """One end.

    Args:
        junction: that the circuit belongs to, if any.
            Its pairs are joined to others at this end (`joins`) or at the other (`given`).
        weaver: the junction at this site that joins the halves of this end, if there is one.
    """

    def __init__(
        self,
        desk: Desk,
        job: Job,
        circuit: Circuit,
        *,
        site: str,
        sheet: LinkSheet,
        tally: Tally,
        events: EndEvents,
        junction: Junction | None = None,
        weaver: Weaver | None = None,
    ) -> None:
        self.desk, self.job, self.circuit, self.site, self.sheet = desk, job, circuit, site, sheet
        self.form = form_of(job)
        self._weaver = weaver
        self.joins = junction is not None and junction.site == site
        self.given = junction is not None and not self.joins
        self.plain = junction is None
        self.head = circuit.path[0] == site
        self._tally, self._events = tally, events
        hears = CircuitEvents(self._came, self._tracked, self._broken, self._passed, events.failed)
        sheets = (None, sheet) if self.head else (sheet, None)
        self.circuit_site = CircuitSite(desk, circuit, site, sheets, hears, enough=enough_pairs(job, circuit))
        self._two_way = self.plain or circuit.end_rounds > 0
        self._pool = EndPool(desk, self.circuit_site, sheet, pure=self.pure, broken=self.let_go)
        self._queue: list[Half] = []
        self._tracks: dict[int, Track] = {}
        self._flying: set[int] = set()
        self._bits: dict[int, int] = {}
        self.known: dict[int, Confirmed] = {}
        self._measured: dict[int, Confirmed] = {}
        self.given_halves: dict[int, Half] = {}
        self._states: dict[int, tuple[str, str]] = {}
        self._sacrificed = Outcomes()
        self._want_seq = 0
        self._stopped = False

    # halves come

    def name(self, number: int) -> str:
        """Of the state that started as pair `number` of the first link."""
        return f"{self.circuit.circuit}.{self.circuit.binding}/{number}"

    def basis(self, number: int) -> str:
        """In which a state is sacrificed, empty if it is not."""
        return sacrifice_of(self.name(number), self.circuit.sacrifice_share) if self.plain else ""

    @property
    def _gated(self) -> bool:
        """Whether no more pairs may be under way than are still wanted."""
        return self.head and self.plain and self.job.size > 0 and not self.circuit.end_rounds

    @property
    def _tolerant(self) -> bool:
        """Whether halves are measured as they come."""
        return bool(self.circuit.measure) and self.plain and not self.circuit.end_rounds

    def _came(self, half: Half) -> None:
        self._queue.append(half)
        self.admit()

    def admit(self) -> None:
        """Let halves start as far as states are still wanted."""
        while self._queue:
            half = self._queue[0]
            if self._gated and not self.basis(half.number):
                if self._tally.held + self._tally.flying >= self.job.size:
                    return
                self._flying.add(half.number)
                self._tally.flying += 1
            self._queue.pop(0)
            self._start(half)

    def _start(self, half: Half) -> None:
        if self._two_way or self.given:
            self.circuit_site.track(half, half.number, half.frame, half.pair)
        if self.given and not self._two_way:
            self.circuit_site.settle(half)
            self._give(half)
        if self._tolerant:
            self._measure(half, self.circuit.measure)
        track = self._tracks.pop(half.number, None)
        if track is not None:
            self._tracked(half, track)

    def _give(self, half: Half) -> None:
        self.given_halves[half.number] = half
        if self._weaver is not None:
            self._weaver.given()

    def _measure(self, half: Half, basis: str) -> None:
        asked = Measure(request=self.desk.request(), handle=half.handle, basis=basis)
        self.desk.ask(asked, partial(self._read, half))

    def _read(self, half: Half, report: Report) -> None:
        """The outcome of a half that is measured here, before or after its TRACK has come."""
        if half.gone:
            return
        if not report.ok:
            self.circuit_site.expire(half)
            self._broken(half.number)
            return
        self._bits[half.number] = report.bits[0]
        while len(self._bits) > MOST_BITS:
            del self._bits[next(iter(self._bits))]
        self.circuit_site.freed(half.handle)
        known = self._measured.pop(half.number, None)
        if known is not None:
            self._deliver_bit(known)

    def _tracked(self, half: Half, track: Track) -> None:
        """The other end's half is at the other end: what both are is known."""
        if half in self._queue:
            self._tracks[half.number] = track
            return
        if half.number in self.known or (self.given and not self._two_way):
            return
        now_ns = self.desk.now_ns
        mine = of_memory(self.sheet, self.site, half.since_ns)
        pair = Pair(*track.pair)
        if not self._tolerant:
            pair = rested(pair, track.resting, now_ns - track.known_ns)
            pair = rested(pair, mine, now_ns - half.known_ns)
        half.shared = half.number if self.head else track.first
        known = Confirmed(
            half=half,
            # TRACK has not passed the half here: its own link's share of the frame is in it already.
            frame=track.frame,
            leg=leg_of(pair, now_ns, *(() if self._tolerant else (mine, track.resting))),
            first=track.first,
            made_ns=min(track.made_ns, half.since_ns),
            rows=track.rows,
            elapsed_ps=track.elapsed_ps,
            gates=track.gates,
        )
        self.circuit_site.settle(half)
        self.known[half.number] = known
        if self.circuit.end_rounds:
            self._put_right(known, self._purify)
        elif self.joins:
            self._confirm(known)
        else:
            self._deliver(known)

    # what they are is known

    def _put_right(self, known: Confirmed, then: Callable[[Confirmed], None]) -> None:
        """The end down the path takes the frame out; its gate costs what both ends hold."""
        if not known.frame:
            then(known)
        elif self.head:
            then(known._replace(leg=turned_leg(known.leg, known.gates.keep_single)))
        else:
            self.gate(known, then)

    def gate(self, known: Confirmed, then: Callable[[Confirmed], None]) -> None:
        """Take the frame out, unless the half is lost meanwhile."""
        gate = FRAME_GATES[known.frame]
        asked = Gate(request=self.desk.request(), gate=gate, handles=(known.half.handle,))
        self.desk.ask(asked, partial(self._turned, known, then))

    def _turned(self, known: Confirmed, then: Callable[[Confirmed], None], report: Report) -> None:
        half = known.half
        if half.gone or half.number not in self.known:
            return
        if not report.ok:
            self.let_go(half)
            return
        row = TraceRow(
            what="correct",
            name=f"{FRAME_GATES[known.frame]} {self.site}/{half.handle}",
            site=self.site,
            parts=(known.rows[-1].name,),
            at_ns=report.due_ns,
        )
        leg = turned_leg(known.leg, gates_of(self.sheet, self.site).keep_single)
        known = known._replace(frame=0, leg=leg, rows=(*known.rows, row))
        self.known[half.number] = known
        then(known)

    def _deliver(self, known: Confirmed) -> None:
        """A pair that is handed over as it is."""
        basis = self.basis(known.half.shared)
        if self._tolerant:
            if known.half.number in self._bits:
                self._deliver_bit(known)
            else:
                self._measured[known.half.number] = known
        elif basis:
            read(self, known, basis, partial(self._sacrifice, known, basis))
        elif self.circuit.measure:  # what is purified at its ends is measured after that
            read(self, known, self.circuit.measure, partial(self._hand_over_bit, known))
        else:
            self._put_right(known, self._hold)

    def _hold(self, known: Confirmed) -> None:
        """Hand a state over, unless it would not stay above the floor for long enough."""
        self.offer(known, self.name(known.half.shared), (known.leg,))

    def offer(self, known: Confirmed, name: str, legs: tuple[Leg, ...]) -> None:
        """The same of a half of a state of these legs."""
        half, now_ns, job = known.half, self.desk.now_ns, self.job
        until_ns = self.form.expires_ns(legs, now_ns, job.min_fidelity)
        if until_ns < now_ns + max(job.hold_ns, 1):
            self.let_go(half)
            return
        address = f"{self.site}/{half.handle}"
        row = TraceRow(
            what="address", name=address, site=self.site, parts=(known.rows[-1].name,), at_ns=now_ns
        )
        self.announce(
            known,
            HeldState(
                order_id=job.order_id,
                state=name,
                address=address,
                fidelity=self.form.fidelity(legs, now_ns),
                made_ns=known.made_ns,
                expires_ns=until_ns,
            ),
            row,
        )

    def _deliver_bit(self, known: Confirmed) -> None:
        """The same of one that was measured as it came."""
        half, basis = known.half, self.circuit.measure
        bit = self._bits.pop(half.number)
        if self.basis(half.shared) and (
            self.form.fidelity((known.leg,), self.desk.now_ns) >= self.job.min_fidelity
        ):
            self._settled(half)
            self._reveal(self.name(half.shared), basis, self._unframed(known, basis, bit))
        else:
            self._hand_over_bit(known, bit)

    def _hand_over_bit(self, known: Confirmed, bit: int) -> None:
        bit = self._unframed(known, self.circuit.measure, bit)
        hand_over_bit(self, known, self.name(known.half.shared), (known.leg,), bit)

    def _unframed(self, known: Confirmed, basis: str, bit: int) -> int:
        """What was read with the frame taken out of it, which is up to the end down the path."""
        return bit if self.head else bit ^ flips(known.frame, basis)

    def announce(self, known: Confirmed, state: HeldState, row: TraceRow) -> None:
        """A state is handed over: with its address, or with what was read of it."""
        half = known.half
        self._settled(half)
        self._states[half.number] = state.state, state.address
        oldest = next(iter(self._states))
        if len(self._states) > MOST_BITS and not self._states[oldest][1]:
            del self._states[oldest]
        handle = half.handle if state.address else 0
        if handle:
            self.circuit_site.hand_over(half)
        state = dated(state, half, known.elapsed_ps, head=self.head)
        self.desk.put(Held(state, handle, (*known.rows, row)))
        self._tally.held += 1
        self.enough()
        self._events.changed()

    def _settled(self, half: Half) -> None:
        """It is under way no more."""
        self.known.pop(half.number, None)
        if half.number in self._flying:
            self._flying.remove(half.number)
            self._tally.flying -= 1

    # sacrificed states

    def _sacrifice(self, known: Confirmed, basis: str, bit: int) -> None:
        self._settled(known.half)
        self._reveal(self.name(known.half.shared), basis, self._unframed(known, basis, bit))
        self.admit()

    def _reveal(self, state: str, basis: str, bit: int) -> None:
        """The end down the path tells its outcome, the first end counts."""
        if self.head:
            self._compare(state, basis, self.site, bit)
        else:
            self.tell_bit(state, self.site, bit)

    def _told(self, outcome: Outcome) -> None:
        """The other end's bit."""
        basis = sacrifice_of(outcome.state, self.circuit.sacrifice_share)
        if self.head and basis:
            self._compare(outcome.state, self.circuit.measure or basis, outcome.site, outcome.bit)

    def _compare(self, state: str, basis: str, site: str, bit: int) -> None:
        bits = self._sacrificed.add(state, site, bit)
        if len(bits) == 2:
            self._sacrificed.drop(state)
            self._tally.check(basis, differ(basis, bits.values()))
            self._events.changed()

    # what ends

    def let_go(self, half: Half) -> None:
        """Give a half up, and let the other end know."""
        self.circuit_site.expire(half)
        self._broken(half.number)

    def expire_number(self, number: int) -> None:
        """The same by the number of its pair, also of one that was used up."""
        self.circuit_site.expire_number(number)
        self._broken(number)

    def _broken(self, number: int) -> None:
        """The half with this number is lost, or the rest of its pair is."""
        self._queue = [half for half in self._queue if half.number != number]
        self._tracks.pop(number, None)
        self.given_halves.pop(number, None)
        self._measured.pop(number, None)
        self.known.pop(number, None)
        self._pool.drop(number)
        if number in self._flying:
            self._flying.remove(number)
            self._tally.flying -= 1
        state, address = self._states.pop(number, ("", ""))
        self.circuit_site.release_number(number)
        if state:
            self._tally.held -= 1
            reason = "the other end has lost its part"
            lost = StateLost(order_id=self.job.order_id, state=state, address=address, reason=reason)
            self.desk.put(Lost(lost))
            self.enough()
            self._events.changed()
        if self._weaver is not None:
            self._weaver.broken(self.circuit.circuit, number)
        self.admit()

    def freed(self, handle: int) -> None:
        """Whoever a state was handed over to has let go of its qubit."""
        for half in self.circuit_site.handed():
            if half.handle == handle:
                self._states.pop(half.number, None)
        self.circuit_site.freed(handle)

    def enough(self) -> None:
        """The first end stops when it holds all states that are wanted, and goes on when one was lost."""
        more = not self.job.size or self._tally.held < self.job.size
        if self.head and self.plain and more == self._stopped:
            self.want(more)

    def want(self, more: bool) -> None:
        """Let all sites of the circuit make pairs, or no more."""
        self._want_seq += 1
        self.circuit_site.send(Want(**self.about(), seq=self._want_seq, more=more))
        self._stop(not more)

    def _stop(self, stopped: bool) -> None:
        self._stopped = stopped
        if stopped:
            self._empty()
        self.circuit_site.pause(stopped)

    def _empty(self) -> None:
        """Let go of all that nobody has been told of and that is not on its way to somebody."""
        self._pool.clear()
        for half in self.circuit_site.halves():
            if half.number not in self.known:
                self.circuit_site.release(half)
        self._queue.clear()
        self._tracks.clear()
        self.given_halves.clear()

    def close(self) -> None:
        """The job is over here; what was handed over stays."""
        self.circuit_site.close()

    def _passed(self, message: PairMessage) -> None:
        """For this end alone."""
        match message:
            case Want() if message.seq > self._want_seq and not (self.head and self.plain):
                self._want_seq = message.seq
                if self._weaver is not None:
                    self._weaver.want(message.more)
                self._stop(not message.more)
            case Outcome() if self.plain:
                self._told(message)
            case Outcome() | Grown() | Joined() if self._weaver is not None:
                self._weaver.told(message)
            case Joined() if self.given:
                self._joined(message)
            case Distil() if self.head:
                self._pool.distiller.begun(message.kept, message.sacrificed, message.bit, message.at_ns)
            case Distilled() if not self.head:
                self._pool.distiller.done(message.kept, message.sacrificed, message.bit)
            case _:
                pass

    def about(self) -> dict[str, Any]:
        """What every message of this circuit begins with."""
        desk = self.desk
        return {"order_id": desk.order_id, "binding": desk.binding, "circuit": self.circuit.circuit}

    # for a junction

    def _confirm(self, known: Confirmed) -> None:
        self.known.pop(known.half.number, None)
        if self._weaver is not None:
            self._weaver.confirmed(self.circuit.circuit, known)

    def _joined(self, joined: Joined) -> None:
        """The half that was given away is now a part of something larger."""
        half = self.given_halves.pop(joined.first, None)
        if half is not None:  # else lost meanwhile: EXPIRE is on its way
            known = Confirmed(half, joined.frame, joined.legs[0], joined.first, joined.made_ns, joined.rows)
            take_part(self, known, joined, self.tell_bit)

    def tell_bit(self, state: str, site: str, bit: int) -> None:
        """To the other end: what a site has read of a sacrificed state."""
        self.circuit_site.send(Outcome(**self.about(), state=state, site=site, bit=bit))

    # purification between the ends

    def _purify(self, known: Confirmed) -> None:
        self.known.pop(known.half.number, None)
        self._pool.add(known)

    def pure(self, half: Half, known: Confirmed) -> None:
        """All rounds are behind it."""
        self.known[half.number] = known
        if self.plain:
            self._deliver(known)
        elif self.joins:
            self._confirm(known)
        else:
            self._give(half)
