"""The ports: what the strata need from the world, as Protocols of one to four methods.

Drivers live in `runtime`; each port has one contract test that runs against every driver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from multiplane.kernel.nouns import Caller

T = TypeVar("T", bound=msgspec.Struct)

PUT_BACK_KIND: Final = "put-back"
"""Kind of the rows that say: this owner's rows come from a backup, and what they hold was used since. The
owner makes amends and deletes the row in one commit; key `boot`: its boot epoch, `stock`: its stock."""
PUT_BACK_BOOT: Final = "boot"
PUT_BACK_STOCK: Final = "stock"


class Clock(Protocol):
    """Time as the network lives it: jump (virtual), paced (real time × rate) or wall.

    `rate` is simulated seconds per wall second (`inf` for the jump clock); `epoch_ns` is the Unix
    time in nanoseconds at which `now_ps` was 0.
    """

    epoch_ns: int
    rate: float

    def now_ps(self) -> int:
        """Picoseconds since the epoch."""
        ...

    def now_ns(self) -> int:
        """Unix time in nanoseconds, as the network lives it."""
        ...

    async def sleep_until_ps(self, due_ps: int) -> None:
        """Return when `now_ps() >= due_ps`, never before."""
        ...


class Timeline(Protocol):
    """The dispatcher's face: one heap of (due, sequence, handler, arguments), one sleeper.

    Handlers are synchronous, run in order of (due, sequence), and never before they are due.
    """

    epoch_ns: int

    def now_ps(self) -> int: ...

    def now_ns(self) -> int: ...

    def base_ps(self) -> int:
        """What delays are counted from: when the handler that runs was due; outside of handlers now, or when
        the earliest handler that is overdue was due.

        A chain of events that begins late is not made later by each of its steps, and what is asked from
        outside does not come before what is already due: to its handlers time never runs back.
        """
        ...

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        """Call `handler(*args)` at `due_ps` since the epoch (at once, in order, if that is past)."""
        ...

    def at_ns(self, due_ns: int, handler: Callable[..., None], *args: Any) -> None:
        """The same with a Unix time in nanoseconds."""
        ...


class Entropy(Protocol):
    """Secret random bytes. Seeded drivers are for studies and say NOT SECRET."""

    def take(self, size_byte: int) -> bytes: ...


class Put(msgspec.Struct, frozen=True):
    """Write `value` under (owner of the commit, kind, key)."""

    kind: str
    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True):
    """Remove the row under (owner of the commit, kind, key); absent rows are no error."""

    kind: str
    key: str


Change = Put | Delete


class Store(Protocol):
    """Durable rows keyed by (owner, kind, key). One owner per commit, never two."""

    def scan(self, owner: str, kind: str) -> list[tuple[str, bytes]]:
        """All rows of one kind, in order of key. Reads only what is committed."""
        ...

    async def commit(self, owner: str, changes: Sequence[Change]) -> None:
        """Return when all `changes` are durable, together.

        Concurrent commits may share one transaction (group commit); order of calls is kept.
        Raises: Faulty(`store.commit_failed`): none of this call's changes may be relied upon; the
        caller must reload what it holds in memory from `scan` before it answers anybody. Commits of the
        same owner that were waiting behind it fail too: they were computed from what has not lasted.
        """
        ...

    def watch(self, owner: str, failed: Callable[[], None]) -> None:
        """Call `failed` when a commit of `owner` has failed, before anybody who waits is told."""
        ...


class Channel(Protocol):
    """An ordered, authenticated stream of messages to one peer, over a path of the Connectivity Stratum."""

    peer: Caller

    def send(self, message: bytes) -> None:
        """Queue a message. Raises Busy(`channel.full`) when the bounded queue is full,
        Faulty(`channel.closed`) when the channel is gone."""
        ...

    def listen(self, message: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        """Set the two handlers; messages that came before are handed over first, in order."""
        ...

    def close(self, reason: str) -> None:
        """Close both ways; the other end's `lost` is told `reason`. Ours is not called."""
        ...


class Channels(Protocol):
    """Opens and accepts channels between elements. `service` separates uses: `relay`, `kme`."""

    async def open(self, caller: Caller, peer: str, service: str, delay_ns: int) -> Channel:
        """Reach the element with URN `peer`; `delay_ns` is the one-way delay of the path.

        Raises: Busy(`channel.unreachable`) when nobody answers there now.
        """
        ...

    def accept(self, local: str, service: str, handler: Callable[[Channel], None]) -> None:
        """Call `handler` with each channel that a peer opens to element `local`."""
        ...


class Subscription(Protocol):
    def cancel(self) -> None: ...


class Bus(Protocol):
    """Publish/subscribe for control and telemetry inside a domain. Key material never enters it."""

    def publish(self, subject: str, message: msgspec.Struct) -> None: ...

    def subscribe(self, pattern: str, kind: type[T], handler: Callable[[str, T], None]) -> Subscription:
        """Patterns are dotted; `*` stands for one token, a final `>` for one or more."""
        ...


class Faults(Protocol):
    """Named points at which a test may kill, fail or delay this process; empty in operation."""

    def reach(self, point: str) -> None:
        """May raise Faulty(`fault.injected`) or never return (SIGKILL)."""
        ...
