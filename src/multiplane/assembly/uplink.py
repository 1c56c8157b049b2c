"""The door of the parent for the site processes it started. Internal to the layout `per node`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Protocol, TypeVar

import msgspec

from multiplane.api.operations import ProcessFigures
from multiplane.assembly.feeds.settings import FeedEnd
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.nouns import Caller, Secret
from multiplane.kernel.ports import Subscription
from multiplane.runtime.http_limits import Limits
from multiplane.security.policy import PairingPolicy
from multiplane.service.planes import Application, KeyRules
from multiplane.standards.etsi014 import FaceProfile

SERVICE = "site"
REFUSED = 2
"""Exit code of a site process that cannot start; it says why on its standard output."""
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
    """What the parent asks a site process."""

    async def figures(self, caller: Caller) -> ProcessFigures:
        """What the process did, and takes of the machine."""
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
    """Why a site process cannot start, as it says on its standard output before it ends."""

    code: str
    reason: str


class SiteOrders(msgspec.Struct, frozen=True, kw_only=True):
    """All that a site process needs to know, given on its standard input. No secrets: paths only.

    Args:
        state, folder: the network's state directory, and where this site keeps its store.
        witness: the file that tells whether the store was put back from a copy.
        kek_command: prints the key-encryption key; None = it comes from the environment or a file.
        parent_port, channel_port, api_port: on loopback.
        channel_ports: of all sites, by name.
        epoch_ns, started_ns: the network's clock: its epoch and the monotonic time at which it began.
        faults: script of injected faults, empty in operation.
        grace_s: seconds that requests have to end when the site is told to stop.
        log, log_level, access_log: as in `assembly.settings`.
        feeds: this site's ends of links that another network feeds.
        http: what its server takes from strangers.
        memories: whether links of pairs end here.
    """

    domain: str
    site: str
    applications: tuple[Application, ...]
    state: str
    folder: str
    witness: str
    authority: str
    certificate: str
    key: str
    parent_port: int
    channel_port: int
    api_port: int
    channel_ports: dict[str, int]
    epoch_ns: int
    started_ns: int
    rate: float
    seed: int | None
    rules: KeyRules
    policy: PairingPolicy
    face: FaceProfile = FaceProfile()
    faults: str
    grace_s: float
    log: Literal["human", "json"]
    log_level: Literal["debug", "info", "warning", "error"]
    access_log: bool
    kek_command: str | None = None
    feeds: tuple[FeedEnd, ...] = ()
    http: Limits = Limits()
    memories: bool = False
