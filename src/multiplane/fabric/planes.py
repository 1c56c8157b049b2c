"""Inner doors of the Quantum Fabric stratum: what its planes and its nodes say to one another. Version 1."""

from __future__ import annotations

from typing import Protocol

from multiplane.api.fabric_connectivity import QuantumPath
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


class LinkReport(Noun, frozen=True, kw_only=True, gc=False):
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
