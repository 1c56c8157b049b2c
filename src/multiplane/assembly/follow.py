"""A twin that follows a running network: reads telemetry, calibrates its links, tells its own error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp

from multiplane.api.device import LinkState
from multiplane.api.operator import NetworkReport
from multiplane.assembly.control import LOCAL_OPERATOR, control
from multiplane.kernel.errors import Faulty, Refused, Unknown
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Noun
from multiplane.kernel.quantity import NS_PER_S
from multiplane.sdk.wire import tls_context
from multiplane.twin.calibration import Calibration, LinkTwin, Reading, calibrated
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World, parse
from multiplane.twin.scenario_writing import write

SHORTEST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0
FETCH_S: Final = 10.0
MOST_METRICS_BYTE: Final = 64 * 1024 * 1024
_SERIES: Final = re.compile(
    r'^multiplane_(?:(time_seconds|time_factor)|(link_[a-z_]+)\{link="([a-z0-9-]+)"\}) (\S+)$', re.M
)
_QBER: Final = "link_qber_ratio"


class Look(Noun, frozen=True, kw_only=True):
    """One look at the telemetry of a network: what each link that is up shows, by link id.

    Args: rate: simulated seconds per wall second, 0 while its time stands still.
    """

    at_ns: int
    rate: float
    links: dict[str, Reading]


Watch = Callable[[], Awaitable[Look]]
Link: TypeAlias = Calibration
Links: TypeAlias = tuple[Calibration, ...]
"""What is known of each link, in the order of the scenario."""


def look_of(report: NetworkReport) -> Look:
    """What the operator's report says of the links; those fed by another network are left out.

    Loss is not taken from it: that is the scenario's, and the question.
    """
    links = {
        link_id(link.a, link.b): Reading(
            at_ns=report.at_ns, rate_bit_per_s=link.rate_bit_per_s, qber=link.qber
        )
        for link in report.links
        if link.state == LinkState.UP.value and not link.source
    }
    return Look(at_ns=report.at_ns, rate=report.rate, links=links)


def look_of_metrics(text: str) -> Look:
    """The same from the metrics that the operations listener serves, which tell no QBER of fed links.

    Raises: Faulty(`follow.metrics`).
    """
    whole: dict[str, float] = {}
    figures: dict[str, dict[str, float]] = {}
    try:
        for network, what, link, value in _SERIES.findall(text):
            if network:
                whole[network] = float(value)
            else:
                figures.setdefault(link, {})[what] = float(value)
        at_ns, rate = round(whole["time_seconds"] * NS_PER_S), whole["time_factor"]
        links = {
            link: Reading(
                at_ns=at_ns,
                rate_bit_per_s=seen["link_key_rate_bits_per_second"],
                qber=seen[_QBER],
            )
            for link, seen in figures.items()
            if seen["link_up"] == 1.0 and _QBER in seen
        }
    except (KeyError, ValueError) as error:
        reason = f"metrics: {error}: expected those of a multiplane network (multiplane_time_seconds, ...)"
        raise Faulty("follow.metrics", reason) from error
    return Look(at_ns=at_ns, rate=rate, links=links)


@asynccontextmanager
async def local(state: Path, policies: Policies = POLICIES) -> AsyncIterator[tuple[World, Watch]]:
    """World and telemetry of the network that runs on a state directory. Raises: as `control`."""
    async with control(state) as doors:
        world = parse(await doors.operator.scenario(LOCAL_OPERATOR), "the running network", policies=policies)

        async def watch() -> Look:
            return look_of(await doors.operator.report(LOCAL_OPERATOR))

        yield world, watch


@asynccontextmanager
async def remote_metrics(url: str, ca: Path, cert: Path, key: Path) -> AsyncIterator[Watch]:
    """Telemetry from an operations listener, as its operator.

    Args: url: `https://HOST:PORT`, `/metrics` is added; ca, cert, key: PEM files.
    Raises: Refused(`client.credentials`); when asked: Refused(`follow.refused`), Unknown(`http.lost`).
    """
    address = url.rstrip("/").removesuffix("/metrics") + "/metrics"
    connector = aiohttp.TCPConnector(ssl=tls_context(ca, cert, key))
    timeout = aiohttp.ClientTimeout(total=FETCH_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def watch() -> Look:
            try:
                async with session.get(address) as answer:
                    body = await answer.content.read(MOST_METRICS_BYTE)
                    while not answer.content.at_eof() and len(body) < MOST_METRICS_BYTE:
                        body += await answer.content.read(MOST_METRICS_BYTE - len(body))
            except (aiohttp.ClientError, ValueError, TimeoutError) as error:
                reason = f"url {address}: {error or type(error).__name__}: expected an operations listener"
                raise Unknown("http.lost", reason) from error
            if answer.status != 200:
                reason = f"url {address}: answered {answer.status}: use the operator's certificate"
                raise Refused("follow.refused", reason)
            return look_of_metrics(body.decode("utf-8", "replace"))

        yield watch


class Follower:
    """The following twin of a world. `at_ns`: network time of the last look, 0 before the first."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._twins = {span.id: LinkTwin(span) for span in world.spans}
        self.at_ns = 0

    def note(self, look: Look) -> Links:
        """Learn from a look; what is known of each link now, in the order of the scenario."""
        self.at_ns = look.at_ns
        for link, reading in look.links.items():
            if link in self._twins:
                self._twins[link].note(reading)
        return self.calibrations()

    def calibrations(self) -> Links:
        """What is known of each link."""
        return tuple(twin.calibration() for twin in self._twins.values())

    def scenario(self) -> str:
        """A scenario file of the world as calibrated; links that differ say from what."""
        comments = {}
        for known in self.calibrations():
            if known.loss_db is not None and known.loss_sd_db is not None:
                comments[known.link] = (
                    f"calibrated: {known.loss_db:.4f} dB +- {known.loss_sd_db:.4f}, "
                    f"scenario {known.scenario_loss_db:g} dB, error {known.error:.5f}, "
                    f"{known.readings} readings, {known.state}"
                )
        return write(calibrated(self._world, self._twins), ["Calibrated from telemetry."], comments)


async def follow(
    world: World,
    watch: Watch,
    *,
    for_s: float,
    every_s: float,
    tell: Callable[[Look, Links], None],
) -> Follower:
    """Look every `every_s` > 0 for `for_s` > 0, both in the network's own time; `tell` hears of each look.

    Raises: what `watch` raises.
    """
    follower = Follower(world)
    look = await watch()
    end_ns = look.at_ns + round(for_s * NS_PER_S)
    while True:
        tell(look, follower.note(look))
        if look.at_ns >= end_ns:
            return follower
        pause_s = every_s / look.rate if look.rate > 0 else LONGEST_PAUSE_S
        await asyncio.sleep(min(max(pause_s, SHORTEST_PAUSE_S), max(LONGEST_PAUSE_S, every_s)))
        look = await watch()
