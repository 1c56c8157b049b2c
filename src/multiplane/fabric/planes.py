"""Inner doors of the Quantum Fabric stratum: what its planes and its nodes say to one another. Version 1."""

from __future__ import annotations

from typing import Protocol

import msgspec

from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.api.instructions import LinkSheet
from multiplane.api.states import TraceRow
from multiplane.kernel.nouns import Caller, Noun


class LinkOrder(Noun, frozen=True, kw_only=True):
    """Order to a site: run `link` to `peer_site` over `path`."""

    link: str
    peer_site: str
    path: QuantumPath


class ForwardingTable(Noun, frozen=True, kw_only=True):
    """For each target site the neighbour to hand a parcel to. A higher version replaces a lower one."""

    version: int
    next_hop: dict[str, str]


class Installed(Noun, frozen=True, kw_only=True):
    """Answer to a table: the version in force at the site, and whether it is the table that was sent."""

    version: int
    accepted: bool


class LinkLedger(Noun, frozen=True, kw_only=True):
    """Accounts of one end of a link over all its epochs, in bits.

    `delivered_bit` was spent as pads and tags, at either end. `reserved_bit` was set aside for
    authentication: greetings of the agents, tags of the distillation. `stock_bit` is counted from the key
    that is held, the other four are accounts.
    """

    made_bit: int
    stock_bit: int
    delivered_bit: int
    burnt_bit: int
    reserved_bit: int = 0

    @property
    def closes(self) -> bool:
        """Whether the accounts agree with what lies in stock."""
        return self.made_bit == (self.stock_bit + self.delivered_bit + self.burnt_bit + self.reserved_bit)


class LinkReport(Noun, frozen=True, kw_only=True):
    """One end of a link as its agent sees it; travels on `<domain>.fabric.telemetry.<site>.link`.

    Args:
        path_id: the path this end was ordered to use, empty when it is not ordered.
        state: value of `api.device.LinkState`.
        stock_bit: key held for both directions; out_bit: of it, for what this end sends.
        discarded_bit: made by the device but not wanted, in this epoch.
        counters: parcels of this link by fate.
        source: as the device says it, see `api.device.LinkStatus`.
    """

    link: str
    site: str
    path_id: str
    state: str
    epoch: int
    rate_bit_per_s: float
    qber: float
    stock_bit: int
    discarded_bit: int
    counters: dict[str, int]
    at_ns: int
    reason: str = ""
    out_bit: int = 0
    source: str = ""


class SiteBeat(Noun, frozen=True, kw_only=True):
    """A site lives, and its links are as it told; travels on `<domain>.fabric.telemetry.<site>.beat`.

    Args:
        told_ns: for each link that is ordered there, `at_ns` of the last report of it: who has not had that
            one waits for the next.
    """

    site: str
    told_ns: dict[str, int]
    at_ns: int


class NodeControl(Protocol):
    """Fabric control → the fabric agent of one site. All calls are idempotent; controllers only."""

    async def start_link(self, caller: Caller, order: LinkOrder) -> None:
        """Run a link over a path; a new path replaces an older one.

        Raises: Refused(`fabric.not_allowed`, `fabric.wrong_link`, `device.unknown_link`).
        """
        ...

    async def stop_link(self, caller: Caller, link: str, reason: str) -> None:
        """Let a link go dark; its key stays until a new epoch begins.

        Raises: Refused(`fabric.not_allowed`).
        """
        ...

    async def install(self, caller: Caller, table: ForwardingTable) -> Installed:
        """Put a table in force unless one as new is there. Raises: Refused(`fabric.not_allowed`)."""
        ...

    async def moved(self, caller: Caller) -> tuple[LinkReport, ...]:
        """Links whose stock is not what was last told of them; so they count as told.

        Raises: Refused(`fabric.not_allowed`).
        """
        ...


class PairReport(Noun, frozen=True, kw_only=True):
    """One end of a link of pairs as its agent sees it; on `<domain>.fabric.telemetry.<site>.pairs`.

    Args:
        up: whether it makes pairs when asked.
        free: memories that no circuit has reserved.
        pairs: made so far; rate_per_s: measured over the last window, 0 when nothing was asked for.
        errors: (checked, wrong) of sacrificed pairs in bases x, y, z since the last calibration.
    """

    sheet: LinkSheet
    site: str
    up: bool
    free: int
    pairs: int
    rate_per_s: float
    errors: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    at_ns: int
    reason: str = ""


