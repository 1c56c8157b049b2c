"""Fusion: the site of a junction makes one state of one pair of each of its circuits.

GHZ: the halves here are fused into one. Graph state whose edges are pairs: a Hadamard gate makes an edge of
each, then the halves here are fused. Graph state that is made here: the gates of its edges are done on the
halves here, which are then measured in x: what they did shows at the far ends, up to phase flips.

A job may have several junctions: one that is given nothing, and others that grow towards it. Such a one joins
its own pairs with a half of each circuit that it is given, and says GROWN to the junction of that circuit,
for which the pair counts from then on. Where nothing is given the state gets its name, and what the outcomes
ask for goes out with JOINED, through junctions that know what theirs ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final, NamedTuple

import msgspec

from multiplane.api.instructions import CoreInstruction, Fuse, Gate, Measure, Report
from multiplane.api.states import TraceRow
from multiplane.fabric.planes import Job, Junction
from multiplane.fabric.resource.circuit_end import CircuitEnd
from multiplane.fabric.resource.end_pool import Confirmed
from multiplane.fabric.resource.pair_words import Desk, Grown, Joined, Outcome
from multiplane.fabric.resource.parts import take_part
from multiplane.fabric.resource.quality import (
    PERFECT,
    Leg,
    Pair,
    at,
    combined,
    gates_of,
    leg_of,
    of_memory,
    swapped,
    turned,
)
from multiplane.fabric.resource.sacrifice import Outcomes, Tally, sacrifice_of, wrong

REMEMBERED: Final = 1024
_X, _Z = 2, 1


class Step(NamedTuple):
    """One operation on halves by place: `fuse` the second into the first, `cz`, `h`, or measure in `x`."""

    do: str
    places: tuple[int, ...]


def steps_of(junction: Junction) -> tuple[int, list[Step]]:
    """What is done with the halves, and which of them is kept if the site is a party.

    Places are those of the circuits of the junction, then of those that it is given.
    """
    count = len(junction.circuits)
    if junction.kind != "graph":
        kept = count if junction.given else 0
        places = range(count + len(junction.given))
        edges = [Step("h", (place,)) for place in range(count) if junction.kind == "edges"]
        fusions = [Step("fuse", (kept, place)) for place in places if place != kept]
        return kept, [*edges, *fusions, *([] if junction.party else [Step("x", (kept,))])]
    inner = [Step("cz", (one - 1, two - 1)) for one, two in junction.edges if one and two]
    if not junction.party:
        return 0, [*inner, *(Step("x", (place,)) for place in range(count))]
    # The half that shares its pair with a neighbour becomes the vertex here: a Hadamard gate makes that edge.
    near = [max(edge) - 1 for edge in junction.edges if not min(edge)]
    kept = near[0]
    outer = [Step("cz", (kept, place)) for place in near[1:]]
    reads = [Step("x", (place,)) for place in range(count) if place != kept]
    return kept, [*inner, Step("h", (kept,)), *outer, *reads]


@dataclass(slots=True, eq=False)
class _Run:
    """One state in the making.

    Args:
        frames: by place, what outcomes so far ask for at the far end; pairs: what is left of the pairs here.
        owed: given places whose JOINED is still to come; frame: what those that came ask for here.
        rows: of all that is in it here and beyond.
    """

    parts: list[Confirmed]
    frames: list[int]
    pairs: list[Pair]
    todo: list[Step]
    owed: set[int]
    state: str = ""
    frame: int = 0
    broken: bool = False
    rows: list[TraceRow] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        """Of the pairs, at this site."""
        return [part.half.number for part in self.parts]


class Fusing:
    """A junction at its site; implements `end_pool.Weaver`.

    Args: ends: of all circuits that end here; tally: of the job at this site; changed: it is told.
    """

    def __init__(
        self,
        desk: Desk,
        job: Job,
        junction: Junction,
        *,
        ends: Mapping[str, CircuitEnd],
        tally: Tally,
        changed: Callable[[], None],
    ) -> None:
        self._desk, self._job, self._junction = desk, job, junction
        self._all_ends, self._tally, self._changed = ends, tally, changed
        self._names = (*junction.circuits, *junction.given)
        self._count = len(junction.circuits)
        self._grows = {name for other in job.junctions for name in other.given}
        self._kept, self._steps = steps_of(junction)
        self._pool: list[dict[int, Confirmed]] = [{} for _ in junction.circuits]
        self._young: list[dict[int, Confirmed]] = [{} for _ in junction.circuits]
        self._words: dict[tuple[str, int], Grown] = {}
        self._runs: list[_Run] = []
        self._grown: list[_Run] = []
        self._made: dict[str, _Run] = {}
        self._named = 0
        self._outcomes = Outcomes()
        self._stopped = False

    @cached_property
    def _ends(self) -> list[CircuitEnd]:
        return [self._all_ends[name] for name in self._names]

    # halves come

    def confirmed(self, circuit: str, known: Confirmed) -> None:
        """A pair of one of the circuits is there at both ends; if the far one joins it to others, not yet."""
        place = self._names.index(circuit)
        word = self._words.pop((circuit, known.first), None)
        if word is None and circuit in self._grows:
            self._young[place][known.half.number] = known
            return
        self._pool[place][known.half.number] = known if word is None else self._grew(known, word)
        self.given()

    def _grew(self, known: Confirmed, word: Grown) -> Confirmed:
        """A pair whose far half was joined to what is beyond."""
        pair = combined(at(known.leg, self._desk.now_ns), Pair(*word.pair))
        resting = known.leg.resting if word.rests else known.leg.resting[:1]
        return known._replace(
            frame=known.frame ^ word.frame,
            leg=leg_of(pair, self._desk.now_ns, *resting),
            made_ns=min(known.made_ns, word.made_ns),
            rows=(*word.rows, *known.rows),
            beyond=word.legs,
        )

    def given(self) -> None:
        """Join the oldest pairs, as long as states are wanted."""
        while not self._stopped and all(self._pool) and self._room():
            parts = [pool.pop(next(iter(pool))) for pool in self._pool]
            parts += [self._given(end) for end in self._ends[self._count :]]
            pairs = [at(known.leg, self._desk.now_ns) for known in parts]
            owed = set(range(self._count, len(parts)))
            run = _Run(parts, [known.frame for known in parts], pairs, list(self._steps), owed)
            self._runs.append(run)
            self._next(run)

    def _room(self) -> bool:
        """Whether one more may begin: where several are given one at a time, so that all are of one state."""
        given = self._ends[self._count :]
        if given:
            alone = len(given) == 1 or not (self._runs or self._grown)
            return alone and all(end.given_halves for end in given)
        return not self._job.size or self._named + len(self._runs) < self._job.size

    def _given(self, end: CircuitEnd) -> Confirmed:
        """The oldest half of a circuit of another junction, which knows the pair: here only what is lost."""
        half = end.given_halves.pop(next(iter(end.given_halves)))
        leg = leg_of(PERFECT, self._desk.now_ns, of_memory(end.sheet, end.site, half.since_ns))
        return Confirmed(half, 0, leg, half.number, half.since_ns, (*half.rows, half.row))

    # they are joined

    def _next(self, run: _Run) -> None:
        if run.broken:
            self._give_up(run)
            return
        if not run.todo:
            self._runs.remove(run)
            self._finish(run)
            return
        step = run.todo.pop(0)
        handles = tuple(run.parts[place].half.handle for place in step.places)
        self._desk.ask(_instruction(step, self._desk.request(), handles), partial(self._done, run, step))

    def _done(self, run: _Run, step: Step, report: Report) -> None:
        if run not in self._runs:
            return
        if not report.ok:
            run.broken = True
        else:
            last = step.places[-1]
            if step.do in ("fuse", "x"):
                self._ends[last].circuit_site.freed(run.parts[last].half.handle)
                run.frames[last] ^= report.bits[0] * self._asks(step.do, last)
            for place in step.places:
                run.pairs[place] = self._worn(step, place, run.pairs[place])
        self._next(run)

    def _asks(self, do: str, place: int) -> int:
        """For what an outcome of 1 asks at the far end of a pair.

        A vertex that is flipped is a phase of its neighbours; the one beyond a pair that is given hears of it
        as a flip of that pair, which is a phase of the vertex there.
        """
        if do == "x" or (self._junction.kind == "edges" and place < self._count):
            return _Z
        return _X

    def _worn(self, step: Step, place: int, pair: Pair) -> Pair:
        """What the noise of a step leaves of the pair of a half."""
        end = self._ends[place]
        if step.do == "h":
            return turned(pair, gates_of(end.sheet, end.site).keep_single)
        if step.do == "x":
            right = 1.0 - 2.0 * end.sheet.flip_probability[end.sheet.sites.index(end.site)]
            return pair._replace(x=pair.x * right, y=pair.y * right)
        if step.do == "fuse" and place == step.places[0]:
            return pair
        return swapped(pair, PERFECT, end.sheet, end.site)

    def _finish(self, run: _Run) -> None:
        """All is joined here."""
        for known in run.parts:
            run.rows += known.rows
        last = tuple(known.rows[-1].name for known in run.parts)
        if not self._junction.given:
            self._name(run, last)
            return
        self._grown.append(run)
        legs = self._legs(run)
        for place in range(self._count, len(run.parts)):
            end, number = self._ends[place], run.numbers[place]
            pair, rests = run.pairs[place], self._junction.party and place == self._kept
            row = self._fused(f"{self._junction.junction}.{self._junction.binding}/{number}", last)
            word = Grown(
                **end.about(),
                first=number,
                frame=run.frames[place],
                pair=pair,
                rests=rests,
                legs=legs,
                made_ns=min(known.made_ns for known in run.parts),
                rows=(*run.rows, row),
            )
            end.circuit_site.send(word)

    def _fused(self, name: str, parts: tuple[str, ...]) -> TraceRow:
        return TraceRow(
            what="fuse", name=name, site=self._junction.site, parts=parts, at_ns=self._desk.now_ns
        )

    def _legs(self, run: _Run) -> dict[str, Leg]:
        """Of the circuits here and beyond: from now on only what is still held rests.

        What outcomes elsewhere ask for is not known yet: each end is taken to need a gate.
        """
        legs = {name: leg for known in run.parts for name, leg in known.beyond.items()}
        for place, name in enumerate(self._junction.circuits):
            known, end = run.parts[place], self._ends[place]
            pair, resting = turned(run.pairs[place], known.gates.keep_single), known.leg.resting
            kept = self._junction.party and place == self._kept
            if kept and self._junction.kind == "edges":
                pair = turned(pair, gates_of(end.sheet, end.site).keep_single)
            legs[name] = leg_of(pair, self._desk.now_ns, *(resting if kept else resting[1:]))
        return legs

    # it gets a name

    def _name(self, run: _Run, parts: tuple[str, ...]) -> None:
        """The whole is there."""
        legs, now_ns, job = self._legs(run), self._desk.now_ns, self._job
        known = tuple(legs[one.circuit] for one in job.circuits if one.circuit in legs)
        until_ns = self._ends[0].form.expires_ns(known, now_ns, job.min_fidelity) if known else 0
        if len(known) < len(job.circuits) or until_ns < now_ns + max(job.hold_ns, 1):
            self._give_up(run)
            return
        state = f"{self._junction.junction}.{self._junction.binding}/{run.numbers[0]}"
        run.rows.append(self._fused(state, parts))
        if not self.basis(state):
            self._named += 1
        made_ns = min(part.made_ns for part in run.parts)
        joined = Joined(
            **self._ends[0].about(),
            first=0,
            frame=0,
            state=state,
            legs=known,
            made_ns=made_ns,
            rows=tuple(run.rows),
        )
        self._tell_all(run, joined)
        self._settle(run, joined)

    def told(self, message: Outcome | Grown | Joined) -> None:
        """A word of the far end of a circuit."""
        match message:
            case Grown():
                self._heard_grown(message)
            case Joined():
                self._heard_joined(message)
            case Outcome():
                self._reveal(message.state, message.site, message.bit)

    def _heard_grown(self, word: Grown) -> None:
        place = self._names.index(word.circuit)
        young = self._young[place] if place < self._count else {}
        known = next((known for known in young.values() if known.first == word.first), None)
        self._words[word.circuit, word.first] = word
        if known is not None:
            del young[known.half.number]
            self.confirmed(word.circuit, known)
        if len(self._words) > REMEMBERED:
            del self._words[next(iter(self._words))]

    def _heard_joined(self, joined: Joined) -> None:
        place = self._names.index(joined.circuit)
        run = next((run for run in self._grown if run.numbers[place] == joined.first), None)
        if run is None or place not in run.owed:
            return  # lost meanwhile: EXPIRE is on its way
        if run.state and run.state != joined.state:
            self._give_up(run)
            return
        run.frame ^= joined.frame
        run.owed.remove(place)
        if not run.state:
            self._tell_all(run, joined)
        if not run.owed:
            self._grown.remove(run)
            self._settle(run, joined)

    def _tell_all(self, run: _Run, joined: Joined) -> None:
        """The far ends of the circuits here hear of the state as soon as this site does."""
        run.state = joined.state
        self._made[run.state] = run
        if len(self._made) > REMEMBERED:
            del self._made[next(iter(self._made))]
        if self._junction.party:
            self._ends[self._kept].known[run.numbers[self._kept]] = run.parts[self._kept]
        for place in range(self._count):
            end = self._ends[place]
            word = msgspec.structs.replace(
                joined,
                circuit=self._names[place],
                first=run.parts[place].first,
                frame=self._onward(run, place),
            )
            end.circuit_site.send(word)

    def _onward(self, run: _Run, place: int) -> int:
        """What a far end has to take out. Of a GHZ state a flip here flips all beyond; one has the phase."""
        frame = run.frames[place]
        if self._junction.kind == "edges":
            return frame & _Z
        phase = run.frame & _Z if place == 0 and not self._junction.party else 0
        return frame ^ (run.frame & _X) ^ phase

    def _settle(self, run: _Run, joined: Joined) -> None:
        """All is known: the site's own qubit is a part of the state."""
        if self._junction.party:
            frame = run.frame
            if self._junction.kind == "edges":
                for own in run.frames[: self._count]:
                    frame ^= own >> 1  # a flip of a pair is a phase of the vertex here
            known = run.parts[self._kept]._replace(frame=frame, made_ns=joined.made_ns, rows=joined.rows)
            take_part(self._ends[self._kept], known, joined, self._reveal)
        elif not self.basis(run.state):
            self._tally.held += 1
        self.enough()
        self._changed()

    # sacrificed states

    def basis(self, state: str) -> str:
        """In which a state is sacrificed, empty if it is not."""
        return sacrifice_of(state, self._ends[0].circuit.sacrifice_share)

    def _reveal(self, state: str, site: str, bit: int) -> None:
        """The outcome of one site: counted where states get their names, passed on to there."""
        if self._junction.given:
            self._ends[self._count].tell_bit(state, site, bit)
            return
        if not self.basis(state) or site not in self._job.sites:
            return
        bits = self._outcomes.add(state, site, bit)
        if len(bits) == len(self._job.sites):
            self._outcomes.drop(state)
            basis = self.basis(state)
            self._tally.check(basis, wrong(self._job, state, basis, bits))
            self._changed()

    # what ends

    def broken(self, circuit: str, number: int) -> None:
        """A half of that circuit with this number at this site is lost, or what it was a half of is."""
        place = self._names.index(circuit)
        if place < self._count:
            self._pool[place].pop(number, None)
            self._young[place].pop(number, None)
        for run in self._runs:
            run.broken = run.broken or run.numbers[place] == number
        for run in {*self._grown, *self._made.values()}:
            if run.numbers[place] == number:
                self._give_up(run, place)

    def _give_up(self, run: _Run, lost: int = -1) -> None:
        """A state is worth nothing: all who have a part of it hear so. Args: lost: the place that knows."""
        for runs in (self._runs, self._grown):
            if run in runs:
                runs.remove(run)
        if self._made.pop(run.state, None) is not None and not self.basis(run.state):
            self._named -= not self._junction.given
            self._tally.held -= not self._junction.party and not run.owed
        for place, number in enumerate(run.numbers):
            if place != lost:
                self._ends[place].expire_number(number)
        self.enough()
        self.given()
        self._changed()

    def want(self, more: bool) -> None:
        """Let all circuits make pairs, or no more: what has no name yet is let go."""
        if more != self._stopped:
            return
        self._stopped = not more
        for run in [*self._runs, *self._grown] if self._stopped else []:
            if not run.state:
                (self._runs if run in self._runs else self._grown).remove(run)
                for end, number in zip(self._ends, run.numbers, strict=True):
                    end.circuit_site.release_number(number)
        if self._stopped:
            for pool in (*self._pool, *self._young):
                pool.clear()
        for end in self._ends[: self._count]:
            end.want(more)

    def enough(self) -> None:
        """Where states get their names: stop when all are there, and go on when one was lost."""
        if not self._junction.given:
            self.want(not (self._job.size and self._tally.held >= self._job.size))


def _instruction(step: Step, request: str, handles: tuple[int, ...]) -> CoreInstruction:
    match step.do:
        case "fuse":
            return Fuse(request=request, kept=handles[0], joined=handles[1])
        case "x":
            return Measure(request=request, handle=handles[0], basis="x")
        case _:
            return Gate(request=request, gate=step.do, handles=handles)
