"""`multiplane up`: a network in the foreground, from a scenario to ready.json."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from multiplane.api.operator import Operator
from multiplane.api.scenario import Scenario
from multiplane.assembly.control import OPERATOR_DOOR, SCENARIO_DOOR, SOCKET_NAME
from multiplane.assembly.desk import OperatorDesk
from multiplane.assembly.embedded import Embedded
from multiplane.assembly.layout import Ground, wall_ns
from multiplane.assembly.ready import FILE_NAME, Ready, write
from multiplane.assembly.settings import UpSettings
from multiplane.assembly.spread import Spread
from multiplane.assembly.state import StateDirectory
from multiplane.assembly.tasks import Tasks
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.ports import Channel
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.control_socket import serve_control
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import serve, strict
from multiplane.runtime.pki import ensure_pki
from multiplane.runtime.session import Session
from multiplane.twin.scenario import World, load_shipped, parse, shipped

NOTE_TIME_S: Final = 5.0
_NS_PER_S: Final = 1_000_000_000
_log: Final = structlog.get_logger("multiplane.assembly.up")


def load_world(scenario: str) -> World:
    """The world in a file, or the one that ships under a name.

    Raises: Refused(`scenario.invalid`, `scenario.unreadable`).
    """
    if scenario in shipped():
        return load_shipped(scenario)
    try:
        text = Path(scenario).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(shipped())
        reason = f"{scenario}: expected a readable scenario file or one of {known}: {error}"
        raise Refused("scenario.unreadable", reason) from error
    return parse(text, scenario)


async def run_up(
    settings: UpSettings, on_event: Callable[[str], None], on_ready: Callable[[Ready], None]
) -> int:
    """Run a network until it is told to stop; 0 after a clean stop.

    Args:
        on_event: told what happens, one line each.
        on_ready: told when every key manager serves, and again when a site has come back.
    """
    world = load_world(settings.scenario)
    state = StateDirectory(settings.state, world.name, msgspec.json.encode(world), spread=settings.spread)
    sites = {place.name: list(place.saes) for place in world.sites}
    pki = ensure_pki(state.path / "pki", world.domain, sites, wall_ns())
    clock = PacedClock(max(wall_ns(), state.latest_ns), settings.rate)
    tasks, stopping = Tasks(), asyncio.Event()
    failed: list[Exception] = []

    def give_up(error: Exception) -> None:
        failed.append(error)
        stopping.set()

    timeline = Dispatcher(clock, give_up)
    ground = Ground(
        settings=settings,
        world=world,
        state=state,
        pki=pki,
        clock=clock,
        timeline=timeline,
        bus=MemoryBus(),
        say=on_event,
        spawn=tasks.spawn,
    )

    def ready(now: Ready) -> None:
        write(state.path, now)
        on_ready(now)

    layout = Spread(ground, ready) if settings.spread else Embedded(ground)
    ticking = asyncio.ensure_future(timeline.run())
    try:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(layout.close)
            await layout.start()
            await _open_desk(stack, ground, layout, stopping.set)
            ready(layout.ready)
            tasks.spawn(_note_time(state, clock))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.for_s):
                    await stopping.wait()
    finally:
        (state.path / FILE_NAME).unlink(missing_ok=True)
        _note(state, clock.now_ns())
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
        await tasks.close()
    if failed:
        raise Faulty("network.failed", f"the dispatcher stopped: {type(failed[0]).__name__}")
    return 0


async def _open_desk(
    stack: contextlib.AsyncExitStack, ground: Ground, layout: Embedded | Spread, stop: Callable[[], None]
) -> None:
    """Serve the operator's door and the scenario's door on the control socket."""
    centre = layout.centre
    desk = OperatorDesk(centre, ground.clock, layout.kmes, secret=ground.settings.seed is None, stop=stop)
    scenario = strict(Scenario, centre.twin.scenario, centre.tap)

    def accept(channel: Channel) -> None:
        session = Session(channel)
        serve(session, OPERATOR_DOOR, Operator, desk)
        serve(session, SCENARIO_DOOR, Scenario, scenario)

    server = await serve_control(ground.state.path / SOCKET_NAME, accept, ground.world.domain)
    stack.push_async_callback(server.close)


async def _note_time(state: StateDirectory, clock: PacedClock) -> None:
    """Keep a mark that the network's time has not reached yet: even after a kill it never goes back."""
    lead_ns = round(2 * NOTE_TIME_S * clock.rate * _NS_PER_S)
    while True:
        _note(state, clock.now_ns() + lead_ns)
        await asyncio.sleep(NOTE_TIME_S)


def _note(state: StateDirectory, now_ns: int) -> None:
    try:
        state.remember_time(now_ns)
    except OSError as error:  # a full disk: the next note may succeed
        _log.warning("state.time_not_noted", error=type(error).__name__)
