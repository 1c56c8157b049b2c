"""One site's part of a job: it deals what happens to its circuits, and says how far it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from multiplane.api.instructions import PROTOCOLS, LinkSheet, Report
from multiplane.fabric.planes import Circuit, Job, JobState, Junction
from multiplane.fabric.resource.circuit_end import CircuitEnd
from multiplane.fabric.resource.end_pool import EndEvents, enough_pairs
from multiplane.fabric.resource.fusing import Fusing
from multiplane.fabric.resource.network_layer import CircuitEvents, CircuitSite
from multiplane.fabric.resource.pair_words import (
    BASES,
    Action,
    Around,
    Changed,
    Desk,
    Half,
    PairMessage,
    key_of,
)
from multiplane.fabric.resource.sacrifice import Tally
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id

Errors = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
ZEROES: Errors = ((0, 0), (0, 0), (0, 0))


class JobPart:
    """What a site does for one binding of an order. Every method returns what is to be done.

    Args: sheets: of the links at this site by id; numbers, around: as of `Desk`.
    """

    def __init__(
        self,
        job: Job,
        site: str,
        sheets: Mapping[str, LinkSheet],
        numbers: Iterator[str],
        around: Around,
    ) -> None:
        self.job = job
        self.site = site
        self.reason = ""
        self._trouble: dict[str, str] = {}
        self.closed = False
        self.desk = Desk(job.order_id, job.binding, numbers, around)
        self.windows = windows(job, site)
        self._tally = Tally(job.size)
        self._inner: dict[str, CircuitSite] = {}
        self._ends: dict[str, CircuitEnd] = {}
        self._fusing: Fusing | None = None
        for junction in job.junctions:
            if junction.site == site:
                self._fusing = Fusing(
                    self.desk, job, junction, ends=self._ends, tally=self._tally, changed=self._changed
                )
        for circuit in job.circuits:
            if site in circuit.path:
                self._add(circuit, sheets)

    def _add(self, circuit: Circuit, sheets: Mapping[str, LinkSheet]) -> None:
        place = circuit.path.index(self.site)
        near = [sheets.get(link_id(self.site, circuit.path[at])) for at in _neighbours(circuit, place)]
        if len(near) == 2:
            heard = CircuitEvents(_nothing, _nothing, _nothing, _nothing, self._failed)
            self._inner[circuit.circuit] = CircuitSite(
                self.desk,
                circuit,
                self.site,
                (near[0], near[1]),
                heard,
                enough=enough_pairs(self.job, circuit),
            )
            return
        (sheet,) = near
        assert sheet is not None
        junction = next((one for one in self.job.junctions if circuit.circuit in one.circuits), None)
        self._ends[circuit.circuit] = CircuitEnd(
            self.desk,
            self.job,
            circuit,
            site=self.site,
            sheet=sheet,
            tally=self._tally,
            events=EndEvents(self._changed, self._failed),
            junction=junction,
            weaver=self._fusing,
        )

    def _circuits(self) -> list[CircuitSite]:
        return [*self._inner.values(), *(end.circuit_site for end in self._ends.values())]

    def _of(self, circuit: str) -> CircuitSite | None:
        if circuit in self._ends:
            return self._ends[circuit].circuit_site
        return self._inner.get(circuit)

    # what happens

    def begin(self, now_ns: int, peer: str = "") -> list[Action]:
        """The job is taken on, or the channel to `peer` is there again."""
        self.desk.now_ns = now_ns
        if peer and self._trouble.pop(link_id(self.site, peer), ""):
            self._changed()
        for circuit in self._circuits():
            circuit.begin(peer)
        return self.desk.take()

    def report(self, report: Report, now_ns: int) -> list[Action]:
        """Of something this part asked for, or of a pair of one of its circuits."""
        self.desk.now_ns = now_ns
        if report.number and not report.handles and report.ok and not report.bits:
            return []
        key = key_of(report.request)
        circuit = None if key is None else self._of(key.circuit)
        if circuit is not None and report.number:
            half = self._half(report)
            if report.ok or half is None:
                circuit.report(report)
            elif not report.ok:
                circuit.thrown_away(half)
        else:
            self.desk.answered(report)
        return self.desk.take()

    def _half(self, report: Report) -> Half | None:
        if not report.handles:
            return None
        mine = [*self.halves(), *self.handed()]
        return next((half for half in mine if half.handle == report.handles[0]), None)

    def heard(self, peer: str, message: PairMessage, now_ns: int) -> list[Action]:
        """A word of a neighbour."""
        self.desk.now_ns = now_ns
        circuit = self._of(message.circuit)
        if circuit is not None:
            circuit.heard(peer, message)
        return self.desk.take()

    def freed(self, handle: int, now_ns: int) -> list[Action]:
        """The service has let go of a qubit that was handed over."""
        self.desk.now_ns = now_ns
        for end in self._ends.values():
            end.freed(handle)
        return self.desk.take()

    def close(self, reason: str, now_ns: int) -> list[Action]:
        """Stop, and free all memories that were not handed over."""
        self.desk.now_ns = now_ns
        self.closed, self.reason = True, reason
        self.desk.forget()
        for end in self._ends.values():
            end.close()
        for circuit in self._inner.values():
            circuit.close()
        return self.desk.take()

    def woken(self, then: Callable[[int], None], now_ns: int) -> list[Action]:
        """Time has come for something that was put off."""
        self.desk.now_ns = now_ns
        then(now_ns)
        return self.desk.take()

    def cut(self, peer: str, reason: str, now_ns: int) -> list[Action]:
        """The channel to a neighbour is gone: what is said meanwhile is lost."""
        self.desk.now_ns = now_ns
        self._trouble[link_id(self.site, peer)] = f"no channel to {peer}: {reason}"
        self._changed()
        return self.desk.take()

    # how far it is

    def peers(self) -> set[str]:
        """Neighbours that it works with."""
        return {link.peer for circuit in self._circuits() for link in circuit.links if link is not None}

    def trouble(self, link: str) -> str:
        """Why a link makes no pairs, empty when it does."""
        return self._trouble.get(link, "")

    def link_errors(self, link: str) -> Errors:
        """Of sacrificed pairs of a link, from circuits that are that link alone; this end counts."""
        alone = len(self.job.circuits) == 1 and len(self.job.circuits[0].path) == 2
        return self.state.errors if alone and link_id(*self.job.circuits[0].path) == link else ZEROES

    def link_of(self, handle: int) -> str:
        """Where a qubit came from."""
        return next((half.link for half in self.handed() if half.handle == handle), "")

    def halves(self) -> list[Half]:
        """All qubits that it holds and has not handed over."""
        return [half for circuit in self._circuits() for half in circuit.halves()]

    def handed(self) -> list[Half]:
        """What it has handed over and nobody has let go of."""
        return [half for circuit in self._circuits() for half in circuit.handed()]

    @property
    def state(self) -> JobState:
        """What the controller is told."""
        errors = self._tally.errors
        held = self._tally.held
        return JobState(
            order_id=self.job.order_id,
            binding=self.job.binding,
            site=self.site,
            held=held,
            in_use=len(self.halves()),
            errors=ZEROES if errors is None else (_both(errors[0]), _both(errors[1]), _both(errors[2])),
            done=self.closed or bool(self._ends and self.job.size and held >= self.job.size),
            reason=self.reason or next(iter(self._trouble.values()), ""),
        )

    def _changed(self) -> None:
        for end in self._ends.values():
            end.enough()
        if self._fusing is not None:
            self._fusing.enough()
        self.desk.put(Changed())

    def _failed(self, link: str, reason: str) -> None:
        """ERR of a link; an empty reason: it makes pairs again."""
        if reason:
            self._trouble[link] = reason
        else:
            self._trouble.pop(link, None)
        self._changed()


def added(one: Errors, two: Errors) -> Errors:
    """Counts of both."""
    x, y, z = ((a + c, b + d) for (a, b), (c, d) in zip(one, two, strict=True))
    return x, y, z


def _both(counted: list[int]) -> tuple[int, int]:
    return counted[0], counted[1]


def _neighbours(circuit: Circuit, place: int) -> list[int]:
    return [at for at in (place - 1, place + 1) if 0 <= at < len(circuit.path)]


def _nothing(*_: object) -> None:
    """Sites inside a circuit hand nothing over."""


def windows(job: Job, site: str) -> dict[str, int]:
    """Memories that a job may use at a site, by link."""
    needed: dict[str, int] = {}
    for circuit in job.circuits:
        if site not in circuit.path:
            continue
        place = circuit.path.index(site)
        for at in _neighbours(circuit, place):
            link = link_id(site, circuit.path[at])
            needed[link] = needed.get(link, 0) + circuit.window[min(at, place)]
    return needed


def check_job(job: Job, site: str, sheets: Mapping[str, LinkSheet], now_ns: int) -> None:
    """Refuse a job that this site can have no part in.

    Raises: Refused(`repeater.job`).
    """
    if job.until_ns and job.until_ns <= now_ns:
        _refuse("until_ns", job.until_ns, f"more than {now_ns}")
    here = [circuit for circuit in job.circuits if site in circuit.path]
    if not here:
        _refuse("circuits", len(job.circuits), f"one that passes {site}")
    for circuit in here:
        _check_circuit(circuit)
        for at in _neighbours(circuit, circuit.path.index(site)):
            link = link_id(site, circuit.path[at])
            if link not in sheets:
                _refuse("path", link, f"a link of pairs at {site}")
    if job.junctions:
        _check_junctions(job)


def _check_circuit(circuit: Circuit) -> None:
    path, hops = circuit.path, len(circuit.path) - 1
    if hops < 1 or len(set(path)) != len(path):
        _refuse("path", path, "two or more different sites")
    for name, values, wanted in (
        ("levels", circuit.levels, hops - 1),
        ("rounds", circuit.rounds, hops),
        ("window", circuit.window, hops),
        ("cutoff_ns", circuit.cutoff_ns, hops),
    ):
        if len(values) != wanted or any(value < 0 for value in values):
            _refuse(name, values, f"{wanted} numbers of at least 0")
    _check_windows(circuit)
    if circuit.protocol not in PROTOCOLS:
        _refuse("protocol", circuit.protocol, " or ".join(PROTOCOLS))
    if circuit.measure not in ("", *BASES):
        _refuse("measure", circuit.measure, "x, y, z or nothing")
    if not 0.0 <= circuit.rate_per_s < math.inf:
        _refuse("rate_per_s", circuit.rate_per_s, "0 or more")
    if circuit.burst < 1:
        _refuse("burst", circuit.burst, "1 or more")


def _check_windows(circuit: Circuit) -> None:
    """Whether there are memories for all rounds of purification."""
    if circuit.end_rounds < 0 or circuit.end_cutoff_ns < 0:
        _refuse("end_rounds", (circuit.end_rounds, circuit.end_cutoff_ns), "numbers of at least 0")
    last = len(circuit.window) - 1
    for at, (rounds, window) in enumerate(zip(circuit.rounds, circuit.window, strict=True)):
        all_rounds = rounds + (circuit.end_rounds if at in (0, last) else 0)
        if window < all_rounds + 1:
            _refuse("window", window, f"at least {all_rounds + 1} for {all_rounds} rounds of purification")


def _check_junctions(job: Job) -> None:
    """Whether the pairs of all circuits can be joined to one state."""
    ends = {circuit.circuit: (circuit.path[0], circuit.path[-1]) for circuit in job.circuits}
    owners = Counter(name for junction in job.junctions for name in junction.circuits)
    if owners.keys() != ends.keys() or owners.total() != len(ends):
        _refuse("junctions", sorted(owners), "each circuit in one of them")
    measured = {circuit.measure for circuit in job.circuits}
    if len(measured) > 1:
        _refuse("measure", sorted(measured), "the same for all pairs that are joined")
    if len({junction.site for junction in job.junctions}) < len(job.junctions):
        _refuse("junctions", [junction.site for junction in job.junctions], "one at a site")
    for junction in job.junctions:
        _check_junction(junction, ends)
    bare = {junction.site for junction in job.junctions if not junction.party}
    parties = {site for sites in ends.values() for site in sites} - bare
    if parties != set(job.sites):
        _refuse("sites", job.sites, f"{sorted(parties)}, which keep a qubit")
    _check_order(job, ends)


def _check_junction(junction: Junction, ends: Mapping[str, tuple[str, str]]) -> None:
    if junction.kind not in ("ghz", "graph", "edges"):
        _refuse("kind", junction.kind, "ghz, graph or edges")
    if any(junction.site not in ends[name] for name in junction.circuits):
        _refuse("site", junction.site, "an end of each of its circuits")
    given = [name for name, sites in ends.items() if junction.site in sites and name not in junction.circuits]
    if sorted(junction.given) != sorted(given):
        _refuse("given", junction.given, f"{given}, which end at {junction.site}")
    if (junction.kind == "graph" and given) or (junction.kind == "ghz" and len(given) > 1):
        _refuse("given", given, "one for a GHZ state, none for a graph state that is made at one site")
    places = range(0 if junction.party else 1, len(junction.circuits) + 1)
    if any(len(set(edge)) != 2 or not set(edge) <= set(places) for edge in junction.edges):
        _refuse("edges", junction.edges, f"pairs of different places from {places[0]} to {places[-1]}")
    if junction.kind == "graph" and junction.party and all(0 not in edge for edge in junction.edges):
        _refuse("edges", junction.edges, "one at the junction's site, which is a party")


def _check_order(job: Job, ends: Mapping[str, tuple[str, str]]) -> None:
    """One junction is given nothing, and all others hear from it over what they are given."""
    named: set[str] = set()
    first = [junction.site for junction in job.junctions if not junction.given]
    if len(first) != 1:
        _refuse("given", first, "one junction that is given nothing")
    for _ in job.junctions:
        for junction in job.junctions:
            if all(named.intersection(ends[name]) for name in junction.given):
                named.add(junction.site)
    if len(named) < len(job.junctions):
        _refuse("given", sorted(named), "no junctions that wait for one another")


def _refuse(field: str, value: object, expected: str) -> None:
    raise Refused("repeater.job", f"{field}: got {value!r}, expected {expected}")
