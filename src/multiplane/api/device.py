"""Door to quantum and optical devices, real or emulated: nobody above can tell which. Version 1.

A QKD link has two modules, one at each site; an agent attaches to the module at its own site. Attaching
starts a new *epoch* of the link: what was not used of an older epoch is burnt at both ends. A module makes
key only as fast as both agents grant it room (`window`); what it could have made beyond that is counted as
discarded. Blocks of one link come in order of `offset_byte` and are identical at both ends.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from multiplane.kernel.nouns import Caller, Noun, Secret


class LinkState(Enum):
    """Life of a quantum link: dark → provisioning → calibrating → up → draining → dark, or faulted."""

    DARK = "dark"
    PROVISIONING = "provisioning"
    CALIBRATING = "calibrating"
    UP = "up"
    DRAINING = "draining"
    FAULTED = "faulted"


class KeyBlock(Secret, frozen=True, kw_only=True):
    """Secret key made on a link, the same bytes at both ends.

    Args:
        link: link id, the two site names in order joined by `--`.
        epoch: epoch of the link, rises at each attach.
        offset_byte: position of the first byte within the epoch.
        key: the bytes.
        qber: error rate of the sifted key it was distilled from, in [0, 0.5]; 0 when nobody says.
        made_ns: Unix time at which distillation ended, nanoseconds.
    """

    link: str
    epoch: int
    offset_byte: int
    key: bytes
    qber: float
    made_ns: int


class LinkStatus(Noun, frozen=True, kw_only=True):
    """What a module says of its link; sent at each change of state and with telemetry.

    Args:
        rate_bit_per_s: secret key rate while up, 0 otherwise.
        discarded_bit: made but not wanted since the epoch began.
        reason: why it is faulted or dark, empty otherwise.
        source: `HOST:PORT` of the key manager that feeds it, when this is no module of its own light: its
            error rate is then not known, and `qber` is 0.
    """

    link: str
    state: LinkState
    epoch: int
    rate_bit_per_s: float
    qber: float
    discarded_bit: int
    at_ns: int
    reason: str = ""
    source: str = ""


class DeviceListener(Protocol):
    """The agent's side of a session. Calls come in order and never wait."""

    def key_block(self, block: KeyBlock) -> None: ...

    def link_status(self, status: LinkStatus) -> None: ...


class QkdDevice(Protocol):
    """A QKD module at the caller's site."""

    async def attach(self, caller: Caller, link: str, listener: DeviceListener) -> LinkStatus:
        """Open the session of `caller`'s site on `link` and begin a new epoch; both ends are told.

        Raises: Refused(`device.unknown_link`) when no module of `link` stands at the caller's site.
        """
        ...

    async def start(self, caller: Caller, link: str) -> None:
        """Ask this end to make key; the link calibrates once both ends ask and it is lit. Idempotent."""
        ...

    async def stop(self, caller: Caller, link: str) -> None:
        """Drain and go dark. Idempotent."""
        ...

    def window(self, caller: Caller, link: str, epoch: int, limit_byte: int) -> None:
        """Grant room up to absolute position `limit_byte` of `epoch`. Older grants and epochs are ignored."""
        ...


class SpanAlarm(Noun, frozen=True, kw_only=True):
    """Light lost or found again on a span."""

    span: str
    lost: bool
    at_ns: int
    reason: str = ""


class SpanReading(Noun, frozen=True, kw_only=True):
    """What the optical layer measures of a span. `length_km` > 0, `loss_db` >= 0."""

    span: str
    length_km: float
    loss_db: float
    lost: bool


class OpticalListener(Protocol):
    def span_alarm(self, alarm: SpanAlarm) -> None: ...

    def span_reading(self, reading: SpanReading) -> None:
        """The loss of a span is not what it was."""
        ...


class OpticalDevice(Protocol):
    """Cross-connects and power monitors of the optical layer, for the Connectivity Stratum."""

    async def attach(self, caller: Caller, listener: OpticalListener) -> tuple[SpanReading, ...]:
        """Open the session; the answer is the state of all spans now, alarms follow."""
        ...

    async def light(self, caller: Caller, path_id: str, link: str, spans: tuple[str, ...]) -> None:
        """Connect the quantum path of `link` over `spans`. Idempotent by `path_id`.

        Raises: Refused(`device.unknown_span`), Busy(`device.span_lost`).
        """
        ...

    async def darken(self, caller: Caller, path_id: str) -> None:
        """Disconnect. Idempotent."""
        ...
