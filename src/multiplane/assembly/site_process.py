"""A site as a process of its own: `python -m multiplane.assembly.site_process NAME < orders`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import Final

from multiplane.api.device import QkdDevice
from multiplane.api.instructions import QuantumDevice
from multiplane.api.operations import ProcessFigures
from multiplane.assembly import host
from multiplane.assembly.child import Life, living, main
from multiplane.assembly.figures import process_figures
from multiplane.assembly.kek import kek_of
from multiplane.assembly.layout import entropy_for, faults_of, wall_ns
from multiplane.assembly.site import HOST, Site, SiteParts
from multiplane.assembly.state import STORE_FILE
from multiplane.assembly.uplink import (
    SERVICE,
    SiteOrders,
    SiteProbe,
    Uplink,
    UplinkBus,
)
from multiplane.fabric.planes import NodeControl, RepeaterControl
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Faults, Store
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import remote, serve
from multiplane.runtime.entropy import next_boot_epoch
from multiplane.runtime.session import Session
from multiplane.runtime.store_sqlite import SqliteStore
from multiplane.security.sealing import Vault, derive
from multiplane.service.planes import KmeControl, ServiceControl
from multiplane.service.planes.units import UnitBroker

PORT_PATIENCE_S: Final = 8.0
"""Whoever has the port may be about to end, as processes do whose parent was killed."""


async def _listen(orders: SiteOrders, life: Life) -> None:
    """Take channels of other sites. Raises: Refused(`port.in_use`)."""
    due_s = time.monotonic() + PORT_PATIENCE_S
    while True:
        try:
            await life.channels.listen(HOST, orders.channel_port)
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > due_s:
                whose = f"the channels of {orders.site}"
                raise host.port_in_use(orders.channel_port, whose, error) from error
        await asyncio.sleep(0.2)


async def run(orders: SiteOrders) -> int:
    """Run a site until it is told to stop (0) or the way to the parent is lost (3)."""
    urn = element_urn(orders.domain, orders.site)
    ports = {element_urn(orders.domain, site): port for site, port in orders.channel_ports.items()}
    faults = faults_of(orders.faults)
    async with contextlib.AsyncExitStack() as stack:
        store = SqliteStore(Path(orders.folder) / STORE_FILE, faults, witness=Path(orders.witness))
        stack.callback(store.close)
        boot = await next_boot_epoch(store, urn)
        life = await stack.enter_async_context(living(orders, urn, faults, ports))
        await _listen(orders, life)
        session = await life.call_parent(SERVICE)
        uplink = remote(Uplink, session, "uplink")
        site = _site(orders, life, boot=boot, store=store, faults=faults, session=session)
        serve(session, "node", NodeControl, site.agent)
        if site.repeater is not None:
            serve(session, "repeater", RepeaterControl, site.repeater)
        if site.key_manager is not None:
            serve(session, "kme", KmeControl, site.key_manager)
        serve(session, "probe", SiteProbe, _Probe(site, life.timeline, store))
        stack.push_async_callback(site.close)
        stack.push_async_callback(site.drain, orders.grace_s)
        await site.start()
        url = ""
        if site.key_manager is not None:
            others = host.FD_PER_PEER * (len(orders.channel_ports) - 1)
            limits = host.server_limits(1, others, orders.http)
            url = await site.serve(life.trust, orders.api_port, wall_ns, lambda: orders.rate, limits)
        await uplink.serving(life.caller, url, os.getpid())
        return await life.ended


class _Probe:
    """Implements `uplink.SiteProbe`."""

    def __init__(self, site: Site, timeline: Dispatcher, store: SqliteStore) -> None:
        self._site, self._timeline, self._store = site, timeline, store

    async def figures(self, caller: Caller) -> ProcessFigures:
        del caller
        return process_figures(self._site.parts.site, self._timeline, self._store, self._site.listeners())


def _site(
    orders: SiteOrders, life: Life, *, boot: int, store: Store, faults: Faults, session: Session
) -> Site:
    """The elements of the site; what they need of the centre they reach through the session."""
    caller = life.caller
    return Site(
        SiteParts(
            domain=orders.domain,
            site=orders.site,
            applications=orders.applications,
            boot=boot,
            timeline=life.timeline,
            channels=life.channels,
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
            unit_rules=orders.unit_rules,
            policy=orders.policy,
            face=orders.face,
            pid=os.getpid(),
            access_log=orders.access_log,
            feeds=orders.feeds,
            memories=orders.memories,
        )
    )


if __name__ == "__main__":
    sys.exit(main(SiteOrders, run))
