"""One site: its fabric agent, its key manager, the server of its applications. The same in every layout."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from multiplane.api.device import QkdDevice
from multiplane.api.service_fabric import FabricNode
from multiplane.assembly.peers import Peers
from multiplane.assembly.tasks import Tasks
from multiplane.fabric.greeting import ReservePorts
from multiplane.fabric.node import FabricAgent
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Channels, Entropy, Faults, Store, Timeline
from multiplane.kernel.quantity import NS_PER_S
from multiplane.runtime.doors import Tap, strict
from multiplane.runtime.http import HttpServer
from multiplane.security.identity import peer_of
from multiplane.security.policy import PairingPolicy
from multiplane.security.sealing import Vault
from multiplane.service.control import Directory
from multiplane.service.kme import Kme
from multiplane.service.kme.ports import KmePorts
from multiplane.service.planes import Application, KeyRules, KmeEntry, Register, ServiceControl
from multiplane.service.telemetry import Counters
from multiplane.standards import etsi014

HOST: Final = "127.0.0.1"


@dataclass(slots=True, kw_only=True)
class SiteParts:
    """What a site is made of: ports and doors that the layout provides."""

    domain: str
    site: str
    applications: tuple[Application, ...]
    boot: int
    timeline: Timeline
    channels: Channels
    bus: Bus
    store: Store
    entropy: Entropy
    vault: Vault
    faults: Faults
    device: QkdDevice
    control: ServiceControl
    rules: KeyRules
    policy: PairingPolicy
    tap: Tap | None = None
    pid: int = 0


class Site:
    """The elements of one site, wired."""

    def __init__(self, parts: SiteParts) -> None:
        self.parts = parts
        self.tasks = Tasks()
        urn = element_urn(parts.domain, parts.site)
        self.caller = Caller(principal=urn, domain=parts.domain)
        self.agent = FabricAgent(
            self.caller,
            parts.site,
            parts.timeline,
            parts.device,
            parts.channels,
            bus=parts.bus,
            faults=parts.faults,
            reserve=ReservePorts(store=parts.store, vault=parts.vault, entropy=parts.entropy),
        )
        peers = Peers(self.caller, parts.site, parts.channels)
        ports = KmePorts(
            caller=self.caller,
            site=parts.site,
            boot=parts.boot,
            rules=parts.rules,
            policy=parts.policy,
            timeline=parts.timeline,
            store=parts.store,
            entropy=parts.entropy,
            vault=parts.vault,
            bus=parts.bus,
            fabric=strict(FabricNode, self.agent, parts.tap),
            control=parts.control,
            peers=peers,
            faults=parts.faults,
            counters=Counters(),
            directory=Directory(Register(version=0, kmes=())),
            spawn=self.tasks.spawn,
        )
        entry = KmeEntry(urn=urn, site=parts.site, applications=parts.applications)
        self.kme = Kme(ports, entry, parts.pid)
        peers.serve(self.kme)
        self._http: HttpServer | None = None

    async def start(self) -> None:
        """Begin to relay, and to manage keys."""
        await self.agent.start()
        await self.kme.start()

    async def serve(self, tls: ssl.SSLContext, port: int, wall_ns: Callable[[], int], rate: float) -> str:
        """Open the server of ETSI GS QKD 014 and return its URL.

        Args:
            rate: simulated seconds per wall second, in which Retry-After is told.

        Raises: Refused(`port.in_use`).
        """
        routes = etsi014.routes(self.kme, lambda retry_ns: retry_ns / NS_PER_S / rate)
        server = HttpServer(routes, tls, identify(self.parts.domain), wall_ns, faults=self.parts.faults)
        try:
            bound = await server.start(HOST, port)
        except OSError as error:
            raise Refused(
                "port.in_use",
                f"port {port} of {self.parts.site}: {error.strerror or error}: "
                "free it, name another --port-base, or delete network.json of the state directory",
            ) from error
        self._http = server
        return f"https://{HOST}:{bound}"

    async def close(self, grace_s: float = 2.0) -> None:
        """Finish requests, leave exact accounts, end."""
        if self._http is not None:
            await self._http.stop(grace_s)
        await self.kme.close()
        await self.agent.close()
        await self.tasks.close()


def identify(domain: str) -> Callable[[bytes], tuple[Caller, int]]:
    """Who a certificate names, and until when it holds (Unix nanoseconds)."""

    def of(certificate: bytes) -> tuple[Caller, int]:
        peer = peer_of(certificate)
        return Caller(principal=peer.principal, domain=domain), peer.not_after_ns

    return of
