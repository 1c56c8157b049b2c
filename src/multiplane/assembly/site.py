"""One site: its fabric agent, its key manager, the server of its applications. The same in every layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from multiplane.api.device import QkdDevice
from multiplane.api.fabric_units import FabricStates
from multiplane.api.instructions import QuantumDevice
from multiplane.api.north import North
from multiplane.api.operations import ListenerFigures
from multiplane.api.service_fabric import FabricNode
from multiplane.api.units import Units
from multiplane.api.wire.web import Route
from multiplane.assembly.feeds.device import Devices, FedDevices
from multiplane.assembly.feeds.ends import FeedPorts
from multiplane.assembly.feeds.settings import FeedEnd
from multiplane.assembly.host import port_in_use
from multiplane.assembly.peers import Peers
from multiplane.assembly.tasks import Tasks
from multiplane.assembly.unit_agents import UnitChannels, kinds
from multiplane.fabric.greeting import ReservePorts
from multiplane.fabric.node import FabricAgent
from multiplane.fabric.repeater import RepeaterAgent
from multiplane.fabric.resource.pools import ROOM_BYTE
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Channels, Entropy, Faults, Store, Timeline
from multiplane.kernel.quantity import NS_PER_S
from multiplane.runtime.doors import Tap, strict
from multiplane.runtime.http import HttpServer
from multiplane.runtime.http_access import Access
from multiplane.runtime.http_limits import Limits
from multiplane.runtime.trust import Trust
from multiplane.security.identity import peer_of
from multiplane.security.policy import PairingPolicy
from multiplane.security.sealing import Vault
from multiplane.service.agent import AgentPorts, ServiceAgent
from multiplane.service.control import Directory
from multiplane.service.kme import Kme
from multiplane.service.kme.ports import KmePorts
from multiplane.service.planes import Application, KeyRules, KmeEntry, Register, ServiceControl
from multiplane.service.planes.units import UnitBroker, UnitRules
from multiplane.service.telemetry import Counters
from multiplane.standards import etsi014, openapi
from multiplane.standards import units as units_table

HOST: Final = "127.0.0.1"


@dataclass(slots=True, kw_only=True)
class SiteParts:
    """What a site is made of: ports and doors that the layout provides.

    Args:
        applications: those it serves; without any it is a relay, which has a fabric agent and nothing else.
        boot: incarnation of the site.
        device, quantum: the doors of its QKD modules, and of its memories and links of pairs.
        memories: whether it has such links.
        broker: of units in its domain.
        feeds: its ends of links that another network feeds.
        pool_room_byte: key that each of its links holds at most.
    """

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
    quantum: QuantumDevice
    control: ServiceControl
    broker: UnitBroker
    rules: KeyRules
    policy: PairingPolicy
    face: etsi014.FaceProfile = field(default_factory=etsi014.FaceProfile)
    tap: Tap | None = None
    pid: int = 0
    access_log: bool = False
    feeds: tuple[FeedEnd, ...] = ()
    pool_room_byte: int = ROOM_BYTE
    memories: bool = False
    unit_rules: UnitRules = field(default_factory=UnitRules)


class Site:
    """The elements of one site, wired."""

    def __init__(self, parts: SiteParts) -> None:
        self.parts = parts
        self.tasks = Tasks()
        urn = element_urn(parts.domain, parts.site)
        self.caller = Caller(principal=urn, domain=parts.domain)
        self._fed = FedDevices(
            parts.feeds,
            FeedPorts(caller=self.caller, boot=parts.boot, timeline=parts.timeline, channels=parts.channels),
        )
        self.agent = FabricAgent(
            self.caller,
            parts.site,
            parts.timeline,
            self._devices(),
            parts.channels,
            bus=parts.bus,
            faults=parts.faults,
            pool_room_byte=parts.pool_room_byte,
            reserve=ReservePorts(store=parts.store, vault=parts.vault, entropy=parts.entropy),
        )
        self.repeater = self._repeater() if parts.memories else None
        self.key_manager = self._key_manager() if parts.applications else None
        self.units = self._unit_agent() if self.key_manager is not None else None
        self._http: HttpServer | None = None

    def _devices(self) -> QkdDevice:
        """The modules of this site, and in their place what feeds some of its links."""
        links = frozenset(end.link for end in self.parts.feeds)
        if not links:
            return self.parts.device
        return Devices(self.parts.device, strict(QkdDevice, self._fed, self.parts.tap), links)

    def _repeater(self) -> RepeaterAgent:
        parts = self.parts
        return RepeaterAgent(
            self.caller, parts.site, parts.timeline, parts.quantum, parts.channels, bus=parts.bus
        )

    def _unit_agent(self) -> ServiceAgent:
        """The agent for units, wherever there are applications."""
        parts, key_manager = self.parts, self.kme
        self._unit_channels = UnitChannels(self.caller, parts.channels, parts.tap)
        return ServiceAgent(
            AgentPorts(
                caller=self.caller,
                site=parts.site,
                boot=parts.boot,
                rules=parts.unit_rules,
                policy=parts.policy,
                kinds=kinds(),
                timeline=parts.timeline,
                store=parts.store,
                entropy=parts.entropy,
                broker=parts.broker,
                links=self._unit_channels,
                states=strict(FabricStates, self.repeater, parts.tap) if self.repeater is not None else None,
                keys=strict(North, key_manager, parts.tap),
                key_bit=key_manager.ports.rules.default_size_bit,
                directory=lambda: key_manager.ports.directory,
                counters=key_manager.ports.counters,
                faults=parts.faults,
                spawn=self.tasks.spawn,
            )
        )

    @property
    def kme(self) -> Kme:
        """The key manager; `key_manager` where there may be none."""
        assert self.key_manager is not None, f"{self.parts.site} is a relay"
        return self.key_manager

    def _key_manager(self) -> Kme:
        parts = self.parts
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
        entry = KmeEntry(urn=self.caller.principal, site=parts.site, applications=parts.applications)
        kme = Kme(ports, entry, parts.pid)
        peers.serve(kme)
        return kme

    async def start(self) -> None:
        """Begin to relay, and to manage keys where there are applications."""
        self._fed.listen()
        await self.agent.start()
        if self.repeater is not None:
            await self.repeater.start()
        if self.key_manager is not None:
            await self.key_manager.start()
        if self.units is not None:
            await self.units.start()
            self._unit_channels.serve(self.units)  # not before: it would know of no unit

    async def serve(
        self, trust: Trust, port: int, wall_ns: Callable[[], int], rate: Callable[[], float], limits: Limits
    ) -> str:
        """Open the server of ETSI GS QKD 014, and of units where there are any, and return its URL.

        Args:
            trust: whom it lets in; what changes there takes effect here.
            rate: simulated seconds per wall second, in which Retry-After is told.
            limits: what it takes from strangers.

        Raises: Refused(`port.in_use`).
        """
        server = HttpServer(
            self._routes(lambda retry_ns: retry_ns / NS_PER_S / rate()),
            trust.server,
            identify(self.parts.domain, trust),
            wall_ns,
            faults=self.parts.faults,
            limits=limits,
            access=Access(self.parts.site, log=self.parts.access_log),
        )
        try:
            bound = await server.start(HOST, port)
        except OSError as error:
            raise port_in_use(port, self.parts.site, error) from error
        self._http = server
        trust.on_change.append(lambda: server.renew(trust.server))
        return f"https://{HOST}:{bound}"

    def _routes(self, retry_after_s: Callable[[int], float]) -> tuple[Route, ...]:
        """Every table of this site, each with its description."""
        keys = etsi014.routes(self.kme, retry_after_s, self.parts.face)
        keys = (*keys, openapi.route("ETSI GS QKD 014", "1.1.1", keys))
        if self.units is None:
            return keys
        units = units_table.routes(strict(Units, self.units, self.parts.tap), retry_after_s)
        return (*keys, *units, openapi.route("Units", "1", units, f"{units_table.ROOT}/openapi.json"))

    def listeners(self) -> tuple[ListenerFigures, ...]:
        """Figures of the server of its applications, if it is open."""
        if self._http is None:
            return ()
        counts = self._http.statistics()
        return (
            ListenerFigures(
                site=self.parts.site,
                routes=self._http.access.figures(),
                open_connections=counts.open_connections,
                half_open=counts.half_open,
                dropped=counts.dropped,
                crowded_out=counts.crowded_out,
                failed_handshakes=counts.failed_handshakes,
                streams=counts.streams,
                units=Counter(live.state for live in self.units.core.units.values()) if self.units else {},
            ),
        )

    async def drain(self, grace_s: float) -> None:
        """Take no more requests and finish those under way, for `grace_s` at most; then cut."""
        if self._http is not None:
            await self._http.stop(grace_s)

    async def close(self) -> None:
        """Leave exact accounts, end. Requests must have been drained."""
        if self.units is not None:
            await self.units.close()
        if self.key_manager is not None:
            await self.key_manager.close()
        if self.repeater is not None:
            await self.repeater.close()
        await self._fed.close()
        await self.agent.close()
        await self.tasks.close()


def identify(domain: str, trust: Trust) -> Callable[[bytes], tuple[Caller, int]]:
    """Who a certificate names, unless it is revoked, and until when it holds (Unix nanoseconds)."""

    def of(certificate: bytes) -> tuple[Caller, int]:
        peer = peer_of(certificate)
        trust.check(peer)
        return Caller(principal=peer.principal, domain=domain), peer.not_after_ns

    return of
