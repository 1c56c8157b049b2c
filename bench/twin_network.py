"""A QKD network of any size without key managers: the real twin, the real agents and relays of all sites.

What a domain's controllers would say is said once at the start: every link is ordered over its own span, and
each relayed pair has a route in the tables. Doors to the modules are strict ones, as in operation.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from multiplane.api.device import QkdDevice
from multiplane.api.fabric_connectivity import QuantumPath
from multiplane.api.service_fabric import FabricNode, Parcel
from multiplane.assembly.centre import BULK
from multiplane.fabric.node import FabricAgent
from multiplane.fabric.planes import ForwardingTable, LinkOrder, LinkReport, SiteBeat
from multiplane.fabric.telemetry import LinkView
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import controller_urn, element_urn, link_id
from multiplane.kernel.nouns import Caller, Ends
from multiplane.runtime.bus_memory import MemoryBus
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.clocks import PS_PER_S
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.doors import strict
from multiplane.runtime.faults import NoFaults
from multiplane.twin.modules import Modules
from multiplane.twin.profiles import Profile, Yield
from multiplane.twin.scenario import Site, Span, World

BENCH = Profile(
    name="bench",
    yields=lambda _, rate_bit_per_s, __=None: Yield(rate_bit_per_s, 0.02),
    takes_rate=True,
    max_loss_db=math.inf,
    provisioning_ps=PS_PER_S // 2,
    calibration_ps=PS_PER_S // 5,
    block_interval_ps=PS_PER_S,
)
PROFILES: Mapping[str, Profile] = {"bench": BENCH}
PAYLOAD_BYTE = 32


def generated(nodes: int, links: int, block_byte: int, seed: int = 1) -> World:
    """A ring of all nodes, and random chords between near ones, up to the wanted number of links."""
    rng = random.Random(seed)
    names = [f"n{number:05d}" for number in range(nodes)]
    pairs = {tuple(sorted((names[i], names[(i + 1) % nodes]))) for i in range(nodes)}
    while len(pairs) < links:
        i = rng.randrange(nodes)
        j = (i + rng.randint(2, max(2, nodes // 10))) % nodes
        if i != j:
            pairs.add(tuple(sorted((names[i], names[j]))))
    edges = [(a, b) for a, b in sorted(pairs)]
    return world(f"generated-{nodes}", names, edges, block_byte)


def world(name: str, names: list[str], edges: list[tuple[str, str]], block_byte: int) -> World:
    """Sites and links that make a block of `block_byte` once a second."""
    sites = tuple(Site(name=site, title=site, saes=()) for site in names)
    spans = tuple(
        Span(
            id=link_id(a, b), sites=(a, b), length_km=50.0, loss_db=10.0, profile="bench",
            rate_bit_per_s=8.0 * block_byte,
        )
        for a, b in edges
    )  # fmt: skip
    return World(name=name, domain="bench", sites=sites, spans=spans)


def routes(world: World, count: int, hops: int, seed: int = 2) -> list[tuple[str, ...]]:
    """Shortest routes of `hops` hops between random ends, no two to the same target."""
    rng = random.Random(seed)
    near: dict[str, list[str]] = {site.name: [] for site in world.sites}
    for span in world.spans:
        near[span.sites[0]].append(span.sites[1])
        near[span.sites[1]].append(span.sites[0])
    found = []
    targets = list(near)
    rng.shuffle(targets)
    for target in targets[:count]:
        back, ring = {target: ""}, [target]
        for _ in range(hops):
            ring = [n for at in ring for n in near[at] if n not in back and not back.update({n: at})]
        if ring:
            route = [rng.choice(ring)]
            while route[-1] != target:
                route.append(back[route[-1]])
            found.append(tuple(route))
    return found


@dataclass(slots=True)
class Traffic:
    """What became of the relayed parcels."""

    launched: int = 0
    refused: int = 0
    arrived: int = 0
    labels: itertools.count[int] = field(default_factory=itertools.count)

    def parcel(self, parcel: Parcel) -> None:
        """One came through its last hop."""
        del parcel
        self.arrived += 1


class Network:
    """All sites of a world on one timeline.

    Args:
        pool_room_byte: key that each end of a link holds at most.
    """

    def __init__(self, world: World, timeline: Dispatcher, pool_room_byte: int, *, strict_bus: bool) -> None:
        self.world, self.timeline = world, timeline
        self.modules = Modules(world, timeline, bytes(32), 0, PROFILES)
        self.device = strict(QkdDevice, self.modules, None, BULK)
        self.bus = MemoryBus(strict=strict_bus)
        self.view = LinkView()
        self.reports = 0
        self.bus.subscribe(f"{world.domain}.fabric.telemetry.*.link", LinkReport, self._report)
        self.bus.subscribe(f"{world.domain}.fabric.telemetry.*.beat", SiteBeat, self._beat)
        self.controller = Caller(principal=controller_urn(world.domain), domain=world.domain)
        channels = LocalChannels(timeline)
        self.agents: dict[str, FabricAgent] = {}
        self.callers: dict[str, Caller] = {}
        for site in world.sites:
            caller = Caller(principal=element_urn(world.domain, site.name), domain=world.domain)
            self.callers[site.name] = caller
            self.agents[site.name] = FabricAgent(
                caller,
                site.name,
                timeline,
                self.device,
                channels,
                bus=self.bus,
                faults=NoFaults(),
                pool_room_byte=pool_room_byte,
            )
        self.nodes: dict[str, FabricNode] = {}
        self.traffic = Traffic()

    def _report(self, subject: str, report: LinkReport) -> None:
        del subject
        self.reports += 1
        self.view.note(report)

    def _beat(self, subject: str, beat: SiteBeat) -> None:
        del subject
        self.view.hear(beat)

    async def start(self) -> None:
        """Order every link over its own span and light it."""
        for agent in self.agents.values():
            await agent.start()
        for number, span in enumerate(self.world.spans):
            if not number % 50:
                await asyncio.sleep(0)  # channels open, reports are heard
            delay_ns = round(span.length_km * 5_000)
            path = QuantumPath(
                path_id=f"p-{span.id}",
                demand_id=f"d-{span.id}",
                ends=Ends(sites=span.sites),
                spans=(span.id,),
                length_km=span.length_km,
                loss_db=span.loss_db,
                delay_ns=delay_ns,
            )
            for site, peer in (span.sites, span.sites[::-1]):
                order = LinkOrder(link=span.id, peer_site=peer, path=path)
                await self.agents[site].start_link(self.controller, order)
            self.modules.connect(span.id, span.loss_db)

    async def relay(self, found: list[tuple[str, ...]], per_s: float) -> None:
        """Put tables in force for the routes, and launch parcels along them in turn from now on."""
        tables: dict[str, dict[str, str]] = {}
        for route in found:
            for at, to in itertools.pairwise(route):
                tables.setdefault(at, {})[route[-1]] = to
        for site, table in tables.items():
            await self.agents[site].install(self.controller, ForwardingTable(version=1, next_hop=table))
        for route in found:
            for site in (route[0], route[-1]):
                if site not in self.nodes:
                    self.nodes[site] = strict(FabricNode, self.agents[site])
            await self.agents[route[-1]].subscribe(self.callers[route[-1]], self.traffic)
        turn_ps = round(len(found) / per_s * PS_PER_S)
        for number, route in enumerate(found):
            self.timeline.at_ps(
                self.timeline.now_ps() + turn_ps * (number + 1) // len(found), self._launch, route, turn_ps
            )

    def _launch(self, route: tuple[str, ...], turn_ps: int) -> None:
        self.timeline.at_ps(self.timeline.base_ps() + turn_ps, self._launch, route, turn_ps)
        source = route[0]
        label = f"{next(self.traffic.labels):x}"
        parcel = Parcel(source=source, target=route[-1], label=label, payload=bytes(PAYLOAD_BYTE))
        carrying = self.nodes[source].carry(self.callers[source], parcel)
        try:
            carrying.send(None)  # it never waits
        except StopIteration:
            self.traffic.launched += 1
        except MultiplaneError:
            self.traffic.refused += 1

    def made_bit(self) -> int:
        """Key that came to all ends of all links."""
        return sum(ledger.made_bit for agent in self.agents.values() for ledger in agent.ledgers().values())

    def unclosed(self) -> int:
        """Ends of links whose accounts disagree with what they hold."""
        return sum(not ledger.closes for agent in self.agents.values() for ledger in agent.ledgers().values())

    async def close(self) -> None:
        """Let go of everything."""
        for agent in self.agents.values():
            await agent.close()
