"""Inner doors of the Service Stratum and the messages that its planes share. Version 1.

`ServiceControl` is what a key manager asks of the controller of its domain; `KmePeer` is what two key
managers say to one another about the stock from the near one (issues keys) to the far one (collects them).
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

from multiplane.api.operator import KmeReport, StockFlight, UnitRecord
from multiplane.kernel.nouns import Caller, Noun, Secret
from multiplane.security.policy import check_prefix

RENEW_SHARE: Final = 24
"""A unit is replaced when less than 1/24 of its lifetime is left (an hour of a day)."""


class RateRule(Noun, frozen=True, kw_only=True):
    """Rate and burst of the pairs that two prefixes mean, `*` for everybody; both > 0."""

    master: str
    slave: str
    rate_bit_per_s: float
    burst_bit: int

    def __post_init__(self) -> None:
        check_prefix(self.master)
        check_prefix(self.slave)
        _check_rate(self.rate_bit_per_s, self.burst_bit)


class QuotaRule(Noun, frozen=True, kw_only=True):
    """Bits that each application under a prefix may be issued in a window; 0 = as many as it likes."""

    application: str
    quota_bit: int

    def __post_init__(self) -> None:
        check_prefix(self.application)
        _check_quota(self.quota_bit)


class MeterPolicy(Noun, frozen=True, kw_only=True):
    """How much key may be issued, in bits of key. The first rule that matches decides, else what stands here.

    Args:
        rate_bit_per_s, burst_bit: token bucket of each pair (master, slave). The default is beyond what a
            link makes: it stops a runaway client between two applications of one site, whose key costs no
            link.
        quota_bit: what each master may be issued in a window; 0 = as much as it likes, since only the
            operator knows what is fair, and links are shared fairly anyway.
        window_s: windows begin at whole multiples of it since 1970.
    """

    rate_bit_per_s: float = 16e6
    burst_bit: int = 1 << 23
    quota_bit: int = 0
    window_s: int = 3600
    rules: tuple[RateRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()

    def __post_init__(self) -> None:
        _check_rate(self.rate_bit_per_s, self.burst_bit)
        _check_quota(self.quota_bit)
        if self.window_s < 1:
            raise ValueError(f"window_s: expected at least 1, got {self.window_s}")


def _check_rate(rate_bit_per_s: float, burst_bit: int) -> None:
    if not 1e-3 <= rate_bit_per_s <= 1e12:
        raise ValueError(f"rate_bit_per_s: expected 0.001 to 1e12, got {rate_bit_per_s}")
    if burst_bit < 1:
        raise ValueError(f"burst_bit: expected at least 1, got {burst_bit}")


def _check_quota(quota_bit: int) -> None:
    if quota_bit < 0:
        raise ValueError(f"quota_bit: expected 0 or more, got {quota_bit}")


class KeyRules(Noun, frozen=True, kw_only=True):
    """What a key manager offers and holds. Sizes in bits, multiples of 8; stock in blocks of 2048 bytes.

    Args:
        ttl_s: lifetime of units, and of keys nobody collects.
        low_block, high_block: a stock is filled to `high_block` whenever it falls below `low_block`.
        flight_block: blocks on their way at the same time.
        cold_wait_s: how long a request waits for a stock to open before it is told to come back.
        commit_s: how long a request waits for the store.
        max_additional: slaves in one request beside the first; 0 turns multicast off.
    """

    default_size_bit: int = 256
    min_size_bit: int = 64
    max_size_bit: int = 8192
    max_number: int = 128
    ttl_s: int = 86_400
    low_block: int = 48
    high_block: int = 64
    flight_block: int = 16
    cold_wait_s: float = 1.0
    commit_s: float = 5.0
    max_additional: int = 8
    metering: MeterPolicy = MeterPolicy()

    @property
    def longest_valid_s(self) -> int:
        """How long a key can be promised to last, whenever it is asked for."""
        return self.ttl_s - self.ttl_s // RENEW_SHARE - 1


class Application(Noun, frozen=True, kw_only=True):
    """An application (SAE) at a site: its URN, and the plain alias for clients that cannot escape a URN."""

    urn: str
    alias: str


class KmeEntry(Noun, frozen=True, kw_only=True):
    """A key manager in the register: its URN, its site, the applications it serves."""

    urn: str
    site: str
    applications: tuple[Application, ...]


class Register(Noun, frozen=True, kw_only=True):
    """All key managers of one trust domain (a KMS). `version` rises with every change."""

    version: int
    kmes: tuple[KmeEntry, ...]


class PairPhase(Enum):
    """Whether key can be carried between two sites now."""

    OPENING = "opening"
    READY = "ready"
    UNREACHABLE = "unreachable"


class PairState(Noun, frozen=True, kw_only=True):
    """What the controller knows of the way to a peer.

    Args:
        delay_ns: one-way delay of the classical path between the key managers.
        rate_bit_per_s: bottleneck key rate of the fabric's route, 0 until known.
        expected_ns: nanoseconds until it should be ready, 0 when it is or nobody knows.
    """

    peer_site: str
    phase: PairPhase
    delay_ns: int
    rate_bit_per_s: float
    expected_ns: int
    reason: str = ""


class KmeListener(Protocol):
    """What the controller tells a key manager."""

    def register_changed(self, register: Register) -> None: ...

    def pair_changed(self, state: PairState) -> None: ...


class ServiceControl(Protocol):
    """The controller's door for the key managers of its domain."""

    async def join(self, caller: Caller, entry: KmeEntry, listener: KmeListener) -> Register:
        """Enter the register (again, after a restart) and hear of its changes."""
        ...

    async def open_pair(self, caller: Caller, peer_site: str) -> PairState:
        """Ask that key can be carried from the caller's site to `peer_site`. Idempotent."""
        ...


