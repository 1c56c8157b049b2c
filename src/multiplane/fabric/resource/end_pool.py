"""Purification between the two ends of a circuit: pairs that are known and put right, two by two.

The end down the path leads: it is the one that puts pairs right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol

from multiplane.api.instructions import LinkSheet
from multiplane.api.states import TraceRow
from multiplane.fabric.planes import Circuit, Job
from multiplane.fabric.resource.distilling import Distiller
from multiplane.fabric.resource.network_layer import CircuitSite
from multiplane.fabric.resource.pair_words import Desk, Distil, Distilled, Grown, Half, Joined, Outcome
from multiplane.fabric.resource.quality import Gates, Leg, Pair, at, gates_of, leg_of, purified


class Confirmed(NamedTuple):
    """A half of which this end knows what it is half of.

    Args:
        frame: still to be taken out, at the end down the path or, once it is joined, at the far end of it.
        leg: its quality; first: its number at the far end.
        beyond: legs of the circuits that the far end has joined it to.
        elapsed_ps, gates: as of the other end's TRACK; no `elapsed_ps` where no times are told.
    """

    half: Half
    frame: int
    leg: Leg
    first: int
    made_ns: int
    rows: tuple[TraceRow, ...]
    beyond: Mapping[str, Leg] = MappingProxyType({})
    elapsed_ps: int | None = None
    gates: Gates = Gates()


class Weaver(Protocol):
    """The junction at the site of an end: it joins the halves there to others."""

    def confirmed(self, circuit: str, known: Confirmed) -> None:
        """A pair of one of its circuits is there at both ends."""
        ...

    def given(self) -> None:
        """A half of a circuit of another junction is there."""
        ...

    def told(self, message: Outcome | Grown | Joined) -> None:
        """A word of the far end of a circuit."""
        ...

    def want(self, more: bool) -> None:
        """Whether the junction that it was given halves of wants more states."""
        ...

    def broken(self, circuit: str, number: int) -> None:
        """A half of that circuit with this number at this site is lost, or what it was a half of is."""
        ...


class EndEvents(NamedTuple):
    """What the job hears of an end. Args: changed: held, errors, or done."""

    changed: Callable[[], None]
    failed: Callable[[str, str], None]


def enough_pairs(job: Job, circuit: Circuit) -> int:
    """How many pairs each link of a circuit has to make, 0 when some are made to be used up."""
    used_up = circuit.end_rounds or any(circuit.rounds) or circuit.sacrifice_share
    return 0 if used_up else job.size


class EndPool:
    """One end's pool; implements `distilling.Pool`.

    Args: pure: told of a pair with all rounds behind it; broken: of one that is lost by it.
    """

    def __init__(
        self,
        desk: Desk,
        circuit_site: CircuitSite,
        sheet: LinkSheet,
        *,
        pure: Callable[[Half, Confirmed], None],
        broken: Callable[[Half], None],
    ) -> None:
        circuit = circuit_site.circuit
        self._desk, self._site, self._circuit = desk, circuit_site, circuit
        self._pure, self._broken = pure, broken
        self._known: dict[int, Confirmed] = {}
        self._spent: dict[int, Confirmed] = {}  # sacrificed for the pair of this number
        self._gates = gates_of(sheet, circuit_site.site)
        name = f"{desk.order_id}/{desk.binding}/{circuit.circuit}"
        self._leads = circuit_site.place > 0
        rounds = circuit.rounds[-1 if self._leads else 0] + circuit.end_rounds
        self.distiller = Distiller(desk, self, name, rounds, circuit.protocol, leads=self._leads)

    def add(self, known: Confirmed) -> None:
        """It counts as a pair of the quality that it has now."""
        half = known.half
        self._known[half.shared] = known
        half.pair, half.known_ns = Pair(*known.leg.pair), known.leg.at_ns
        self.distiller.add(half)
        if self._leads and not half.busy and half.shared in self._known:
            self._wait(half, half.level)

    def _wait(self, half: Half, level: int) -> None:
        """For the pair that it is purified with, but not for ever; nor is a word that is late waited for."""
        if self._circuit.end_cutoff_ns:
            patience_ns = self._circuit.end_cutoff_ns + self._desk.slack_ns()
            self._desk.wake(patience_ns, partial(self._cut_off, half, level))

    def _cut_off(self, half: Half, level: int, now_ns: int) -> None:  # noqa: ARG002
        if half.shared in self._known and not half.busy and half.level == level:
            self._give_up(half)

    def _give_up(self, half: Half) -> None:
        self._lose(half)
        self._broken(half)

    def _lose(self, half: Half) -> None:
        self._forget(half)
        self.distiller.drop(half)
        self.distiller.missing(half.shared)

    def drop(self, number: int) -> None:
        """The half with this number, of the link here, is lost."""
        for known in list(self._known.values()):
            if known.half.number == number:
                self._lose(known.half)
        for spent in list(self._spent.values()):
            if spent.half.number == number:
                self.distiller.missing(spent.half.shared)

    def clear(self) -> None:
        """Let go of all that waits."""
        for known in self._known.values():
            self.distiller.drop(known.half)
        self._known.clear()

    def tell_begun(self, kept: Half, sacrificed: Half, bit: int, at_ns: int) -> None:
        message = Distil(
            order_id=self._desk.order_id,
            binding=self._desk.binding,
            circuit=self._circuit.circuit,
            kept=kept.shared,
            sacrificed=sacrificed.shared,
            bit=bit,
            at_ns=at_ns,
            far=True,
        )
        self._site.send(message)

    def tell_done(self, kept: int, sacrificed: int, bit: int) -> None:
        message = Distilled(
            order_id=self._desk.order_id,
            binding=self._desk.binding,
            circuit=self._circuit.circuit,
            kept=kept,
            sacrificed=sacrificed,
            bit=bit,
            far=True,
        )
        self._site.send(message)

    def improved(self, kept: Half, sacrificed: Half, at_ns: int) -> Pair:
        mine, other = self._known[kept.shared], self._spent.pop(kept.shared)
        pairs = at(mine.leg, at_ns), at(other.leg, at_ns)
        better = purified(pairs, self._circuit.protocol, (self._gates, mine.gates))
        row = TraceRow(
            what="purify",
            name=f"{self._circuit.circuit}/{kept.shared}+{sacrificed.shared}",
            site=f"{self._circuit.path[0]} {self._circuit.path[-1]}",
            parts=(mine.rows[-1].name, other.rows[-1].name),
            at_ns=at_ns,
        )
        self._known[kept.shared] = mine._replace(
            leg=leg_of(better, at_ns, *mine.leg.resting),
            made_ns=min(mine.made_ns, other.made_ns),
            rows=(*mine.rows, *other.rows, row),
        )
        return better

    def pure(self, half: Half) -> None:
        self._pure(half, self._known.pop(half.shared))

    def used(self, kept: Half, sacrificed: Half) -> None:
        self._spent[kept.shared] = self._known.pop(sacrificed.shared)
        self._site.freed(sacrificed.handle)

    def broken(self, half: Half) -> None:
        self._forget(half)
        self._broken(half)

    def _forget(self, half: Half) -> None:
        """With what was sacrificed for it, which the other end may still hold, and links are to replace."""
        self._known.pop(half.shared, None)
        spent = self._spent.pop(half.shared, None)
        if spent is not None and self._leads:
            self._site.expire_number(spent.half.number)
