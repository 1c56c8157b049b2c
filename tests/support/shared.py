"""Networks of links of pairs for tests of shared states: worlds from edges, ears at sites, a QUI listener."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import groupby

from tests.support.handlers import none_fails

from multiplane.api.fabric_units import HeldState, Qui, StateLost, UnitOrder
from multiplane.assembly.study import Study, run_study
from multiplane.assembly.unit_control import Beside, UnitControl
from multiplane.fabric.control.policies import Policies
from multiplane.twin.oracle import Oracle
from multiplane.twin.scenario import World, parse

HEAD = """
format = "multiplane-scenario/1"
name = "shared"
domain = "shared"
[defaults]
profile = "bare-fibre"
[[memory]]
name = "cell"
t1_s = {t1_s}
t2_s = {t2_s}
cutoff_s = {cutoff_s}
"""
LINK = """
[[link]]
a = "{a}"
b = "{b}"
length_km = {length_km}
loss_db = 2.0
{keys}[[entangled]]
a = "{a}"
b = "{b}"
type = "fixed"
fidelity = {fidelity}
success_probability = {success_probability}
memories = {memories}
memory = "cell"
handshake = "grant"
"""


def scenario(
    edges: Iterable[tuple[str, str]],
    *,
    memories: int = 4,
    fidelity: float = 0.98,
    success_probability: float = 0.05,
    length_km: float = 10.0,
    t1_s: float = 100.0,
    t2_s: float = 10.0,
    cutoff_s: float = 2.0,
    saes: bool = False,
    key_bit_per_s: int = 0,
) -> str:
    """The file of equal links of pairs between sites.

    Args: saes: one application at each, `a-1` at a; key_bit_per_s: that modules at each fibre make, 0 = none.
    """
    keys = f'profile = "constant-rate"\nrate_bit_per_s = {key_bit_per_s}\n' if key_bit_per_s else ""
    links = list(edges)
    sites = sorted({site for edge in links for site in edge})
    text = HEAD.format(t1_s=t1_s, t2_s=t2_s, cutoff_s=cutoff_s)
    for site in sites:
        text += f'[[site]]\nname = "{site}"\n'
        text += f'saes = ["{site}-1"]\n' if saes else "saes = []\n"
    return text + "".join(
        LINK.format(
            a=a,
            b=b,
            length_km=length_km,
            fidelity=fidelity,
            success_probability=success_probability,
            memories=memories,
            keys=keys,
        )
        for a, b in links
    )


def world(edges: Iterable[tuple[str, str]], **numbers: float) -> World:
    """Equal links of pairs between sites that are relays; numbers as of `scenario`."""
    return parse(scenario(edges, **numbers), "shared.toml")  # type: ignore[arg-type]


class Ear:
    """The service at one site. Args: keeps_s: so long it keeps what it is handed; None = until it is told."""

    def __init__(self, study: Study, site: str, keeps_s: float | None = None) -> None:
        self._study, self._site, self._keeps_s = study, site, keeps_s
        self._tasks: set[asyncio.Task[None]] = set()
        self.held: list[HeldState] = []
        self.lost: list[StateLost] = []

    def state_held(self, held: HeldState) -> None:
        self.held.append(held)
        if self._keeps_s is not None and held.address:
            task = asyncio.ensure_future(self._let_go_later(held.address, self._keeps_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _let_go_later(self, address: str, keeps_s: float) -> None:
        await asyncio.sleep(keeps_s)
        await self.let_go(address)

    def state_lost(self, lost: StateLost) -> None:
        self.lost.append(lost)

    def states(self) -> list[str]:
        return sorted(held.state for held in self.held)

    async def listen(self) -> Ear:
        site = self._study.sites[self._site]
        assert site.repeater is not None
        await site.repeater.subscribe(site.caller, self)
        return self

    async def let_go(self, *addresses: str) -> None:
        site = self._study.sites[self._site]
        assert site.repeater is not None
        await site.repeater.discard(site.caller, addresses)


class Quis:
    """Hears of all orders of the controllers' own caller."""

    def __init__(self) -> None:
        self.told: list[Qui] = []
        self._news = asyncio.Event()

    def qui_changed(self, qui: Qui) -> None:
        self.told.append(qui)
        self._news.set()

    async def until(self, order_id: str, *phases: str) -> Qui:
        """The QUI of an order once it is in one of these phases."""
        while True:
            told = [qui for qui in self.told if qui.order_id == order_id]
            if told and told[-1].phase.value in phases:
                return told[-1]
            self._news.clear()
            await self._news.wait()

    async def second_phase(self, order_id: str) -> tuple[str, int]:
        """What an order came to after what was told of it first, maybe again and again."""
        while len(seen := tuple(dict.fromkeys(self.phases(order_id)))) < 2:
            self._news.clear()
            await self._news.wait()
        return seen[1]

    def phases(self, order_id: str) -> list[tuple[str, int]]:
        """As they changed; estimates are told in between."""
        told = ((qui.phase.value, qui.binding) for qui in self.told if qui.order_id == order_id)
        return [change for change, _ in groupby(told)]


def order(order_id: str, *sites: str, **fields: object) -> UnitOrder:
    """Two sites: pairs; more: a GHZ state."""
    kind = "bell" if len(sites) == 2 else "ghz"
    return UnitOrder(**{"order_id": order_id, "kind": kind, "sites": sites, **fields})  # type: ignore[arg-type]


def in_study(place: World, seed: int, workload: Callable[[Study, Quis], Awaitable[None]]) -> None:
    """Run a workload against a network in virtual time, with somebody who hears of QUIs."""

    async def run(study: Study) -> None:
        quis = Quis()
        await study.centre.units.subscribe(study.centre.caller, quis)
        with none_fails():
            await workload(study, quis)

    run_study(place, seed, run)


async def another_control(study: Study) -> None:
    """The control of units dies, and another one begins that knows nothing."""
    centre = study.centre
    await centre.unit_control.stop()
    beside = Beside(
        paths=centre.connectivity.for_fabric, classical=centre.connectivity.for_service, keys=centre.control
    )
    centre.unit_control = UnitControl(
        centre.caller, study.timeline, study._bus, beside, study._repeater, planning=Policies
    )
    await centre.unit_control.start(study.sites)


def leaks(study: Study) -> list[str]:
    """What is not free though nothing is ordered."""
    figures = study.centre.edc.figures()
    found = [f"reserved {figures.memories_reserved}"] if figures.memories_reserved else []
    found += [f"{phase} {count}" for phase, count in figures.phases.items()]
    for site in study.sites.values():
        if site.repeater is not None:
            sheets = site.repeater._sheets.values()
            found += [
                f"{site.parts.site}: {sheet.link} has {site.repeater.free(sheet.link)} free"
                for sheet in sheets
                if site.repeater.free(sheet.link) != sheet.memories[0]
            ]
    held = Oracle(study.centre.twin.quantum).held()
    return [*found, f"{held} qubits held"] if held else found


def checked(study: Study, order_id: str = "o") -> int:
    """States of an order that were sacrificed so far."""
    carried = study.centre.edc._orders[order_id]
    return sum(count for state in carried.states.values() for count, _ in state.errors)