class KmeControl(Protocol):
    """A key manager's door for the management of its domain."""

    async def report(self, caller: Caller) -> KmeReport: ...

    async def flights(self, caller: Caller) -> tuple[StockFlight, ...]:
        """How each stock that issues keys is being filled."""
        ...

    async def find_unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        """Units under a key id, a digest or an endpoint URN; empty when there are none."""
        ...


class StockHello(Noun, frozen=True, kw_only=True):
    """The near side's account of a stock, told whenever a channel to the far side opens.

    Args:
        epoch: of the stock; a new epoch burns all that lay in an older one.
        check: fingerprint of the secret of the epoch, not the secret.
        boot: incarnation of the near side; parcels of another boot are refused.
        head: blocks below it have been leased; the far side keeps them until they age out.
        live: blocks that the near side holds or has sent; the far side drops all others from `head` on.
    """

    epoch: int
    check: str
    boot: int
    head: int
    live: tuple[int, ...]


class StockAnswer(Noun, frozen=True, kw_only=True):
    """What the far side holds of the stock that the hello named.

    Args:
        epoch: highest epoch it has ever seen of this stock, 0 = none.
        head: blocks below it are known to have been leased in that epoch.
        known: whether it holds the secret of the epoch that the hello named.
        live: those of the hello's live blocks that it holds durably.
        next_sequence: blocks below it that it does not hold are refused: it may have held them before.
    """

    epoch: int
    head: int
    known: bool
    live: tuple[int, ...]
    next_sequence: int


class OpenUnit(Noun, frozen=True, kw_only=True):
    """Proposal of a unit: the near side's endpoint with its nonce, the peer without one, the lifecycle."""

    epoch: int
    slot: int
    master: str
    slave: str
    lifecycle: str


class UnitAccepted(Noun, frozen=True, kw_only=True):
    """The far side's endpoint with its nonce, and the digest of the whole unit."""

    slave: str
    digest: str


class UnitCommitted(Noun, frozen=True, kw_only=True):
    """Both sides hold the same digest."""

    epoch: int
    slot: int
    digest: str


class HeadReport(Noun, frozen=True, kw_only=True):
    """No block below `head` will be issued from again; blocks below `leased` have been leased."""

    epoch: int
    head: int
    leased: int = 0


class OpenGroup(Noun, frozen=True, kw_only=True):
    """Proposal of a unit of more than two ends to the key manager of some of its slaves.

    Args:
        epoch: of the stock to that key manager.
        group: id of the unit, 32 hexadecimal digits, minted by the near side.
        master: endpoint with its nonce.
        slaves: names of those served by the key manager asked, in order.
    """

    epoch: int
    group: str
    master: str
    slaves: tuple[str, ...]
    lifecycle: str


class GroupAccepted(Noun, frozen=True, kw_only=True):
    """The endpoints of the slaves asked for, each with its nonce."""

    slaves: tuple[str, ...]


class LockedCopy(Secret, frozen=True, kw_only=True):
    """A key under one-time pad and tag; `pad_id` names the words of the stock that lock it."""

    key_id: str
    pad_id: str
    locked: bytes


class HoldCopies(Secret, frozen=True, kw_only=True):
    """Copies of keys for the slaves at one key manager; `urns`, all of the unit, commit it."""

    epoch: int
    group: str
    urns: tuple[str, ...]
    copies: tuple[LockedCopy, ...]


class VoidCopies(Noun, frozen=True, kw_only=True):
    """These keys were answered to nobody: their copies are burnt."""

    epoch: int
    key_ids: tuple[str, ...]


class StockListener(Protocol):
    """The near side's ear for acknowledgements."""

    def block_stored(self, epoch: int, boot: int, sequence: int) -> None:
        """The far side holds a block (or, with sequence -1, the secret of the epoch) durably."""
        ...

    def read_again(self) -> None:
        """The far side has read its state anew and takes no parcels before the next hello."""
        ...


class KmePeer(Protocol):
    """The far side's door for the near side. The stock meant is the one from the caller's site."""

    async def hello(self, caller: Caller, hello: StockHello, listener: StockListener) -> StockAnswer: ...

    async def open_unit(self, caller: Caller, proposal: OpenUnit) -> UnitAccepted:
        """Raises: Refused(`north.unknown_application`, `north.not_allowed`), Busy(`stock.unknown_epoch`,
        `stock.slot_taken`)."""
        ...

    def unit_committed(self, caller: Caller, committed: UnitCommitted) -> None: ...

    def head(self, caller: Caller, report: HeadReport) -> None: ...

    async def open_group(self, caller: Caller, proposal: OpenGroup) -> GroupAccepted:
        """Idempotent. Raises: as `open_unit`, and Busy(`copy.units_full`)."""
        ...

    async def hold_copies(self, caller: Caller, message: HoldCopies) -> None:
        """Return when all copies are durable; each slave of the unit at this key manager can collect them.

        Raises: Busy(`stock.unknown_epoch`, `copy.unknown_unit`, `copy.full`), Faulty(`copy.altered`,
        `copy.pad`, `unit.digest`).
        """
        ...

    async def void_copies(self, caller: Caller, message: VoidCopies) -> None:
        """Return when the copies are durably gone."""
        ...


class PeerLinks(Protocol):
    """How a key manager reaches another one: given by the assembly over Channels."""

    async def reach(self, site: str, delay_ns: int, lost: KmeLost) -> KmePeer:
        """Raises: Busy(`channel.unreachable`)."""
        ...


class KmeLost(Protocol):
    def __call__(self, reason: str) -> None: ...
