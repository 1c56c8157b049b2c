"""One run of one seed: the network, its traffic, and a look at all of it every so often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from multiplane.api.device import LinkState
from multiplane.assembly.layout import seed_bytes
from multiplane.assembly.sim.applications import Applications, fetch_in
from multiplane.assembly.sim.pairs import PairRecord, PairUsers
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.names import link_id
from multiplane.kernel.quantity import NS_PER_S, PS_PER_NS
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World

STATES: Final = tuple(state.value for state in LinkState)
Arrays = dict[str, "np.ndarray[Any, Any]"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long a run is and how often it is looked at, simulated nanoseconds > 0."""

    lasts_ns: int
    every_ns: int


def run_seed(
    world: World, seed: int, plan: Plan, tell: Callable[[float], None], *, policies: Policies = POLICIES
) -> Arrays:
    """Everything that was seen, as arrays over time; the same for the same arguments, byte for byte.

    Args: tell: is told the simulated seconds that are over; policies: what names in the world stand for.
    Raises: what the network raises; a run whose applications got different keys is Faulty(`sim.keys_differ`).
    """

    async def workload(study: Study) -> Arrays:
        applications = Applications(world, study.timeline, seed_bytes(seed), fetch_in(study))
        quantum = study.centre.twin.quantum
        users = PairUsers(world, quantum, study.timeline, seed_bytes(seed))
        record, pairs = _Record(study, applications), PairRecord(quantum, users)
        begin_ps = study.clock.now_ps()
        applications.start()
        users.start()
        at_ns = 0
        while at_ns < plan.lasts_ns:
            at_ns = min(at_ns + plan.every_ns, plan.lasts_ns)
            await study.clock.sleep_until_ps(begin_ps + at_ns * PS_PER_NS)
            if applications.failure is not None:
                raise applications.failure
            await record.look(at_ns)
            pairs.look()
            tell(at_ns / NS_PER_S)
        await applications.close()
        return record.arrays() | pairs.arrays()

    return run_study(world, seed, workload, policies=policies)


class _Record:
    """What was seen at each look, row by row."""

    def __init__(self, study: Study, applications: Applications) -> None:
        self._study, self._applications = study, applications
        self._flows = list(applications.flows.values())
        self._time_s: list[float] = []
        self._rows: dict[str, list[list[float]]] = {}
        self._stocks: list[dict[tuple[str, str], int]] = []
        self._before = [(0, 0)] * len(self._flows)

    async def look(self, at_ns: int) -> None:
        """Write down how things stand."""
        self._time_s.append(at_ns / NS_PER_S)
        self._look_at_flows()
        await self._look_at_links()
        stocks = {}
        for site in self._study.sites.values():
            if site.key_manager is not None:
                report = await site.key_manager.report(self._study.centre.caller)
                near = (ledger for ledger in report.ledgers if ledger.side == "near")
                stocks.update({(ledger.owner, ledger.peer): ledger.stock_bit for ledger in near})
        self._stocks.append(stocks)

    def _look_at_flows(self) -> None:
        flows = self._flows
        self._row("requested", [flow.requested for flow in flows])
        self._row("delivered_bit", [flow.delivered_bit for flow in flows])
        self._row("refused", [flow.refused for flow in flows])
        waited = []
        for place, flow in enumerate(flows):
            served = flow.served
            served_before, waited_before_ns = self._before[place]
            new = served - served_before
            waited.append((flow.waited_ns - waited_before_ns) / NS_PER_S / new if new else float("nan"))
            self._before[place] = (served, flow.waited_ns)
        self._row("latency_s", waited)

    async def _look_at_links(self) -> None:
        centre = self._study.centre
        links = await self._study.scenario.links(centre.caller)
        known = {link_id(link.a, link.b): link for link in centre.fabric.links()}
        reports = [known.get(link_id(*link.ends.sites)) for link in links]
        self._row("link_rate_bit_per_s", [link.rate_bit_per_s for link in links])
        self._row("link_qber", [link.qber for link in links])
        self._row("link_state", [STATES.index(link.state.value) for link in links])
        self._row("link_loss_db", [link.loss_db for link in links])
        self._row("link_stock_bit", [report.stock_bit if report else 0 for report in reports])
        status = centre.twin.qkd.status
        discarded_bit = [status(link_id(*link.ends.sites)).discarded_bit for link in links]
        self._row("link_discarded_bit", discarded_bit)

    def _row(self, name: str, row: list[Any]) -> None:
        self._rows.setdefault(name, []).append(row)

    def arrays(self) -> Arrays:
        """Rows are looks; columns are flows, links or pairs of key managers, named by arrays of text."""
        keys = list(self._applications.flows)
        pools = sorted({pool for stocks in self._stocks for pool in stocks})
        refusals = sorted(self._applications.refusals.items())
        return {
            "time_s": np.array(self._time_s, dtype=np.float64),
            "traffic": np.array([number for number, _, _ in keys], dtype=np.int64),
            "master": np.array([master for _, master, _ in keys], dtype=np.str_),
            "slave": np.array([slave for _, _, slave in keys], dtype=np.str_),
            "link": np.array([span.id for span in self._study.world.spans], dtype=np.str_),
            "states": np.array(STATES, dtype=np.str_),
            "owner": np.array([owner for owner, _ in pools], dtype=np.str_),
            "peer": np.array([peer for _, peer in pools], dtype=np.str_),
            "stock_bit": np.array(
                [[stocks.get(pool, 0) for pool in pools] for stocks in self._stocks], dtype=np.int64
            ),
            "refusal_code": np.array([code for code, _ in refusals], dtype=np.str_),
            "refusal_count": np.array([count for _, count in refusals], dtype=np.int64),
            **{name: _array(name, rows) for name, rows in self._rows.items()},
        }


def _array(name: str, rows: list[list[float]]) -> np.ndarray[Any, Any]:
    whole = name.endswith("_bit") or name in ("requested", "refused")
    kind = np.int8 if name == "link_state" else np.int64 if whole else np.float64
    return np.array(rows, dtype=kind)
