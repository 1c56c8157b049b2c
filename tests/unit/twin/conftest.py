"""A bench for twins: a timeline that is only a heap, and agents that write down what they hear."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from multiplane.api.device import KeyBlock, LinkState, LinkStatus, SpanAlarm, SpanReading
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller, ends
from multiplane.twin.engine import Twin
from multiplane.twin.profiles import PROFILES, Profile
from multiplane.twin.scenario import World, load_shipped

T = TypeVar("T")
SECOND_PS = 1_000_000_000_000
ROOT = Path(__file__).resolve().parents[3]


def run(call: Coroutine[Any, Any, T]) -> T:
    """The answer of a door that never waits."""
    try:
        call.send(None)
    except StopIteration as answer:
        value: T = answer.value
        return value
    raise AssertionError("the door waited")


class HeapTimeline:
    """Jumps from one due time to the next; handlers run `late_ps` after they were due."""

    epoch_ns = 1_700_000_000_000_000_000
    late_ps = 0

    def __init__(self) -> None:
        self._now_ps = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self.events = 0

    def now_ps(self) -> int:
        return self._now_ps + self.late_ps

    def now_ns(self) -> int:
        return self.epoch_ns + self.now_ps() // 1000

    def base_ps(self) -> int:
        return self._now_ps

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (due_ps, self._sequence, handler, args))

    def at_ns(self, due_ns: int, handler: Callable[..., None], *args: Any) -> None:
        self.at_ps((due_ns - self.epoch_ns) * 1000, handler, *args)

    def advance_to(self, until_ps: int) -> None:
        while self._heap and self._heap[0][0] <= until_ps:
            due_ps, _, handler, args = heapq.heappop(self._heap)
            self._now_ps = max(self._now_ps, due_ps)
            self.events += 1
            handler(*args)
        self._now_ps = max(self._now_ps, until_ps)

    @property
    def idle(self) -> bool:
        return not self._heap


class Agent:
    """One end of one link; keeps `ahead_byte` of room open if asked to."""

    def __init__(self, rig: Rig, site: str, link: str) -> None:
        self.rig, self.site, self.link = rig, site, link
        self.caller = rig.caller(site)
        self.blocks: list[KeyBlock] = []
        self.statuses: list[LinkStatus] = []
        self.seen: list[tuple[float, LinkState]] = []
        self.ahead_byte = 0
        self.limit_byte = 0
        self.epoch = -1

    def key_block(self, block: KeyBlock) -> None:
        self.blocks.append(block)
        if self.ahead_byte:
            self.window(block.offset_byte + len(block.key) + self.ahead_byte)

    def link_status(self, status: LinkStatus) -> None:
        self.statuses.append(status)
        if not self.seen or self.seen[-1][1] is not status.state:
            self.seen.append((self.rig.now_s, status.state))
        if status.epoch != self.epoch:
            self.epoch, self.limit_byte = status.epoch, 0
            if self.ahead_byte:
                self.window(self.ahead_byte)

    def attach(self) -> LinkStatus:
        return run(self.rig.twin.qkd.attach(self.caller, self.link, self))

    def start(self) -> None:
        run(self.rig.twin.qkd.start(self.caller, self.link))

    def stop(self) -> None:
        run(self.rig.twin.qkd.stop(self.caller, self.link))

    def window(self, limit_byte: int) -> None:
        self.limit_byte = max(self.limit_byte, limit_byte)
        self.rig.twin.qkd.window(self.caller, self.link, self.epoch, limit_byte)

    @property
    def key(self) -> bytes:
        return b"".join(block.key for block in self.blocks)


class Rig:
    """A twin on a heap, an agent at each end of each link, and an optical listener."""

    def __init__(
        self,
        world: World,
        seed: bytes = bytes(32),
        boot_epoch: int = 1,
        profiles: dict[str, Profile] | None = None,
        phase: float | None = None,
    ) -> None:
        self.timeline = HeapTimeline()
        self.world = world
        self.twin = Twin(world, self.timeline, seed, boot_epoch, profiles or PROFILES, phase=lambda _: phase)
        self.alarms: list[tuple[float, SpanAlarm]] = []
        self.controller = Caller(principal=f"urn:qkd:{world.domain}:controller", domain=world.domain)
        self.readings = run(self.twin.optical.attach(self.controller, self))
        self.agents = {
            span.id: (Agent(self, span.sites[0], span.id), Agent(self, span.sites[1], span.id))
            for span in world.spans
        }

    def span_alarm(self, alarm: SpanAlarm) -> None:
        self.alarms.append((self.now_s, alarm))

    def span_reading(self, reading: SpanReading) -> None:
        self.readings = tuple(reading if one.span == reading.span else one for one in self.readings)

    @property
    def now_s(self) -> float:
        return self.timeline.base_ps() / SECOND_PS

    def caller(self, site: str) -> Caller:
        return Caller(principal=element_urn(self.world.domain, site), domain=self.world.domain)

    def advance(self, seconds: float) -> None:
        self.timeline.advance_to(self.timeline.base_ps() + round(seconds * SECOND_PS))

    def light(self, link: str, *spans: str, path_id: str = "") -> None:
        call = self.twin.optical.light(self.controller, path_id or f"path-{link}", link, spans or (link,))
        run(call)

    def darken(self, link: str) -> None:
        run(self.twin.optical.darken(self.controller, f"path-{link}"))

    def cut(self, link: str) -> None:
        run(self.twin.scenario.cut(self.controller, ends(*link.split("--"))))

    def restore(self, link: str) -> None:
        run(self.twin.scenario.restore(self.controller, ends(*link.split("--"))))

    def bring_up(self, link: str, ahead_byte: int = 1 << 20) -> tuple[Agent, Agent]:
        """Attach, light and start; the link is up when the profile's times have passed."""
        for agent in self.agents[link]:
            agent.ahead_byte = ahead_byte
            agent.attach()
            agent.start()
        self.light(link)
        return self.agents[link]


@pytest.fixture
def make_rig() -> Callable[..., Rig]:
    return Rig


@pytest.fixture
def pair() -> Rig:
    return Rig(load_shipped("pair"))


@pytest.fixture
def lab3() -> Rig:
    return Rig(load_shipped("lab3"))


@pytest.fixture
def project_root() -> Path:
    return ROOT
