"""A site as a process of its own: `python -m multiplane.assembly.site_process NAME < orders`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from multiplane.api.device import QkdDevice
from multiplane.api.instructions import QuantumDevice
from multiplane.api.operations import ProcessFigures
from multiplane.assembly import host
from multiplane.assembly.figures import process_figures
from multiplane.assembly.kek import kek_of
from multiplane.assembly.layout import entropy_for, faults_of, trust_of, wall_ns
from multiplane.assembly.site import HOST, Site, SiteParts, identify
from multiplane.assembly.state import STORE_FILE, other_kek
from multiplane.assembly.tasks import Tasks
from multiplane.assembly.uplink import (
    REFUSED,
    SERVICE,
    Refusal,
    SiteOrders,
    SiteProbe,
    Uplink,
    UplinkBus,
)
from multiplane.fabric.planes import NodeControl, RepeaterControl
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import controller_urn, element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channels, Faults, Store, Timeline
from multiplane.runtime.channel_tls import TlsChannels
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import remote, serve
from multiplane.runtime.entropy import next_boot_epoch
from multiplane.runtime.logs import set_up_logs
from multiplane.runtime.pki import Credentials
from multiplane.runtime.session import Session
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.runtime.trust import Trust, keep_looking
from multiplane.security.sealing import Vault, derive
from multiplane.service.planes import KmeControl, ServiceControl
from multiplane.service.planes.units import UnitBroker

LOST: Final = 3


async def run(orders: SiteOrders) -> int:
    """Run a site until it is told to stop (0) or the way to the parent is lost (3)."""
    caller = Caller(principal=element_urn(orders.domain, orders.site), domain=orders.domain)
    clock = PacedClock(orders.epoch_ns, orders.rate, orders.started_ns)
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    tasks = Tasks()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    _heed_signals(end, ended.done)
    timeline = Dispatcher(clock, lambda _: end(1))
    ticking = asyncio.ensure_future(timeline.run())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(tasks.close)
        stack.callback(ticking.cancel)
        faults = faults_of(orders.faults)
        store = SqliteStore(Path(orders.folder) / STORE_FILE, faults, witness=Path(orders.witness))
        stack.callback(store.close)
        boot = await next_boot_epoch(store, caller.principal)
        trust, channels = _trusted_channels(orders, timeline, faults)
        stack.push_async_callback(channels.close)
        tasks.spawn(keep_looking([trust]))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, trust.look)
        await channels.listen(HOST, orders.channel_port)
        session = Session(await channels.open(caller, controller_urn(orders.domain), SERVICE, 0))
        session.on_closed(lambda _: end(LOST))
        uplink = remote(Uplink, session, "uplink")
        site = _site(
            orders,
            boot=boot,
            timeline=timeline,
            channels=channels,
            store=store,
            faults=faults,
            session=session,
        )
        serve(session, "node", NodeControl, site.agent)
        if site.repeater is not None:
            serve(session, "repeater", RepeaterControl, site.repeater)
        if site.key_manager is not None:
            serve(session, "kme", KmeControl, site.key_manager)
        serve(session, "probe", SiteProbe, _Probe(site, timeline, store))
        stack.push_async_callback(site.close)
        stack.push_async_callback(site.drain, orders.grace_s)
        await site.start()
        url = ""
        if site.key_manager is not None:
            others = host.FD_PER_PEER * (len(orders.channel_ports) - 1)
            limits = host.server_limits(1, others, orders.http)
            url = await site.serve(trust, orders.api_port, wall_ns, lambda: orders.rate, limits)
        await uplink.serving(caller, url, os.getpid())
        return await ended


def _trusted_channels(orders: SiteOrders, timeline: Timeline, faults: Faults) -> tuple[Trust, TlsChannels]:
    """Channels that show and trust what lies in the files now, and what lies there later."""
    mine = Credentials(
        principal=element_urn(orders.domain, orders.site),
        certificate=Path(orders.certificate),
        key=Path(orders.key),
    )
    trust = trust_of(Path(orders.authority), mine)
    who = identify(orders.domain, trust)
    channels = TlsChannels(
        timeline,
        trust.server,
        trust.client,
        identify=lambda der: who(der)[0],
        resolve=_book(orders),
        faults=faults,
    )
    trust.on_change.append(lambda: channels.renew(trust.server, trust.client))
    return trust, channels


def _heed_signals(end: Callable[[int], None], ending: Callable[[], bool]) -> None:
    """SIGTERM stops with grace for requests under way, again without; SIGINT is the parent's to handle."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None

    def told_to_stop() -> None:
        if ending():
            me.cancel()
        end(0)

    loop.add_signal_handler(signal.SIGTERM, told_to_stop)
    loop.add_signal_handler(signal.SIGINT, lambda: None)


class _Probe:
    """Implements `uplink.SiteProbe`."""

    def __init__(self, site: Site, timeline: Dispatcher, store: SqliteStore) -> None:
        self._site, self._timeline, self._store = site, timeline, store

    async def figures(self, caller: Caller) -> ProcessFigures:
        del caller
        return process_figures(self._site.parts.site, self._timeline, self._store, self._site.listeners())


def _site(
    orders: SiteOrders,
    *,
    boot: int,
    timeline: Timeline,
    channels: Channels,
    store: Store,
    faults: Faults,
    session: Session,
) -> Site:
    """The elements of the site; what they need of the centre they reach through the session."""
    caller = Caller(principal=element_urn(orders.domain, orders.site), domain=orders.domain)
    return Site(
        SiteParts(
            domain=orders.domain,
            site=orders.site,
            applications=orders.applications,
            boot=boot,
            timeline=timeline,
            channels=channels,
            bus=UplinkBus(remote(Uplink, session, "uplink"), caller),
            store=store,
            entropy=entropy_for(caller.principal, boot, orders.seed),
            vault=Vault(derive(kek_of(Path(orders.state), orders.kek_command, make=False), caller.principal)),
            faults=faults,
            device=remote(QkdDevice, session, "device"),
            quantum=remote(QuantumDevice, session, "quantum"),
            control=remote(ServiceControl, session, "service"),
            broker=remote(UnitBroker, session, "broker"),
            rules=orders.rules,
            policy=orders.policy,
            face=orders.face,
            pid=os.getpid(),
            access_log=orders.access_log,
            feeds=orders.feeds,
            memories=orders.memories,
        )
    )


def _book(orders: SiteOrders) -> Callable[[str], tuple[str, int]]:
    """Where the elements of the network listen."""
    ports = {element_urn(orders.domain, site): port for site, port in orders.channel_ports.items()} | {
        controller_urn(orders.domain): orders.parent_port
    }
    return lambda urn: (HOST, ports[urn])


def main() -> int:
    """Read orders from standard input and run."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=SiteOrders)
    set_up_logs(style=orders.log, level=orders.log_level)
    try:
        return asyncio.run(run(orders))
    except asyncio.CancelledError:  # told twice to stop
        return 0
    except MultiplaneError as error:
        told = other_kek(Path(orders.state)) if error.code == "seal.broken" else error
        sys.stdout.buffer.write(msgspec.json.encode(Refusal(code=told.code, reason=told.reason)))
        return REFUSED


if __name__ == "__main__":
    sys.exit(main())
