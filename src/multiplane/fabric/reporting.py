"""What the agent of a site tells of its links: a change at once, moving key soon, and else that it lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from multiplane.api.device import LinkState, LinkStatus
from multiplane.api.telemetry import Sample
from multiplane.fabric.greeting import Greeting
from multiplane.fabric.planes import LinkOrder, LinkReport, SiteBeat
from multiplane.fabric.resource.pools import LinkPool
from multiplane.fabric.resource.relay import Relay
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller, Noun
from multiplane.kernel.ports import Bus, Channel, Timeline
from multiplane.kernel.quantity import NS_PER_MS, NS_PER_S, bit_from_byte

REPORT_EVERY_NS: Final = NS_PER_S
"""At most so often it is told that key came or went, or at what rate; a new state is told at once."""
TELLING_SHARE: Final = 64
LEAST_TELLING_BYTE: Final = 4096
"""It is told when the stock changed by that part of its room, or this; less waits for a full report, or for
somebody who asks."""
HEARTBEAT_NS: Final = 10 * NS_PER_S
"""So often a site says that it lives, and when it last told of each link."""
BEATS_PER_REPORT: Final = 6
"""With every so many beats it tells of all links again: a report may have been lost."""
BEATS_TOGETHER_NS: Final = 50 * NS_PER_MS
"""Sites beat apart from one another, in steps of this: an idle process wakes no more often."""
BACKOFF_FIRST_NS: Final = 200 * NS_PER_MS


@dataclass(slots=True, eq=False)
class AgentLink:
    """One link of a site: what was ordered, how far it is, and what was told of it."""

    link: str
    peer: str
    pool: LinkPool
    order: LinkOrder | None = None
    attached: bool = False
    status: LinkStatus | None = None
    channel: Channel | None = None
    greeting: Greeting | None = None
    opened_ns: int = 0
    opening: bool = False
    moved: bool = False
    told_byte: int = 0
    told_ns: int = 0
    backoff_ns: int = BACKOFF_FIRST_NS
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Reporting:
    """Reports and heartbeats of one site.

    Args:
        links: those of the site, by id; the agent adds to them.
        room_byte: key that is held at most for each of them.
    """

    __slots__ = (
        "_beating",
        "_bus",
        "_caller",
        "_closed",
        "_links",
        "_phase_ns",
        "_relay",
        "_site",
        "_telling_byte",
        "_ticking",
        "_timeline",
    )

    def __init__(
        self,
        caller: Caller,
        site: str,
        timeline: Timeline,
        bus: Bus,
        *,
        relay: Relay,
        links: Mapping[str, AgentLink],
        room_byte: int,
    ) -> None:
        self._caller, self._site = caller, site
        self._timeline, self._bus = timeline, bus
        self._relay, self._links = relay, links
        self._telling_byte = max(LEAST_TELLING_BYTE, room_byte // TELLING_SHARE)
        steps = HEARTBEAT_NS // BEATS_TOGETHER_NS
        self._phase_ns = crc32(site.encode()) % steps * BEATS_TOGETHER_NS
        self._ticking = self._beating = self._closed = False

    def close(self) -> None:
        """Say nothing more."""
        self._closed = True

    def report(self, link: AgentLink, reason: str = "") -> None:
        """Publish what this end knows of a link."""
        report = self._report_of(link, reason)
        link.told_ns = report.at_ns
        self._publish("link", report)

    def alarm(self, peer: str) -> None:
        """A tag failed: the message was changed on its way, or the two ends hold different key."""
        sample = Sample(
            subject=link_id(self._site, peer),
            name="relay.tag_rejected",
            value=float(self._relay.counters(peer).get("dropped_tag", 0)),
            unit="1",
            at_ns=self._timeline.now_ns(),
        )
        self._publish("alarm", sample)

    def note(self, link: AgentLink, stock_byte: int) -> None:
        """Key of a link came or went: if it was much, one timer of the site tells of it soon."""
        if not stock_byte or abs(stock_byte - link.told_byte) >= self._telling_byte:
            self.soon(link)

    def soon(self, link: AgentLink) -> None:
        """One timer of the site tells of this link within `REPORT_EVERY_NS`, however often it changes."""
        link.moved = True
        if not self._ticking:
            self._ticking = True
            self._timeline.at_ns(self._timeline.now_ns() + REPORT_EVERY_NS, self._tick)

    def moved(self) -> tuple[LinkReport, ...]:
        """Reports of the links whose stock is not what was last told."""
        links = [link for link in self._ordered() if link.pool.stock_byte != link.told_byte]
        return tuple(self._report_of(link) for link in links)

    def beat_soon(self) -> None:
        """One heartbeat for all links of the site, while one is ordered."""
        if not self._beating:
            self._beating = True
            beat = (self._timeline.now_ns() - self._phase_ns) // HEARTBEAT_NS + 1
            self._timeline.at_ns(beat * HEARTBEAT_NS + self._phase_ns, self._beat, beat)

    def _report_of(self, link: AgentLink, reason: str = "") -> LinkReport:
        status, stock_byte = link.status, link.pool.stock_byte
        link.moved, link.told_byte = False, stock_byte
        return LinkReport(
            link=link.link,
            site=self._site,
            path_id="" if link.order is None else link.order.path.path_id,
            state=(LinkState.DARK if status is None else status.state).value,
            epoch=link.pool.epoch,
            rate_bit_per_s=0.0 if status is None else status.rate_bit_per_s,
            qber=0.0 if status is None else status.qber,
            stock_bit=bit_from_byte(stock_byte),
            out_bit=bit_from_byte(link.pool.out_byte),
            discarded_bit=0 if status is None else status.discarded_bit,
            counters=self._relay.counters(link.peer),
            at_ns=self._timeline.now_ns(),
            reason=reason or ("" if status is None else status.reason),
            source="" if status is None else status.source,
        )

    def _tick(self) -> None:
        self._ticking = False
        for link in self._ordered():
            if link.moved:
                self.report(link)

    def _beat(self, beat: int) -> None:
        """Say that all is as it was told, or tell it again."""
        self._beating = False
        links = self._ordered()
        if not links:
            return
        self.beat_soon()
        if beat % BEATS_PER_REPORT == self._phase_ns // BEATS_TOGETHER_NS % BEATS_PER_REPORT:
            for link in links:
                self.report(link)
        else:
            told_ns = {link.link: link.told_ns for link in links}
            self._publish("beat", SiteBeat(site=self._site, told_ns=told_ns, at_ns=self._timeline.now_ns()))

    def _publish(self, what: str, message: Noun) -> None:
        """Telemetry may be lost; a later report says it all again."""
        with contextlib.suppress(MultiplaneError):
            self._bus.publish(f"{self._caller.domain}.fabric.telemetry.{self._site}.{what}", message)

    def _ordered(self) -> list[AgentLink]:
        return [] if self._closed else [link for link in self._links.values() if link.order is not None]
