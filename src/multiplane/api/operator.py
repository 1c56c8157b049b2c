"""Door of the operator: what runs, what is stored, what became of a key. Version 1. Never key material."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from multiplane.kernel.nouns import Caller, Noun


class PoolLedger(Noun, frozen=True, kw_only=True):
    """One side of the stock from one key manager to another, in bits.

    Closes when made = stock + delivered + burnt + expired; `stock_bit` is counted from the blocks themselves,
    the other four are accounts. `side` is `near` (issues), `far` (collects), or `copies`: keys with several
    slaves that wait at the far side, counted once for each slave. `filling`: the near side is on
    its way to its high mark, or blocks are on theirs.
    """

    owner: str
    peer: str
    side: str
    epoch: int
    made_bit: int
    stock_bit: int
    delivered_bit: int
    burnt_bit: int
    expired_bit: int
    phase: str
    filling: bool = False

    @property
    def closes(self) -> bool:
        """Whether the accounts agree with what lies in stock."""
        return self.made_bit == self.stock_bit + self.delivered_bit + self.burnt_bit + self.expired_bit


class UnitRecord(Noun, frozen=True, kw_only=True):
    """A service unit as one key manager knows it: N endpoint URNs, lifecycle URN, digest, phase."""

    owner: str
    urns: tuple[str, ...]
    digest: str
    phase: str
    key_state: str = ""


class KmeReport(Noun, frozen=True, kw_only=True):
    """State of one key manager; `store_ok` is False while a stock is read again after a failed commit."""

    name: str
    urn: str
    pid: int
    serving: bool
    store_ok: bool = True
    ledgers: tuple[PoolLedger, ...]
    counters: dict[str, int]


class StockOutlook(Noun, frozen=True, kw_only=True):
    """How long the stock from one key manager to another lasts at its present use, as the controller sees it.

    Args:
        owner, peer: sites of the key manager that issues and of the other.
        use_bit_per_s: key given out lately, refills not counted.
        lasts_s: seconds until it is empty if no key came any more; None while nobody uses it.
    """

    owner: str
    peer: str
    stock_bit: int
    use_bit_per_s: float
    lasts_s: float | None
    at_ns: int


CUT: Final = "cut"
"""State of a link on whose fibre no light passes."""


class LinkReport(Noun, frozen=True, kw_only=True):
    """A link as fabric telemetry knows it.

    Args:
        state: a `device.LinkState`, or `CUT`.
        parcels: counted by fate, both ends together.
        stock_bit: key for both ways, at the end that holds less.
        stock_ab_bit, stock_ba_bit: key for the way from `a` to `b` and back, each at the end that sends.
        reason: why it is not up, where an end says so.
        source: who feeds it (`HOST:PORT` of each end), when not the light between its ends; `qber` is then
            not known, and 0.
    """

    a: str
    b: str
    state: str
    rate_bit_per_s: float
    qber: float
    stock_bit: int
    discarded_bit: int
    length_km: float
    loss_db: float
    parcels: dict[str, int] = msgspec.field(default_factory=dict)
    stock_ab_bit: int = 0
    stock_ba_bit: int = 0
    reason: str = ""
    source: str = ""


class PairLinkReport(Noun, frozen=True, kw_only=True):
    """A link that makes pairs.

    Args:
        type, handshake: as the scenario names them; memories: at each end.
        state: `dark` (no light passes, or a device failed), `making` (somebody wants pairs) or `idle`.
        held_a, held_b: memories in use at each end, those of pairs that an end has not heard of among them.
        attempts: of all memories, since the start; with one draw per pair when drawn, ahead of time.
        heralds: pairs that came; pairs: those that somebody wanted; expired: halves thrown away or lost.
        rate_per_s: pairs per second of network time, since the look before this one.
        late: pairs that a backend answered after they were due; fault: why it does not answer, or empty.
    """

    a: str
    b: str
    type: str
    handshake: str
    memories: int
    state: str
    held_a: int
    held_b: int
    attempts: int
    heralds: int
    pairs: int
    expired: int
    rate_per_s: float
    late: int = 0
    fault: str = ""


class QuiFigures(Noun, frozen=True, kw_only=True):
    """Orders of shared states in a domain, and what carries them.

    Args:
        phases: orders that are not over, by phase of their QUI; ended: those that are, since the start.
        waiting: of the first, those that stand in line for memories or have no way now.
        memories_reserved: for jobs, at both ends of links; memories_in_use: held for jobs now.
        rebinds: how often an order was carried anew, since the start.
    """

    phases: dict[str, int] = msgspec.field(default_factory=dict)
    ended: dict[str, int] = msgspec.field(default_factory=dict)
    waiting: int = 0
    memories_reserved: int = 0
    memories_in_use: int = 0
    rebinds: int = 0


class NetworkReport(Noun, frozen=True, kw_only=True):
    """One look at the whole network.

    Args:
        rate: simulated seconds per wall second in force; 0 while paused (see `api.pace`).
        secret: False when random numbers come from a seed.
        relay_count: sites without applications, which have no key manager.
        silent: sites whose key managers do not answer; they are not among `kmes`.
    """

    domain: str
    scenario: str
    at_ns: int
    rate: float
    secret: bool
    table_version: int
    kmes: tuple[KmeReport, ...]
    links: tuple[LinkReport, ...]
    outlooks: tuple[StockOutlook, ...] = ()
    relay_count: int = 0
    pair_links: tuple[PairLinkReport, ...] = ()
    quis: QuiFigures = QuiFigures()
    silent: tuple[str, ...] = ()


class BlockFlight(Noun, frozen=True, kw_only=True):
    """A block of a stock on its way.

    Args:
        ago_ns: since it was sent last.
        due_ns: until it counts as lost and is sent again; 0 or less when it does already.
        tries: how often it was sent.
    """

    ago_ns: int
    due_ns: int
    tries: int


class StockFlight(Noun, frozen=True, kw_only=True):
    """How the stock from one key manager to another is being filled.

    Args:
        wanted: it is on its way to the high mark.
        window_block: how many blocks may be on their way.
        smooth_ns, spread_ns: mean time until an acknowledgement, and how much it varies; 0 = not known.
        lost_ago_ns: since a block was lost; None = none was.
        blocks: those on their way, oldest first.
    """

    owner: str
    peer: str
    wanted: bool
    window_block: int
    smooth_ns: int
    spread_ns: int
    lost_ago_ns: int | None = None
    blocks: tuple[BlockFlight, ...] = ()


class NetworkMoment(Noun, frozen=True, kw_only=True):
    """What a copy of the network needs to go on as it does: never key material.

    Args: scenario: as `Operator.scenario` tells it.
    """

    report: NetworkReport
    scenario: str
    flights: tuple[StockFlight, ...]


class Condition(Noun, frozen=True, kw_only=True):
    """One thing that must hold, and why it does not."""

    what: str
    ok: bool
    reason: str = ""


class DoorMessage(Noun, frozen=True, kw_only=True):
    """One call that passed a door between strata, in order of `seq`."""

    seq: int
    at_ns: int
    caller: str
    door: str
    method: str
    subject: str
    outcome: str


class Operator(Protocol):
    async def report(self, caller: Caller) -> NetworkReport: ...

    async def moment(self, caller: Caller) -> NetworkMoment:
        """The report, and what is under way."""
        ...

    async def scenario(self, caller: Caller) -> str:
        """The world as the network was told it at its start: the text of a scenario file."""
        ...

    async def unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        """Units found under a key id, a unit digest or an endpoint URN, one record for each key manager.

        Raises: Refused(`unit.not_found`).
        """
        ...

    async def messages(self, caller: Caller, after_seq: int) -> tuple[DoorMessage, ...]:
        """Calls between strata since `after_seq`, oldest first; the ring holds the last 10,000."""
        ...

    async def metrics(self, caller: Caller) -> str:
        """All figures of the network in the text format of Prometheus."""
        ...

    async def health(self, caller: Caller) -> tuple[Condition, ...]:
        """Whether the network is alive: its clock moves and keeps up."""
        ...

    async def readiness(self, caller: Caller) -> tuple[Condition, ...]:
        """Whether it is fit to be given requests, one condition for each key manager that should serve."""
        ...

    async def stop(self, caller: Caller) -> None:
        """Shut the network down cleanly."""
        ...
