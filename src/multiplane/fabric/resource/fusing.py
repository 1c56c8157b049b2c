"""Fusion: the site of a junction makes one state of one pair of each of its circuits.

GHZ: the halves here are fused into one. Graph state: the gates of its edges are done on the halves here,
which are then measured in x: what they did shows at the far ends, up to phase flips. What the outcomes ask
for goes to the far ends with JOINED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from multiplane.api.fabric_units import HeldState, StateLost
from multiplane.api.instructions import CoreInstruction, Fuse, Gate, Measure, Report
from multiplane.api.states import TraceRow
from multiplane.fabric.planes import Job, Junction
from multiplane.fabric.resource.circuit_end import CircuitEnd
from multiplane.fabric.resource.end_pool import Confirmed
from multiplane.fabric.resource.pair_words import Desk, Held, Joined, Lost, Outcome
from multiplane.fabric.resource.quality import (
    Leg,
    at,
    expires_ns,
    gate_gain,
    leg_of,
    state_fidelity,
    swapped,
    turned,
)
from multiplane.fabric.resource.sacrifice import Outcomes, Tally, basis_at, sacrifice_of, wrong
from multiplane.physics.bell import PHI_PLUS, Correlations

REMEMBERED: Final = 1024
_X, _Z = 2, 1


class Step(NamedTuple):
    """One operation on halves by place: `fuse` the second into the first, `cz`, `h`, or measure in `x`."""

    do: str
    places: tuple[int, ...]


def steps_of(junction: Junction) -> tuple[int, list[Step]]:
    """What is done with the halves, and which of them is kept if the site is a party."""
    count = len(junction.circuits)
    if junction.kind == "ghz":
        fusions = [Step("fuse", (0, place)) for place in range(1, count)]
        return 0, fusions if junction.party else [*fusions, Step("x", (0,))]
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
    """One state in the making."""

    parts: list[Confirmed]
    frames: list[int]
    legs: list[Correlations]
    todo: list[Step]
    broken: bool = False


class Fusing:
    """A junction at its site.

    Args: ends: of its circuits, in order; tally: of the job at this site; changed: it is told.
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
        self._ends = [ends[name] for name in junction.circuits]
        self._tally, self._changed = tally, changed
        self._kept, self._steps = steps_of(junction)
        self._pool: list[dict[int, Confirmed]] = [{} for _ in self._ends]
        self._runs: list[_Run] = []
        self._made: dict[str, tuple[int, ...]] = {}
        self._outcomes = Outcomes()
        self._stopped = False
        self._shape = "graph" if junction.kind == "graph" else "ghz" if junction.party else "star"

    def confirmed(self, circuit: str, known: Confirmed) -> None:
        """A pair of one of the circuits is there at both ends."""
        self._pool[self._junction.circuits.index(circuit)][known.half.number] = known
        self._go_on()

    def _go_on(self) -> None:
        """Join the oldest pairs, as long as states are wanted."""
        size = self._job.size
        while all(self._pool) and not (size and self._tally.held + len(self._runs) >= size):
            parts = [pool.pop(next(iter(pool))) for pool in self._pool]
            legs = [at(known.leg, self._desk.now_ns) for known in parts]
            run = _Run(parts, [known.frame for known in parts], legs, list(self._steps))
            self._runs.append(run)
            self._next(run)

    def _next(self, run: _Run) -> None:
        if run.broken:
            self._give_up(run)
            return
        if not run.todo:
            self._finish(run)
            return
        step = run.todo.pop(0)
        handles = tuple(run.parts[place].half.handle for place in step.places)
        self._desk.ask(_instruction(step, self._desk.request(), handles), partial(self._done, run, step))

    def _done(self, run: _Run, step: Step, report: Report) -> None:
        if not report.ok:
            run.broken = True
        else:
            last = step.places[-1]
            end = self._ends[last]
            if step.do in ("fuse", "x"):
                end.circuit_site.freed(run.parts[last].half.handle)
                run.frames[last] ^= report.bits[0] * (_X if step.do == "fuse" else _Z)
            for place in step.places:
                run.legs[place] = self._worn(step, place, run.legs[place])
        self._next(run)

    def _worn(self, step: Step, place: int, pair: Correlations) -> Correlations:
        """What the noise of a step leaves of the pair of a half."""
        end = self._ends[place]
        if step.do == "h":
            return turned(pair, gate_gain(end.sheet, end.site))
        if step.do == "x":
            right = 1.0 - 2.0 * end.sheet.flip_probability[end.sheet.sites.index(end.site)]
            return Correlations(pair.x * right, pair.y * right, pair.z)
        if step.do == "fuse" and place == step.places[0]:
            return pair
        return swapped(pair, PHI_PLUS, end.sheet, end.site)

    def _give_up(self, run: _Run) -> None:
        """What was left of it is let go, and the far ends hear of it."""
        self._runs.remove(run)
        for end, known in zip(self._ends, run.parts, strict=True):
            end.circuit_site.expire_number(known.half.number)
        self._go_on()

    def _finish(self, run: _Run) -> None:
        job, now_ns = self._job, self._desk.now_ns
        state = f"{self._junction.junction}.{self._junction.binding}/{run.parts[0].half.number}"
        legs = [self._leg(run, place) for place in range(len(run.parts))]
        until_ns = expires_ns(self._shape, legs, now_ns, job.min_fidelity)
        if until_ns < now_ns + max(job.hold_ns, 1):
            self._give_up(run)
            return
        self._runs.remove(run)
        self._made[state] = tuple(known.half.number for known in run.parts)
        if len(self._made) > REMEMBERED:
            del self._made[next(iter(self._made))]
        made_ns = min(known.made_ns for known in run.parts)
        rows = self._rows(run, state)
        for place, end in enumerate(self._ends):
            message = Joined(
                order_id=job.order_id,
                binding=self._desk.binding,
                circuit=end.circuit.circuit,
                first=run.parts[place].first,
                frame=run.frames[place],
                state=state,
                shape=self._shape,
                legs=tuple(legs),
                made_ns=made_ns,
                rows=rows,
            )
            end.circuit_site.send(message)
        basis = self.basis(state)
        if not basis:
            self._tally.held += 1
        if self._junction.party:
            self._keep(
                run,
                state,
                HeldState(
                    order_id=job.order_id,
                    state=state,
                    address=f"{self._ends[0].site}/{run.parts[self._kept].half.handle}",
                    fidelity=state_fidelity(self._shape, legs, now_ns),
                    made_ns=made_ns,
                    expires_ns=until_ns,
                ),
                rows,
            )
        self.enough()
        self._changed()

    def _leg(self, run: _Run, place: int) -> Leg:
        """From now on only what is still held rests; the far end takes a frame out by a gate."""
        known, pair = run.parts[place], run.legs[place]
        if run.frames[place]:
            pair = turned(pair, known.gate_gain)
        kept = self._junction.party and place == self._kept
        return leg_of(pair, self._desk.now_ns, *(known.leg.resting if kept else known.leg.resting[1:]))

    def _rows(self, run: _Run, state: str) -> tuple[TraceRow, ...]:
        rows = [row for known in run.parts for row in known.rows]
        last = tuple(known.rows[-1].name for known in run.parts)
        site = self._junction.site
        return (*rows, TraceRow(what="fuse", name=state, site=site, parts=last, at_ns=self._desk.now_ns))

    def _keep(self, run: _Run, state: str, held: HeldState, rows: tuple[TraceRow, ...]) -> None:
        """The site's own qubit: handed over, or measured if the state is sacrificed."""
        half, end, basis = run.parts[self._kept].half, self._ends[self._kept], self.basis(state)
        if basis:
            own = basis_at(self._junction, state, basis)
            asked = Measure(request=self._desk.request(), handle=half.handle, basis=own)
            self._desk.ask(asked, partial(self._read, end, half.handle, state))
            return
        end.circuit_site.hand_over(half)
        row = TraceRow(
            what="address", name=held.address, site=end.site, parts=(state,), at_ns=self._desk.now_ns
        )
        self._desk.put(Held(held, half.handle, (*rows, row)))

    # sacrificed states

    def basis(self, state: str) -> str:
        """In which a state is sacrificed, empty if it is not."""
        return sacrifice_of(state, self._ends[0].circuit.sacrifice_share)

    def _read(self, end: CircuitEnd, handle: int, state: str, report: Report) -> None:
        end.circuit_site.freed(handle)
        if report.ok:
            self._count(state, 0, report.bits[0])

    def outcome(self, message: Outcome) -> None:
        """Of a far end."""
        place = self._junction.circuits.index(message.circuit) + 1
        if self.basis(message.state):
            self._count(message.state, place, message.bit)

    def _count(self, state: str, place: int, bit: int) -> None:
        bits = self._outcomes.add(state, place, bit)
        if len(bits) == len(self._ends) + self._junction.party:
            self._outcomes.drop(state)
            basis = self.basis(state)
            self._tally.check(basis, wrong(self._junction, state, basis, bits))
            self._changed()

    # what ends

    def broken(self, circuit: str, number: int) -> None:
        """A half of that circuit with this number at this site is lost, or what it was a half of is."""
        place = self._junction.circuits.index(circuit)
        self._pool[place].pop(number, None)
        for run in self._runs:
            run.broken = run.broken or run.parts[place].half.number == number
        for state, numbers in list(self._made.items()):
            if numbers[place] == number:
                del self._made[state]
                self._spoil(state, numbers, place)

    def _spoil(self, state: str, numbers: tuple[int, ...], place: int) -> None:
        """A state that was made is worth nothing any more: all who have a part of it hear of it."""
        for other, end in enumerate(self._ends):
            if other != place:
                end.circuit_site.expire_number(numbers[other])
        if self._junction.party:
            self._take_back(state, self._ends[self._kept], numbers[self._kept])
        if not self.basis(state):
            self._tally.held -= 1
        self.enough()
        self._changed()

    def _take_back(self, state: str, end: CircuitEnd, number: int) -> None:
        """The site's own part, unless it was used."""
        half = next((half for half in end.circuit_site.handed() if half.number == number), None)
        if half is not None:
            lost = StateLost(
                order_id=self._job.order_id,
                state=state,
                address=f"{end.site}/{half.handle}",
                reason="another end has lost its part",
            )
            self._desk.put(Lost(lost))
            end.circuit_site.release(half)

    def enough(self) -> None:
        """Let all circuits make pairs, or no more."""
        stop = bool(self._job.size) and self._tally.held >= self._job.size
        if stop != self._stopped:
            self._stopped = stop
            for pool in self._pool:
                pool.clear()
            for end in self._ends:
                end.want(not stop)


def _instruction(step: Step, request: str, handles: tuple[int, ...]) -> CoreInstruction:
    match step.do:
        case "fuse":
            return Fuse(request=request, kept=handles[0], joined=handles[1])
        case "x":
            return Measure(request=request, handle=handles[0], basis="x")
        case _:
            return Gate(request=request, gate=step.do, handles=handles)
