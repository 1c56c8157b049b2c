"""`multiplane up`: a network in the foreground, from a scenario to ready.json."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from multiplane.api.instructions import QuantumDesk
from multiplane.api.operations import TrafficFigures
from multiplane.api.operator import Operator
from multiplane.api.pace import Pace
from multiplane.api.scenario import Scenario
from multiplane.assembly import host
from multiplane.assembly.backing import Backing
from multiplane.assembly.control import OPERATOR_DOOR, PACE_DOOR, QUANTUM_DOOR, SCENARIO_DOOR, SOCKET_NAME
from multiplane.assembly.desk import OperatorDesk
from multiplane.assembly.embedded import Embedded
from multiplane.assembly.feeds.settings import check_feeds
from multiplane.assembly.feeds.world import MixedWorld
from multiplane.assembly.kek import kek_check, kek_of
from multiplane.assembly.layout import Ground, Layout, wall_ns
from multiplane.assembly.operations import OperationsListener
from multiplane.assembly.pacing import PaceDesk
from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.ready import Notice, Ready
from multiplane.assembly.settings import UpSettings, check_prefixes
from multiplane.assembly.spread import Spread, check_spread
from multiplane.assembly.state import StateDirectory, other_kek
from multiplane.assembly.tasks import Tasks
from multiplane.assembly.world_digest import world_digest
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.ports import Channel
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.control_socket import serve_control
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import serve, strict
from multiplane.runtime.garbage import built_to_stay
from multiplane.runtime.logs import set_up_logs
from multiplane.runtime.pki import ensure_pki
from multiplane.runtime.session import Session
from multiplane.runtime.trust import keep_looking, look_at_all
from multiplane.twin.quantum.devices import STATE_MODELS
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World, load_shipped, parse, shipped

NOTE_TIME_S: Final = 5.0
_NS_PER_S: Final = 1_000_000_000
_log: Final = structlog.get_logger("multiplane.assembly.up")


def load_world(scenario: str, policies: Policies = POLICIES) -> World:
    """The world in a file, or the one that ships under a name.

    Args: policies: what names of models and handshakes stand for.
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
    return parse(text, scenario, policies=policies)


def in_state_model(world: World, model: str | None) -> World:
    """The same world with states of its quantum devices kept in another way; None leaves it as it is.

    Raises: Refused(`input.state_model`).
    """
    if model not in (None, *STATE_MODELS):
        expected = f"expected one of {', '.join(STATE_MODELS)}"
        raise Refused("input.state_model", f"state_model: got {model!r}, {expected}")
    if model is None or not world.entanglement.links:
        return world
    kept = msgspec.structs.replace(world.entanglement, state_model=model)
    return msgspec.structs.replace(world, entanglement=kept)


def open_scenario(scenario: str, plugins: Sequence[str | Path], model: str | None) -> tuple[World, Policies]:
    """The world of a scenario whose words may be those of plug-ins, and what they stand for."""
    policies = load_plugins(plugins).policies
    return in_state_model(load_world(scenario, policies), model), policies


def _world_of(settings: UpSettings, policies: Policies) -> World:
    """The world of a scenario, and whether these settings fit it."""
    world = load_world(settings.scenario, policies)
    check_feeds(settings.feeds, [span.id for span in world.spans], settings.rate)
    check_prefixes(settings.prefixes, world)
    if settings.traffic and not world.traffic:
        reason = f"traffic: scenario {world.name} has none, expected [[traffic]] in it"
        raise Refused("input.traffic", reason)
    if settings.spread:
        check_spread(world)
    return world


async def run_up(
    settings: UpSettings, on_event: Callable[[str], None], on_ready: Callable[[Ready], None]
) -> int:
    """Run a network until it is told to stop; 0 after a clean stop.

    Cancelled once it stops with grace: not ready at once, no new requests, those under way end within
    `settings.grace_s` at most, accounts exact. Cancelled again it drops requests; accounts are exact still.

    Args:
        on_event: told what happens, one line each.
        on_ready: told when every key manager serves, and again when a site has come back.
    """
    policies = load_plugins(settings.plugins).policies
    world = _world_of(settings, policies)
    set_up_logs(style=settings.log, level=settings.log_level)
    state = StateDirectory(settings.state, world.name, world_digest(world), spread=settings.spread)
    world = in_state_model(world, settings.state_model)  # one directory serves either
    kek = kek_of(state.path, settings.kek_command, make=not state.sealed)
    state.check_kek(kek_check(kek))
    state.remember_seed(settings.seed)
    # In one process nobody has to prove who he is but key managers and applications.
    sites = {place.name: place.saes for place in world.sites if place.saes or settings.spread}
    host.require(world, state.path, spread=settings.spread)
    pki = ensure_pki(state.path / "pki", world.domain, sites, wall_ns())
    clock = PacedClock(max(wall_ns(), state.latest_ns), settings.rate)
    tasks, stopping = Tasks(), asyncio.Event()
    failed: list[Exception] = []

    def give_up(error: Exception) -> None:
        failed.append(error)
        stopping.set()

    timeline = Dispatcher(clock, give_up, settings.pace)
    backing = Backing(world, settings.seed)
    ground = Ground(
        settings=settings,
        world=world,
        policies=backing.policies(policies),
        state=state,
        pki=pki,
        kek=kek,
        clock=clock,
        timeline=timeline,
        bus=MemoryBus(),
        say=on_event,
        spawn=tasks.spawn,
    )

    notice = Notice(state.path, on_ready)
    layout = Spread(ground, notice.tell) if settings.spread else Embedded(ground)
    ticking = asyncio.ensure_future(timeline.run())
    try:
        async with contextlib.AsyncExitStack() as stack:
            await _bring_up(stack, ground, layout, notice, stopping.set)
            tasks.spawn(_note_time(state, clock))
            tasks.spawn(keep_looking(layout.trusts))
            _heed_hang_up(stack, layout, tasks)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.for_s):
                    await stopping.wait()
    finally:
        notice.withdraw()
        await _let_go(ticking, tasks, backing)
        _note(state, clock.now_ns())  # exact now: quick starts one after the other do not add up the lead
        if notice.operations is not None:  # it had been ready
            _log.info("network.stopped", domain=world.domain)
    if failed:
        raise _end_of(failed[0])
    return 0


