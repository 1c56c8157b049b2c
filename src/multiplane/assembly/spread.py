"""One process per site on one host: the parent runs the twin, the controllers and the bus.

Each site process has one mutual-TLS connection to the parent that carries doors, bus subjects and device
sessions; sites speak to each other over mutual TLS. The parent starts a site again when its process ends.
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
from multiplane.assembly.centre import Centre
from multiplane.assembly.layout import (
    TWIN_OWNER,
    Ground,
    applications_of,
    fault_script,
    ready_of,
    rules_of,
    tell_put_back,
    twin_seed,
)
from multiplane.assembly.ready import Ready
from multiplane.assembly.site import HOST, identify
from multiplane.assembly.state import NETWORK, STORE_FILE
from multiplane.assembly.uplink import REFUSED, SERVICE, Refusal, SiteOrders, Uplink
from multiplane.fabric.planes import NodeControl
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.names import element_urn, site_of
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel
from multiplane.runtime.channel_tls import TlsChannels
from multiplane.runtime.doors import remote, serve
from multiplane.runtime.entropy import next_boot_epoch
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.pki import client_context, server_context
from multiplane.runtime.session import Session
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.service.planes import KmeControl, ServiceControl

START_S: Final = 30.0
AGAIN_S: Final = (0.1, 5.0)
STEADY_S: Final = 10.0


class SiteProcess:
    """A site's process as the parent sees it: it is there while `session` is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: asyncio.subprocess.Process | None = None
        self.session: Session | None = None
        self.node: NodeControl | None = None
        self.kme: KmeControl | None = None
        self.url = ""
        self.pid = 0
        self.serving = asyncio.Event()


