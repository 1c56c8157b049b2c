"""The doors between the parent and the processes that it started. Internal to the layout `per node`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Protocol, TypeVar

import msgspec

from multiplane.api.operations import ProcessFigures
from multiplane.api.operator import QuiFigures
from multiplane.assembly.feeds.settings import FeedEnd
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.nouns import Caller, Secret
from multiplane.kernel.ports import Subscription
from multiplane.runtime.http_limits import Limits
from multiplane.security.policy import PairingPolicy
from multiplane.service.planes import Application, KeyRules
from multiplane.service.planes.units import UnitRules
from multiplane.standards.etsi014 import FaceProfile

SERVICE = "site"
CONTROL = "unit-control"
REFUSED = 2
"""Exit code of a process that cannot start; it says why on its standard output."""
T = TypeVar("T", bound=msgspec.Struct)


class Uplink(Protocol):
    """What a site process tells its parent."""

    async def serving(self, caller: Caller, url: str, pid: int) -> None:
        """The site serves its applications at `url`; a relay, which has none, says an empty one."""
        ...

    def publish(self, caller: Caller, subject: str, message: bytes) -> None:
        """A message for the bus, as it is encoded."""
        ...


class SiteProbe(Protocol):
    """What the parent asks a process."""

    async def figures(self, caller: Caller) -> ProcessFigures:
        """What the process did, and takes of the machine."""
        ...


class ControlSeat(Protocol):
    """What the parent tells the process of the control of units."""

    async def begin(self, caller: Caller, sites: tuple[str, ...]) -> None:
        """Meet the sites that are there. What is asked of the control before that finds nobody."""
        ...

    def site_joined(self, caller: Caller, site: str) -> None:
        """The agents of a site are there, perhaps anew."""
        ...

    def site_left(self, caller: Caller, site: str) -> None:
        """They are gone."""
        ...

    def publish(self, caller: Caller, subject: str, message: bytes) -> None:
        """A message of the bus that the control listens to, as it is encoded."""
        ...

    async def quis(self, caller: Caller) -> QuiFigures:
        """Orders and QUIs as they are now."""
        ...


class UplinkBus:
    """The Bus of a site process: what it publishes reaches the parent's bus; it hears nothing."""

    def __init__(self, uplink: Uplink, caller: Caller) -> None:
        self._uplink, self._caller = uplink, caller

    def publish(self, subject: str, message: msgspec.Struct) -> None:
        """Hand a message to the parent; lost with the way to it. Raises: Refused(`bus.secret`)."""
        if isinstance(message, Secret):
            raise Refused("bus.secret", f"message: {type(message).__name__} carries key material")
        with suppress(MultiplaneError):
            self._uplink.publish(self._caller, subject, msgspec.msgpack.encode(message))

    def subscribe(self, pattern: str, kind: type[T], handler: Callable[[str, T], None]) -> Subscription:
        """Refused: elements of a site are told by doors. Raises: Refused(`bus.publish_only`)."""
        del kind, handler
        raise Refused("bus.publish_only", f"pattern {pattern!r}: a site process only publishes")


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a process cannot start, as it says on its standard output before it ends."""

    code: str
    reason: str


class ChildOrders(msgspec.Struct, frozen=True, kw_only=True):
    """What every process needs to know, given on its standard input. No secrets: paths only.

    Args:
        state: the network's state directory.
        parent_port: on loopback.
        epoch_ns, started_ns: the network's clock: its epoch and the monotonic time at which it began.
        faults: script of injected faults, empty in operation.
        log, log_level: as in `assembly.settings`.
    """

    domain: str
    state: str
    authority: str
    certificate: str
    key: str
    parent_port: int
    epoch_ns: int
    started_ns: int
    rate: float
    faults: str = ""
    log: Literal["human", "json"]
    log_level: Literal["debug", "info", "warning", "error"]


class ControlOrders(ChildOrders, frozen=True, kw_only=True):
    """Those of the control of units.

    Args:
        planning: kind and name of policies, as the scenario says; plugins: files that may define them.
        sites: all of the domain; memories: those with quantum memories.
        unit_rules: what the domain offers for units.
    """

    planning: tuple[tuple[str, str], ...]
    plugins: tuple[str, ...]
    sites: tuple[str, ...]
    memories: tuple[str, ...]
    unit_rules: UnitRules


class SiteOrders(ChildOrders, frozen=True, kw_only=True):
    """Those of a site.

    Args:
        folder: where this site keeps its store.
        witness: the file that tells whether the store was put back from a copy.
        kek_command: prints the key-encryption key; None = it comes from the environment or a file.
        channel_port, api_port: on loopback.
        channel_ports: of all sites, by name.
        grace_s: seconds that requests have to end when the site is told to stop.
        access_log: as in `assembly.settings`.
        feeds: this site's ends of links that another network feeds.
        http: what its server takes from strangers.
        memories: whether links of pairs end here.
        unit_rules: what the domain offers for units.
    """

    site: str
    applications: tuple[Application, ...]
    folder: str
    witness: str
    channel_port: int
    api_port: int
    channel_ports: dict[str, int]
    seed: int | None
    rules: KeyRules
    policy: PairingPolicy
    unit_rules: UnitRules
    face: FaceProfile = FaceProfile()
    grace_s: float
    access_log: bool
    kek_command: str | None = None
    feeds: tuple[FeedEnd, ...] = ()
    http: Limits = Limits()
    memories: bool = False