class Circuit(Noun, frozen=True, kw_only=True):
    """A chain of links that makes pairs between its two ends (after QNP, Kozlowski et al. 2020).

    Args:
        circuit: id; order_id: whom it serves; binding: of the QUI, a higher one replaces.
        path: sites, first end first.
        levels: for each inner site, when it swaps: a site waits until its neighbours on the path of a lower
            level have swapped; all 0 = as soon as possible.
        rounds: of purification on each link of the path; end_rounds: between the ends; protocol: `dejmps` or
            `bbpssw`.
        window: memories of each link that it may use at each end.
        cutoff_ns: age at which a half that waits is given up, for each link; 0 = never.
        end_cutoff_ns: how long a pair waits at the ends for the one that it is purified with; 0 = for ever.
        pairs: wanted, 0 = until removed; until_ns: deadline, 0 = none.
        sacrifice_share: of the pairs, measured in x, y and z in turn to estimate fidelity.
        measure: basis in which ends measure at once, empty = keep.
        fidelity: of a delivered pair as calibrated.
        rate_per_s: of pairs that nothing breaks, sacrificed ones counted, 0 = as they come; burst: of them so
            many may be under way, at least 1.
    """

    circuit: str
    order_id: str
    binding: int
    path: tuple[str, ...]
    levels: tuple[int, ...]
    rounds: tuple[int, ...]
    window: tuple[int, ...]
    cutoff_ns: tuple[int, ...]
    fidelity: float
    end_rounds: int = 0
    end_cutoff_ns: int = 0
    protocol: str = "dejmps"
    pairs: int = 1
    until_ns: int = 0
    sacrifice_share: float = 0.0
    measure: str = ""
    rate_per_s: float = 0.0
    burst: int = 1


class Junction(Noun, frozen=True, kw_only=True):
    """Makes one state of the pairs of several circuits that end at one site.

    A job has one junction that is given nothing: it names the states. Those of the others that end at it grow
    towards it: each joins its pairs with a half that it is given, as soon as they are there.

    Args:
        junction: id, unique for the order; site: where the pairs are joined, the only junction there.
        circuits: whose pairs, in order; all of them end at `site`.
        given: circuits of other junctions that end here, too; of a GHZ state one at most.
        kind: `ghz`; `graph`: its edges are made here and then shown at the far ends; `edges`: a graph state
            each edge of which is the pair of a circuit.
        party: whether the site keeps a qubit of the result.
        edges: of kind `graph`: places among (site, far ends in order of the circuits).
    """

    junction: str
    order_id: str
    binding: int
    site: str
    circuits: tuple[str, ...]
    kind: str
    party: bool
    given: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    fidelity: float = 0.0


class Job(Noun, frozen=True, kw_only=True):
    """All that one order needs, the same at every site of it; a site does its part.

    Args:
        sites: ends that get the states, in order of the order; kind: `bell`, `ghz`, `graph`.
        hold_ns, min_fidelity: as of the order: `HeldState.expires_ns` follows from them; a state that
            would not stay above the floor for so long is not handed over.
    """

    order_id: str
    binding: int
    kind: str
    sites: tuple[str, ...]
    circuits: tuple[Circuit, ...]
    junctions: tuple[Junction, ...] = ()
    size: int = 1
    min_fidelity: float = 0.0
    until_ns: int = 0
    hold_ns: int = 0

    def named(self, order_id: str, until_ns: int) -> Job:
        """The same for another order, with another deadline."""

        def name(old: str) -> str:
            return order_id + old[len(self.order_id) :]

        return msgspec.structs.replace(
            self,
            order_id=order_id,
            until_ns=until_ns,
            circuits=tuple(
                msgspec.structs.replace(
                    circuit, circuit=name(circuit.circuit), order_id=order_id, until_ns=until_ns
                )
                for circuit in self.circuits
            ),
            junctions=tuple(
                msgspec.structs.replace(
                    junction,
                    junction=name(junction.junction),
                    order_id=order_id,
                    circuits=tuple(map(name, junction.circuits)),
                    given=tuple(map(name, junction.given)),
                )
                for junction in self.junctions
            ),
        )

    def bound(self, binding: int) -> Job:
        """The same under another binding."""
        if binding == self.binding:
            return self
        circuits = tuple(msgspec.structs.replace(circuit, binding=binding) for circuit in self.circuits)
        junctions = tuple(msgspec.structs.replace(junction, binding=binding) for junction in self.junctions)
        return msgspec.structs.replace(self, binding=binding, circuits=circuits, junctions=junctions)


class JobState(Noun, frozen=True, kw_only=True):
    """How far a site is with a job.

    Args:
        held: states handed over at this site; in_use: memories that it holds for the job now.
        errors: as of `PairReport`, for the ends of circuits: of sacrificed states of this order.
    """

    order_id: str
    binding: int
    site: str
    held: int
    in_use: int
    errors: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0), (0, 0))
    done: bool = False
    reason: str = ""


class JobListener(Protocol):
    """What a site tells the controller of jobs, when it changes: never polled."""

    def job_changed(self, state: JobState) -> None: ...


class RepeaterControl(Protocol):
    """The controller's door to the repeater agent of a site."""

    async def sheets(self, caller: Caller) -> tuple[LinkSheet, ...]:
        """The links of pairs at this site as they are calibrated."""
        ...

    async def take_on(self, caller: Caller, job: Job, listener: JobListener) -> JobState:
        """Do this site's part. Idempotent for the same binding; a higher one replaces, a lower one is stale.

        Raises: Refused(`repeater.job`, `repeater.stale`), Busy(`repeater.no_memory`).
        """
        ...

    async def drop(self, caller: Caller, order_id: str, reason: str) -> None:
        """Stop, free all memories that were not handed over. Idempotent."""
        ...

    async def jobs(self, caller: Caller) -> tuple[JobState, ...]:
        """All that this site works on: for a controller that has come back."""
        ...

    async def trace(self, caller: Caller, order_id: str, state: str) -> tuple[TraceRow, ...]:
        """What this site knows of how a state was made."""
        ...