class Spread:
    """The layout of `multiplane up --spread per-node`; `ready_again` is told whenever a site came back."""

    def __init__(self, ground: Ground, ready_again: Callable[[Ready], None]) -> None:
        self._ground, self._ready_again = ground, ready_again
        state = ground.state
        self._store = SqliteStore(state.path / STORE_FILE, NoFaults(), witness=state.witness(NETWORK))
        tell_put_back(ground, self._store.put_back)
        self._sites = {place.name: SiteProcess(place.name) for place in ground.world.sites}
        self._orders: dict[str, SiteOrders] = {}
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
            ground.world, ground.timeline, ground.bus, seed=seed, boot=boot, nodes=self._node
        )
        await self.centre.start()
        port = await self._listen()
        self._write_orders(port)
        for site in self._sites.values():
            ground.spawn(self._supervise(site))
        await self._all_serve()
        self._complete = True
        self.ready = self._ready_now()

    async def _all_serve(self) -> None:
        serving = asyncio.gather(*(site.serving.wait() for site in self._sites.values()))
        either: tuple[asyncio.Future[Any], ...] = (serving, self._refused)
        await asyncio.wait(either, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            return
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        if self._refused.done():
            refusal = self._refused.result()
            raise Refused(refusal.code, refusal.reason)
        missing = [name for name, site in self._sites.items() if not site.serving.is_set()]
        raise Faulty("network.start", f"sites {missing}: expected to serve within {START_S} s")

    async def _listen(self) -> int:
        ground = self._ground
        mine = ground.pki.controller
        server = server_context(mine.certificate, mine.key, ground.pki.authority)
        client = client_context(mine.certificate, mine.key, ground.pki.authority)
        self._channels = TlsChannels(
            ground.timeline,
            server,
            client,
            identify=lambda der: identify(ground.world.domain)(der)[0],
            resolve=_nobody,
            faults=NoFaults(),
        )
        self._channels.accept(self.centre.caller.principal, SERVICE, self._joined)
        return await self._channels.listen(HOST, 0)

    def _write_orders(self, parent_port: int) -> None:
        ground, settings = self._ground, self._ground.settings
        names = list(self._sites)
        ports = ground.state.ports(
            [f"{name}/014" for name in names] + [f"{name}/channels" for name in names], settings.port_base
        )
        channel_ports = {name: ports[f"{name}/channels"] for name in names}
        for name in names:
            mine = ground.pki.kmes[name]
            self._orders[name] = SiteOrders(
                domain=ground.world.domain,
                site=name,
                applications=applications_of(ground.world, name),
                state=str(ground.state.path),
                folder=str(ground.state.site_folder(name)),
                witness=str(ground.state.witness(name)),
                kek_command=settings.kek_command,
                authority=str(ground.pki.authority),
                certificate=str(mine.certificate),
                key=str(mine.key),
                parent_port=parent_port,
                channel_port=channel_ports[name],
                api_port=ports[f"{name}/014"],
                channel_ports=channel_ports,
                epoch_ns=ground.clock.epoch_ns,
                started_ns=ground.clock.started_ns,
                rate=ground.clock.rate,
                seed=settings.seed,
                rules=rules_of(settings),
                policy=settings.pairing,
                faults=fault_script(name),
            )

    async def close(self) -> None:
        """Stop the sites, then the centre, then the store."""
        self._closing = True
        running = [site.process for site in self._sites.values() if site.process is not None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if hasattr(self, "_channels"):
            await self._channels.close()
        if hasattr(self, "centre"):
            await self.centre.close()
        self._store.close()

    # --- processes -----------------------------------------------------------------------------------------

    async def _supervise(self, site: SiteProcess) -> None:
        """Keep a site's process running; scripted faults strike its first life only."""
        again_s, orders = AGAIN_S[0], self._orders[site.name]
        loop = asyncio.get_running_loop()
        while not self._closing:
            begun_s = loop.time()
            site.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "multiplane.assembly.site_process",
                site.name,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await site.process.communicate(msgspec.json.encode(orders))
            code = site.process.returncode or 0
            if self._closing:
                return
            if code == REFUSED and not self._complete and not self._refused.done():
                self._refused.set_result(_refusal(site.name, said))
                return
            self._ground.say(f"{site.name}: its process ended ({_told(code)}), starting it again")
            orders = msgspec.structs.replace(orders, faults="")
            again_s = AGAIN_S[0] if loop.time() - begun_s > STEADY_S else min(2 * again_s, AGAIN_S[1])
            await asyncio.sleep(again_s)

    def _joined(self, channel: Channel) -> None:
        """A site process has connected."""
        site = self._sites.get(site_of(channel.peer.principal))
        if site is None or channel.peer.principal != element_urn(self._ground.world.domain, site.name):
            channel.close("not a site of this network")
            return
        session = Session(channel)
        serve(session, "device", QkdDevice, self.centre.device)
        serve(session, "service", ServiceControl, self.centre.control)
        serve(session, "uplink", Uplink, self)
        site.session = session
        site.node = remote(NodeControl, session, "node")
        site.kme = remote(KmeControl, session, "kme")
        session.on_closed(lambda _: self._left(site, session))

    def _left(self, site: SiteProcess, session: Session) -> None:
        if site.session is session:
            site.session = site.node = site.kme = None
            self.centre.twin.site_lost(site.name)

    # --- Uplink --------------------------------------------------------------------------------------------

    async def serving(self, caller: Caller, url: str, pid: int) -> None:
        """A site serves its applications: from now on it is part of the network."""
        site = self._sites[site_of(caller.principal)]
        site.url, site.pid = url, pid
        site.serving.set()
        self.centre.fabric.node_joined(site.name)
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
            self._ground, {site.name: site.url for site in sites}, {site.name: site.pid for site in sites}
        )

    def _node(self, site: str) -> NodeControl | None:
        return self._sites[site].node

    def kmes(self) -> Mapping[str, KmeControl]:
        """The key managers that are there, by site."""
        return {name: site.kme for name, site in self._sites.items() if site.kme is not None}


def _refusal(site: str, said: bytes) -> Refusal:
    """What a site said before it ended; whatever it was, it did not start."""
    try:
        refusal = msgspec.json.decode(said, type=Refusal)
    except msgspec.DecodeError:
        return Refusal(code="network.site", reason=f"{site}: its process did not start")
    return refusal


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _nobody(peer: str) -> tuple[str, int]:
    raise Busy("channel.unreachable", f"{peer}: the parent opens no channels")
