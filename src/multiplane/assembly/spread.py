"""One process per site on one host, and one for the control of units where there are memories.

The parent runs the twin, the other controllers and the bus.

Each process has one mutual-TLS connection to the parent that carries doors, bus subjects and device
sessions; sites speak to each other over mutual TLS. The parent starts a process again when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from multiplane.api.device import QkdDevice
from multiplane.api.instructions import QuantumDevice
from multiplane.api.operations import ProcessFigures
from multiplane.assembly.centre import BULK, Centre
from multiplane.assembly.feeds.settings import ends_at
from multiplane.assembly.figures import process_figures
from multiplane.assembly.layout import (
    CENTRE,
    TWIN_OWNER,
    Ground,
    applications_by_site,
    fault_script,
    memory_sites,
    ready_of,
    rules_of,
    tell_put_back,
    trust_of,
    twin_seed,
)
from multiplane.assembly.ready import Ready
from multiplane.assembly.site import HOST, identify
from multiplane.assembly.state import NETWORK, STORE_FILE
from multiplane.assembly.unit_control_process import UNIT_CONTROL
from multiplane.assembly.unit_relay import UnitRelay
from multiplane.assembly.uplink import (
    CONTROL,
    REFUSED,
    SERVICE,
    ChildOrders,
    ControlOrders,
    Refusal,
    SiteOrders,
    SiteProbe,
    Uplink,
)
from multiplane.fabric.planes import NodeControl, RepeaterControl
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused
from multiplane.kernel.names import element_urn, site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel
from multiplane.runtime.channel_tls import TlsChannels
from multiplane.runtime.doors import remote, serve
from multiplane.runtime.entropy import next_boot_epoch
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.pki import Credentials
from multiplane.runtime.session import Session
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.runtime.trust import Trust
from multiplane.service.planes import KmeControl, ServiceControl
from multiplane.service.planes.units import UnitBroker
from multiplane.twin.scenario import World

MOST_SITES: Final = 50
"""So many processes one host can be expected to bear."""
START_S: Final = 30.0
START_EACH_S: Final = 1.0
AGAIN_S: Final = (0.1, 5.0)
STEADY_S: Final = 10.0
END_S: Final = 5.0
PROBE_S: Final = 2.0


def check_spread(world: World) -> None:
    """Raises: Refused(`settings.spread`) when a world has more sites than one host bears processes."""
    if len(world.sites) > MOST_SITES:
        raise Refused(
            "settings.spread",
            f"--spread: {world.name} has {len(world.sites)} sites, expected at most {MOST_SITES} processes: "
            "leave --spread away to run all in one process",
        )


class ChildProcess:
    """A process as its parent sees it: it is there while `session` is. `module` is what it runs."""

    module = "multiplane.assembly.unit_control_process"

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: asyncio.subprocess.Process | None = None
        self.session: Session | None = None
        self.probe: SiteProbe | None = None
        self.serving = asyncio.Event()


class SiteProcess(ChildProcess):
    """That of a site."""

    module = "multiplane.assembly.site_process"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.node: NodeControl | None = None
        self.repeater: RepeaterControl | None = None
        self.kme: KmeControl | None = None
        self.url = ""
        self.pid = 0


class Spread:
    """The layout of `multiplane up --spread per-node`; `ready_again` is told whenever a site came back."""

    def __init__(self, ground: Ground, ready_again: Callable[[Ready], None]) -> None:
        self._ground, self._ready_again = ground, ready_again
        state = ground.state
        self._store = SqliteStore(state.path / STORE_FILE, NoFaults(), witness=state.witness(NETWORK))
        tell_put_back(ground, self._store.put_back)
        self._sites = {place.name: SiteProcess(place.name) for place in ground.world.sites}
        self._applications = applications_by_site(ground.world)
        self._memory_sites = memory_sites(ground.world)
        self._unit_control = ChildProcess(UNIT_CONTROL) if self._memory_sites else None
        self._children: list[ChildProcess] = [*self._sites.values()]
        if self._unit_control is not None:
            self._children.append(self._unit_control)
        self._orders: dict[str, ChildOrders] = {}
        self.trusts: list[Trust] = []
        self._closing = False
        self._complete = False
        self._refused: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self.centre: Centre
        self.ready: Ready

    # --- start and stop ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring all up; returns when every key manager serves."""
        ground, settings = self._ground, self._ground.settings
        boot = await next_boot_epoch(self._store, TWIN_OWNER)
        seed = twin_seed(settings.seed)
        self.centre = Centre(
            ground.world,
            ground.timeline,
            ground.bus,
            seed=seed,
            boot=boot,
            nodes=self._node,
            repeaters=self._repeater,
            direct=BULK,
            policies=ground.policies,
            apart=self._unit_control is not None,
        )
        await self.centre.start()
        port = await self._listen()
        self._write_orders(port)
        for child in self._children:
            ground.spawn(self._supervise(child))
        await self._all_serve()
        self._complete = True
        self.ready = self._ready_now()

    async def _all_serve(self) -> None:
        limit_s = START_S + START_EACH_S * len(self._children)
        serving = asyncio.gather(*(child.serving.wait() for child in self._children))
        either: tuple[asyncio.Future[Any], ...] = (serving, self._refused)
        try:
            await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                return
        finally:  # told to stop meanwhile, too
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        if self._refused.done():
            refusal = self._refused.result()
            raise Refused(refusal.code, refusal.reason)
        missing = [child.name for child in self._children if not child.serving.is_set()]
        raise Faulty("network.start", f"processes {missing}: expected to serve within {limit_s:g} s")

    async def _listen(self) -> int:
        ground = self._ground
        mine = ground.pki.controller
        trust = trust_of(ground.pki.authority, mine)
        self.trusts.append(trust)
        who = identify(ground.world.domain, trust)
        self._channels = channels = TlsChannels(
            ground.timeline,
            trust.server,
            trust.client,
            identify=lambda der: who(der)[0],
            resolve=_nobody,
            faults=NoFaults(),
        )
        trust.on_change.append(lambda: channels.renew(trust.server, trust.client))
        self._channels.accept(self.centre.caller.principal, SERVICE, self._joined)
        self._channels.accept(self.centre.caller.principal, CONTROL, self._control_joined)
        return await self._channels.listen(HOST, 0)

    def _write_orders(self, parent_port: int) -> None:
        ground, settings = self._ground, self._ground.settings
        names = list(self._sites)
        served = [name for name in names if self._applications[name]]
        ports = ground.state.ports(
            [f"{name}/014" for name in served] + [f"{name}/channels" for name in names], settings.port_base
        )
        channel_ports = {name: ports[f"{name}/channels"] for name in names}
        for name in names:
            self._orders[name] = SiteOrders(
                **self._common(ground.pki.kmes[name], parent_port),
                site=name,
                applications=self._applications[name],
                folder=str(ground.state.site_folder(name)),
                witness=str(ground.state.witness(name)),
                kek_command=settings.kek_command,
                channel_port=channel_ports[name],
                api_port=ports.get(f"{name}/014", 0),
                channel_ports=channel_ports,
                seed=settings.seed,
                rules=rules_of(settings),
                unit_rules=settings.units,
                policy=settings.pairing,
                face=settings.etsi014,
                faults=fault_script(name),
                grace_s=settings.grace_s,
                access_log=settings.access_log,
                feeds=ends_at(settings.feeds, name),
                http=settings.http,
                memories=name in self._memory_sites,
            )
        if self._unit_control is not None:
            self._orders[UNIT_CONTROL] = ControlOrders(
                **self._common(ground.pki.controller, parent_port),
                planning=ground.world.entanglement.planning,
                plugins=tuple(str(path.resolve()) for path in settings.plugins),
                sites=tuple(names),
                memories=tuple(sorted(self._memory_sites)),
                unit_rules=settings.units,
            )

    def _common(self, mine: Credentials, parent_port: int) -> dict[str, Any]:
        """What all processes are told."""
        ground, settings = self._ground, self._ground.settings
        return {
            "domain": ground.world.domain,
            "state": str(ground.state.path),
            "authority": str(ground.pki.authority),
            "certificate": str(mine.certificate),
            "key": str(mine.key),
            "parent_port": parent_port,
            "epoch_ns": ground.clock.epoch_ns,
            "started_ns": ground.clock.started_ns,
            "rate": ground.clock.rate,
            "log": settings.log,
            "log_level": settings.log_level,
        }

    def hang_up(self) -> None:
        """Let every process look at its certificates now."""
        for child in self._children:
            if child.session is not None and child.process is not None:  # before, it has no handler yet
                with contextlib.suppress(ProcessLookupError):
                    child.process.send_signal(signal.SIGHUP)

    async def close(self) -> None:
        """Stop the other processes, then the centre, then the store."""
        self._closing = True
        running = [child.process for child in self._children if child.process is not None]
        patience_s = self._ground.settings.grace_s + END_S
        try:
            await asyncio.gather(*(_end(process, patience_s) for process in running))
        except (
            asyncio.CancelledError
        ):  # told to stop a second time: the sites are, too, and drop their requests
            await asyncio.gather(*(_end(process, END_S) for process in running))
            raise
        finally:
            await self._close_centre()

    async def _close_centre(self) -> None:
        if hasattr(self, "_channels"):
            await self._channels.close()
        if hasattr(self, "centre"):
            await self.centre.close()
        self._store.close()

    # --- processes -----------------------------------------------------------------------------------------

    async def _supervise(self, child: ChildProcess) -> None:
        """Keep a process running; scripted faults strike its first life only."""
        again_s, orders = AGAIN_S[0], self._orders[child.name]
        loop = asyncio.get_running_loop()
        while not self._closing:
            begun_s = loop.time()
            child.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                child.module,
                child.name,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                process_group=0,  # the Ctrl-C of a terminal is for us alone
            )
            said, _ = await child.process.communicate(msgspec.json.encode(orders))
            code = child.process.returncode or 0
            if self._closing:
                return
            refusal = _refusal(child.name, said) if code == REFUSED else None
            if refusal is not None and not self._complete and not self._refused.done():
                self._refused.set_result(refusal)
                return
            why = refusal.reason if refusal is not None else _told(code)
            self._ground.say(f"{child.name}: its process ended ({why}), starting it again")
            orders = msgspec.structs.replace(orders, faults="")
            again_s = AGAIN_S[0] if loop.time() - begun_s > STEADY_S else min(2 * again_s, AGAIN_S[1])
            await asyncio.sleep(again_s)

    def _control_joined(self, channel: Channel) -> None:
        """The control of units has connected; its certificate is that of the controllers, as ours is."""
        control, relay = self._unit_control, self.centre.unit_control
        if (
            control is None
            or not isinstance(relay, UnitRelay)
            or channel.peer.principal != self.centre.caller.principal
        ):
            channel.close("not the control of units of this network")
            return
        session = control.session = Session(channel)
        control.probe = remote(SiteProbe, session, "probe")
        session.on_closed(lambda _: self._control_left(control, session))
        relay.attach(session, control.serving.set)

    def _control_left(self, control: ChildProcess, session: Session) -> None:
        if control.session is session:
            control.session = control.probe = None

    def _joined(self, channel: Channel) -> None:
        """A site process has connected."""
        site = self._sites.get(site_of(channel.peer.principal))
        if site is None or channel.peer.principal != element_urn(self._ground.world.domain, site.name):
            channel.close("not a site of this network")
            return
        session = Session(channel)
        serve(session, "device", QkdDevice, self.centre.device)
        serve(session, "quantum", QuantumDevice, self.centre.quantum)
        serve(session, "service", ServiceControl, self.centre.control)
        serve(session, "broker", UnitBroker, self.centre.broker)
        serve(session, "uplink", Uplink, self)
        site.session = session
        site.node = remote(NodeControl, session, "node")
        if site.name in self._memory_sites:
            site.repeater = remote(RepeaterControl, session, "repeater")
        site.kme = remote(KmeControl, session, "kme") if self._applications[site.name] else None
        site.probe = remote(SiteProbe, session, "probe")
        session.on_closed(lambda _: self._left(site, session))

    def _left(self, site: SiteProcess, session: Session) -> None:
        if site.session is session:
            site.session = site.node = site.repeater = site.kme = site.probe = None
            self.centre.site_left(site.name)

    # --- Uplink --------------------------------------------------------------------------------------------

    async def serving(self, caller: Caller, url: str, pid: int) -> None:
        """A site serves its applications: from now on it is part of the network."""
        site = self._sites[site_of(caller.principal)]
        site.url, site.pid = url, pid
        site.serving.set()
        self.centre.site_joined(site.name)
        if self._complete:
            self.ready = self._ready_now()
            self._ready_again(self.ready)

    def publish(self, caller: Caller, subject: str, message: bytes) -> None:
        """A site's message for the bus; a site speaks for itself only."""
        if f".{site_of(caller.principal)}." not in subject:
            raise Refused("bus.not_yours", f"subject {subject}: expected one of {caller.principal}")
        self._ground.bus.publish_encoded(subject, message)

    # --- views ---------------------------------------------------------------------------------------------

    def _ready_now(self) -> Ready:
        sites = self._sites.values()
        return ready_of(
            self._ground,
            {site.name: site.url for site in sites if site.url},
            {site.name: site.pid for site in sites},
        )

    def _node(self, site: str) -> NodeControl | None:
        return self._sites[site].node

    def _repeater(self, site: str) -> RepeaterControl | None:
        return self._sites[site].repeater if site in self._sites else None

    async def figures(self) -> tuple[ProcessFigures, ...]:
        """Figures of the parent and of the processes that answer."""
        mine = process_figures(CENTRE, self._ground.timeline, self._store, ())
        probes = [child.probe for child in self._children if child.probe is not None]
        theirs = await asyncio.gather(*(_asked(probe, self.centre.caller) for probe in probes))
        return (mine, *(figures for figures in theirs if figures is not None))

    def kmes(self) -> Mapping[str, KmeControl]:
        """The key managers that are there, by site."""
        return {name: site.kme for name, site in self._sites.items() if site.kme is not None}


async def _end(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """Tell a process to stop and wait for its end; kill it when it takes longer than `patience_s`."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _refusal(site: str, said: bytes) -> Refusal:
    """What a site said before it ended; whatever it was, it did not start."""
    try:
        refusal = msgspec.json.decode(said, type=Refusal)
    except msgspec.DecodeError:
        return Refusal(code="network.site", reason=f"{site}: its process did not start")
    return refusal


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


async def _asked(probe: SiteProbe, caller: Caller) -> ProcessFigures | None:
    try:
        async with asyncio.timeout(PROBE_S):
            return await probe.figures(caller)
    except (MultiplaneError, TimeoutError):
        return None


def _nobody(peer: str) -> tuple[str, int]:
    raise Busy("channel.unreachable", f"{peer}: the parent opens no channels")
