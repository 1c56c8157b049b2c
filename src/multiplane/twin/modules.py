"""The QKD modules of the world: sessions, epochs, life cycles and key blocks of all links.

Everything happens in handlers of the timeline or in calls from the doors; nothing polls, an idle link costs
nothing. What both ends are told goes through the timeline, so that no agent is called while it is calling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from zlib import crc32

from multiplane.api.device import DeviceListener, KeyBlock, LinkState, LinkStatus
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.names import site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Timeline
from multiplane.kernel.quantity import PS_PER_NS
from multiplane.physics.tampered_bb84 import CLEAR, Tampering
from multiplane.twin.links import (
    Action,
    Changed,
    Connected,
    Disconnected,
    Elapsed,
    Event,
    Failed,
    Life,
    Wanted,
    step,
)
from multiplane.twin.production import Production
from multiplane.twin.profiles import Profile, Yield
from multiplane.twin.scenario import Span, World
from multiplane.twin.streams import Stream

EPOCHS_PER_BOOT: Final = 1 << 20
SLOT_PS: Final = 2_000_000_000
"""Blocks end at multiples of this: those of many links together, in one handler that does not take long."""
_NOTHING: Final = Yield(0.0, 0.0)


def own_phase(link: str) -> float:
    """Share of each interval of the network's time after which a link's blocks end; in [0, 1)."""
    return crc32(link.encode()) / 2**32


def ignored(link: str) -> None:
    """Nobody wants to know."""


class _Link:
    """One link: what it is, where it is in its life, and the production of its epoch."""

    __slots__ = (
        "broken",
        "due_ps",
        "epoch",
        "head_start_bit",
        "life",
        "link",
        "listeners",
        "makes",
        "phase_ps",
        "production",
        "profile",
        "span",
        "starved",
        "stream",
        "told_ps",
        "up",
    )

    def __init__(
        self, span: Span, profile: Profile, epoch: int, stream: Stream, phase_share: float | None
    ) -> None:
        self.span = span
        self.link = span.id
        self.profile = profile
        self.life = Life()
        self.up = False
        self.makes = _NOTHING
        self.listeners: tuple[DeviceListener | None, DeviceListener | None] = (None, None)
        self.epoch = epoch
        self.head_start_bit = 0
        self.due_ps: int | None = None  # of the next block
        self.told_ps = 0  # time of the last status
        self.broken: dict[str, set[str]] = {}  # sites whose module has failed, and why
        self.starved = ""  # why the path yields no key, if so
        self.phase_ps: int | None = None
        if phase_share is not None:
            self.phase_ps = int(phase_share * profile.block_interval_ps) // SLOT_PS * SLOT_PS
        self.production = self.new_production()
        self.stream = stream

    def new_production(self) -> Production:
        """That of a new epoch."""
        return Production(self.profile.block_interval_ps, self.phase_ps)

    def listen(self, end: int, listener: DeviceListener | None) -> None:
        """Who listens at that end from now on."""
        first, second = self.listeners
        self.listeners = (listener, second) if end == 0 else (first, listener)

    @property
    def flaw(self) -> str:
        """Why no key can be made, empty when it can."""
        if self.broken:
            return f"module at {' and '.join(sorted(self.broken))} failed"
        return self.starved


class Modules:
    """All modules of a world; implements `api.device.QkdDevice` for callers at its sites."""

    def __init__(
        self,
        world: World,
        timeline: Timeline,
        seed: bytes,
        boot_epoch: int,
        profiles: Mapping[str, Profile],
        *,
        phase: Callable[[str], float | None] = own_phase,
    ) -> None:
        self._domain = world.domain
        self._timeline = timeline
        self._ending: dict[int, list[_Link]] = {}  # links by when their next block ends
        self._seed = seed
        self._last_epoch = (boot_epoch + 1) * EPOCHS_PER_BOOT - 1
        first = boot_epoch * EPOCHS_PER_BOOT
        self.on_change: Callable[[str], None] = ignored
        """Told of each link of which a module fails or works again."""
        self._links = {
            span.id: _Link(span, profiles[span.profile], first, Stream(seed, span.id, first), phase(span.id))
            for span in world.spans
        }

    async def attach(self, caller: Caller, link: str, listener: DeviceListener) -> LinkStatus:
        held, end = self._at(caller, link)
        if held.epoch >= self._last_epoch:
            raise Faulty("device.epochs_exhausted", f"link {link}: no epoch left, expected a restart")
        held.listen(end, listener)
        held.epoch += 1
        held.stream = Stream(self._seed, link, held.epoch)
        held.production = held.new_production()
        held.due_ps = None
        if held.life.state is LinkState.UP:
            held.production.begin(self._timeline.base_ps(), held.makes.rate_bit_per_s)
        self._tell(held)
        return self._status(held)

    async def start(self, caller: Caller, link: str) -> None:
        held, end = self._at(caller, link)
        self._apply(held, Wanted(end, True), self._timeline.base_ps())

    async def stop(self, caller: Caller, link: str) -> None:
        held, end = self._at(caller, link)
        self._apply(held, Wanted(end, False), self._timeline.base_ps())

    def window(self, caller: Caller, link: str, epoch: int, limit_byte: int) -> None:
        held, end = self._at(caller, link)
        if epoch != held.epoch or held.listeners[end] is None:
            return
        now_ps = self._timeline.base_ps()
        held.production.grant(now_ps, end, limit_byte)
        self._schedule(held, now_ps)

    def head_start(self, link: str, size_bit: int) -> None:
        """The link begins its next life with `size_bit` of key more, as far as both ends have room.

        Raises: Refused(`device.unknown_link`).
        """
        self._link(link).head_start_bit = size_bit

    def connect(self, link: str, loss_db: float, done: Tampering = CLEAR) -> None:
        """Switch a quantum path of `loss_db`, to whose light `done` is done, to the link.

        Raises: Refused(`device.unknown_link`).
        """
        held = self._link(link)
        self._measure(held, loss_db, done)
        self._apply(held, Connected(held.flaw), self._timeline.base_ps())

    def change(self, link: str, loss_db: float, done: Tampering) -> None:
        """The path of the link is not what it was: key is made at another rate from now on, or no more."""
        held, now_ps = self._link(link), self._timeline.base_ps()
        self._measure(held, loss_db, done)
        if held.production.running and not held.flaw:
            held.production.change(now_ps, held.makes.rate_bit_per_s)
            held.due_ps = None
            self._schedule(held, now_ps)
            self._tell(held)
        self._apply(held, Changed(held.flaw), now_ps)

    def break_module(self, link: str, site: str, cause: str) -> None:
        """The module of the link at `site` fails, for one more cause. Idempotent."""
        held = self._link(link)
        held.broken.setdefault(site, set()).add(cause)
        self._apply(held, Changed(held.flaw), self._timeline.base_ps())
        self.on_change(link)

    def repair_module(self, link: str, site: str, cause: str) -> None:
        """That cause is gone; without another the module works again. Idempotent."""
        held = self._link(link)
        held.broken.get(site, set()).discard(cause)
        if not held.broken.get(site, True):
            del held.broken[site]
            self._apply(held, Changed(held.flaw), self._timeline.base_ps())
            self.on_change(link)

    def makes(self, link: str) -> Yield:
        """What the link makes, or made, over its last path. Raises: Refused(`device.unknown_link`)."""
        return self._link(link).makes

    def failed_at(self, link: str) -> frozenset[str]:
        """Sites whose module of the link has failed."""
        return frozenset(self._link(link).broken)

    def broken(self, link: str) -> tuple[str, ...]:
        """Which modules of the link have failed, as sentences."""
        return tuple(f"module at {site} failed" for site in sorted(self._link(link).broken))

    @staticmethod
    def _measure(held: _Link, loss_db: float, done: Tampering) -> None:
        held.makes = held.profile.yields(loss_db, held.span.rate_bit_per_s, done)
        held.starved = ""
        if not held.makes.rate_bit_per_s > 0.0:
            seen = "" if done == CLEAR else f", error rate {held.makes.qber:.1%}"
            held.starved = f"no secret key at {loss_db + done.loss_db:.1f} dB{seen}"

    def disconnect(self, link: str, reason: str) -> None:
        """Take the quantum path of the link away."""
        self._apply(self._link(link), Disconnected(reason), self._timeline.base_ps())

    def fail(self, link: str, reason: str, delay_ps: int) -> None:
        """The quantum path of the link is lost; the modules notice `delay_ps` later."""
        self._apply(self._link(link), Failed(reason), self._timeline.base_ps(), delay_ps)

    def ends(self, link: str) -> tuple[str, str]:
        """The sites of a link's two modules. Raises: Refused(`device.unknown_link`)."""
        return self._link(link).span.sites

    def status(self, link: str) -> LinkStatus:
        """What the modules of a link would say now. Raises: Refused(`device.unknown_link`)."""
        return self._status(self._link(link))

    def site_lost(self, site: str) -> None:
        """Nobody is left at `site`: drop its sessions and stop its ends."""
        now_ps = self._timeline.base_ps()
        for held in self._links.values():
            if site in held.span.sites:
                end = held.span.sites.index(site)
                held.listen(end, None)
                held.production.revoke(now_ps, end)
                self._apply(held, Wanted(end, False), now_ps)

    def _link(self, link: str) -> _Link:
        if link not in self._links:
            raise Refused("device.unknown_link", f"link: unknown {link!r}, expected <site>--<site>")
        return self._links[link]

    def _at(self, caller: Caller, link: str) -> tuple[_Link, int]:
        """A link and the end of it at which the caller stands."""
        held = self._link(link)
        try:
            site = site_of(caller.principal)
        except ValueError:
            site = ""
        if caller.domain != self._domain or site not in held.span.sites:
            reason = (
                f"link: no module of {link!r} at {caller.principal}, expected a caller at one of its ends"
            )
            raise Refused("device.unknown_link", reason)
        return held, held.span.sites.index(site)

    def _apply(self, held: _Link, event: Event, now_ps: int, tell_after_ps: int = 0) -> None:
        """Step the life of a link and perform what follows."""
        held.life, actions = step(held.life, event)
        held.up = held.life.state is LinkState.UP
        if not held.up:
            held.due_ps = None
            if held.life.state is not LinkState.DRAINING:
                held.production.end(now_ps)
        for action in actions:
            match action:
                case Action.TELL if tell_after_ps:
                    self._timeline.at_ps(now_ps + tell_after_ps, self._tell, held)
                case Action.TELL:
                    self._tell(held)
                case Action.PROVISION:
                    self._wait(held, now_ps + held.profile.provisioning_ps)
                case Action.CALIBRATE:
                    self._wait(held, now_ps + held.profile.calibration_ps)
                case Action.DRAIN:
                    self._wait(held, held.production.next_grid_ps(now_ps))
                case Action.PRODUCE:
                    held.production.begin(now_ps, held.makes.rate_bit_per_s, held.head_start_bit)
                    held.head_start_bit = 0
                    held.due_ps = None
                    self._schedule(held, now_ps)

    def _wait(self, held: _Link, due_ps: int) -> None:
        self._timeline.at_ps(due_ps, self._elapsed, held, held.life.generation, due_ps)

    def _elapsed(self, held: _Link, generation: int, due_ps: int) -> None:
        if generation != held.life.generation:
            return
        if held.life.state is LinkState.DRAINING:
            self._deliver(held, due_ps)
        self._apply(held, Elapsed(generation), due_ps)

    def _schedule(self, held: _Link, now_ps: int) -> None:
        """Make sure that the next block will come, if any can."""
        if held.due_ps is not None or not held.up:
            return
        due_ps = held.production.next_block_ps(now_ps)
        if due_ps is not None:
            held.due_ps = due_ps
            ending = self._ending.get(due_ps)
            if ending is None:
                self._ending[due_ps] = [held]
                self._timeline.at_ps(due_ps, self._blocks, due_ps)
            else:
                ending.append(held)

    def _blocks(self, due_ps: int) -> None:
        """Blocks end, unless their links have turned to something else meanwhile."""
        for held in self._ending.pop(due_ps):
            if due_ps == held.due_ps:
                held.due_ps = None
                self._deliver(held, due_ps)
                self._schedule(held, due_ps)

    def _deliver(self, held: _Link, due_ps: int) -> None:
        """Hand the block that ends now to both agents."""
        production = held.production
        offset_byte = production.sent_byte
        size_byte = production.take(due_ps)
        if not size_byte:
            return
        block = KeyBlock(
            link=held.link,
            epoch=held.epoch,
            offset_byte=offset_byte,
            key=held.stream.read(offset_byte, size_byte),
            qber=held.makes.qber,
            made_ns=self._timeline.epoch_ns + due_ps // PS_PER_NS,
        )
        for listener in held.listeners:
            if listener is not None:
                listener.key_block(block)

    def _status(self, held: _Link) -> LinkStatus:
        makes = held.makes if held.life.state is LinkState.UP else _NOTHING
        # A twin that is behind does overdue things of several times in turn: what it says of a link is never
        # older than what it said before, or agents would take the newer word for a stale one.
        now_ps = held.told_ps = max(held.told_ps, self._timeline.base_ps())
        return LinkStatus(
            link=held.span.id,
            state=held.life.state,
            epoch=held.epoch,
            rate_bit_per_s=makes.rate_bit_per_s,
            qber=makes.qber,
            discarded_bit=held.production.discarded_bit(now_ps),
            at_ns=self._timeline.epoch_ns + now_ps // PS_PER_NS,
            reason=held.life.reason,
        )

    def _tell(self, held: _Link) -> None:
        status = self._status(held)
        for end, listener in enumerate(held.listeners):
            if listener is not None:
                self._timeline.at_ps(held.told_ps, self._hand, held, end, listener, status)

    def _hand(self, held: _Link, end: int, listener: DeviceListener, status: LinkStatus) -> None:
        """Unless the session or the epoch has been replaced meanwhile."""
        if held.listeners[end] is listener and held.epoch == status.epoch:
            listener.link_status(status)