async def _let_go(ticking: asyncio.Future[None], tasks: Tasks, backing: Backing) -> None:
    ticking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticking
    await tasks.close()
    await backing.close()


def _end_of(error: Exception) -> Faulty:
    """Why the network ended: by the lateness policy or a plug-in in its own words, else by a defect."""
    if isinstance(error, Faulty) and error.code in ("pace.late", "plugin.failed"):
        return error
    return Faulty("network.failed", f"the dispatcher stopped: {type(error).__name__}")


async def _bring_up(
    stack: contextlib.AsyncExitStack,
    ground: Ground,
    layout: Embedded | Spread,
    notice: Notice,
    stop: Callable[[], None],
) -> None:
    """Start all; what `stack` undoes begins with being no longer ready and ends with the probes."""
    listener = OperationsListener(ground, layout.trusts)
    stack.push_async_callback(listener.close)
    stack.push_async_callback(layout.close)
    with built_to_stay():
        await _start(layout, ground)
    desk = await _open_desk(stack, ground, layout, stop)
    notice.operations = await listener.start(desk)

    def be_unready() -> None:
        _log.info("network.stopping", domain=ground.world.domain)
        desk.stopping = True
        notice.withdraw()

    stack.callback(be_unready)
    notice.tell(layout.ready)
    if ground.settings.traffic:
        desk.traffic = _ask(stack, ground, layout)
    _log.info("network.ready", domain=ground.world.domain, operations=notice.operations.url)


def _ask(
    stack: contextlib.AsyncExitStack, ground: Ground, layout: Embedded | Spread
) -> Callable[[], TrafficFigures]:
    """Let the applications of the scenario ask until the network stops; tells what came of it."""
    from multiplane.assembly.traffic import Traffic  # noqa: PLC0415 (an HTTPS client that few networks need)

    traffic = Traffic(ground, layout.centre, layout.ready)
    stack.push_async_callback(traffic.close)
    return traffic.figures


async def _start(layout: Embedded | Spread, ground: Ground) -> None:
    """Bring all up; once every store has opened, its key-encryption key is the one of the directory."""
    try:
        await layout.start()
    except Faulty as error:
        raise other_kek(ground.state.path) if error.code == "seal.broken" else error from None
    ground.state.remember_kek(kek_check(ground.kek))


async def _open_desk(
    stack: contextlib.AsyncExitStack, ground: Ground, layout: Embedded | Spread, stop: Callable[[], None]
) -> OperatorDesk:
    """Serve the operator's door and the scenario's door on the control socket."""
    centre = layout.centre
    desk = OperatorDesk(
        centre,
        ground.clock,
        layout.kmes,
        figures=layout.figures,
        behind_s=ground.timeline.behind_s,
        secret=not ground.state.seeded,
        stop=stop,
    )
    pace = strict(Pace, _pace_desk(ground), centre.tap)
    fed = [feed.link for feed in ground.settings.feeds]
    world = MixedWorld(centre.twin.scenario, fed, centre.fabric.links)
    scenario = strict(Scenario, world, centre.tap)

    def accept(channel: Channel) -> None:
        session = Session(channel)
        serve(session, OPERATOR_DOOR, Operator, desk)
        serve(session, SCENARIO_DOOR, Scenario, scenario)
        serve(session, PACE_DOOR, Pace, pace)
        quantum = centre.topics.desk()
        serve(session, QUANTUM_DOOR, QuantumDesk, quantum, centre.tap)
        session.on_closed(lambda _: quantum.close())

    server = await serve_control(ground.state.path / SOCKET_NAME, accept, ground.world.domain)
    stack.push_async_callback(server.close)
    return desk


def _pace_desk(ground: Ground) -> PaceDesk:
    """Whoever runs faster notes first how far time may get before the next note."""
    return PaceDesk(
        ground.world.domain,
        ground.clock,
        ground.timeline,
        ground.bus,
        alone=not ground.settings.spread,
        faster=lambda rate: _note(ground.state, ground.clock.now_ns() + _lead_ns(rate)),
    )


def _heed_hang_up(stack: contextlib.AsyncExitStack, layout: Layout, tasks: Tasks) -> None:
    """On SIGHUP look at certificates now; with a terminal it means that the terminal is gone, and ends us."""
    if sys.stdout.isatty():
        return

    def look() -> None:
        layout.hang_up()
        tasks.spawn(look_at_all(layout.trusts))

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, look)
    stack.callback(loop.remove_signal_handler, signal.SIGHUP)


async def _note_time(state: StateDirectory, clock: PacedClock) -> None:
    """Keep a mark that the network's time has not reached yet: even after a kill it never goes back."""
    while True:
        _note(state, clock.now_ns() + _lead_ns(clock.rate))
        await asyncio.sleep(NOTE_TIME_S)


def _lead_ns(rate: float) -> int:
    return round(2 * NOTE_TIME_S * rate * _NS_PER_S)


def _note(state: StateDirectory, now_ns: int) -> None:
    try:
        state.remember_time(now_ns)
    except Refused as error:  # a full disk: the next note may succeed
        _log.warning("state.time_not_noted", reason=error.reason)
