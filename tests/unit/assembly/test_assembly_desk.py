"""The operator's desk: what is fit, and what is not, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import pytest

from multiplane.api.operations import NetworkFigures, ProcessFigures
from multiplane.api.operator import Condition, KmeReport, LinkReport, StockFlight, UnitRecord
from multiplane.assembly.desk import MOST_BEHIND_S, OperatorDesk
from multiplane.assembly.fork import issue_in
from multiplane.assembly.study import Study, run_study
from multiplane.cli.view import headline
from multiplane.kernel.errors import Busy, Faulty
from multiplane.kernel.nouns import Caller, ends
from multiplane.service.planes import KmeControl
from multiplane.standards.exposition import exposition
from multiplane.twin.scenario import load_shipped


class Mute:
    """A key manager whose process is there but does not answer, or is gone."""

    def __init__(self, *, gone: bool) -> None:
        self._gone = gone

    async def report(self, caller: Caller) -> KmeReport:
        if self._gone:
            raise Faulty("channel.closed", "gone")
        await asyncio.Event().wait()
        raise AssertionError

    async def flights(self, caller: Caller) -> tuple[StockFlight, ...]:
        raise Faulty("channel.closed", "gone")

    async def find_unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        raise AssertionError


async def no_figures() -> tuple[ProcessFigures, ...]:
    """Nobody asks for them here."""
    return ()


def desk_of(study: Study, kmes: Mapping[str, KmeControl], behind_s: float = 0.0) -> OperatorDesk:
    """The desk of a study whose key managers are `kmes`."""
    return OperatorDesk(
        study.centre,
        study.clock,
        lambda: kmes,
        figures=no_figures,
        behind_s=lambda: behind_s,
        secret=False,
        stop=lambda: None,
    )


def amiss(conditions: tuple[Condition, ...]) -> dict[str, str]:
    """What does not hold, and why."""
    return {condition.what: condition.reason for condition in conditions if not condition.ok}


def test_ready_names_each_key_manager_that_is_not() -> None:
    async def workload(study: Study) -> None:
        caller = study.centre.caller
        all_there: dict[str, KmeControl] = {name: site.kme for name, site in study.sites.items()}
        desk = desk_of(study, all_there)
        conditions = await desk.readiness(caller)
        assert [one.what for one in conditions] == [
            "network", "key manager alice", "key manager relay", "key manager bob",
        ]  # fmt: skip
        assert amiss(conditions) == {}
        study.sites["bob"].kme.near("alice").poisoned = True
        assert amiss(await desk.readiness(caller)) == {
            "key manager bob": "reads a stock again after a failed commit"
        }
        some = desk_of(study, {"alice": Mute(gone=True), "relay": Mute(gone=False)})
        assert amiss(await some.readiness(caller)) == dict.fromkeys(
            ("key manager alice", "key manager relay", "key manager bob"), "does not answer"
        )

    run_study(load_shipped("lab3"), 1, workload)


def test_key_managers_that_do_not_answer_are_told_of() -> None:
    async def workload(study: Study) -> None:
        there = {name: site.kme for name, site in study.sites.items() if name != "bob"}
        desk = desk_of(study, {**there, "bob": Mute(gone=True)})
        report = await desk.report(study.centre.caller)
        assert ([kme.name for kme in report.kmes], report.silent) == (["alice", "relay"], ("bob",))
        assert "2 of 3 key managers serve" in headline(report)
        metrics = exposition(NetworkFigures(report=report, processes=()))
        for line in ('serving{site="alice"} 1.0', 'serving{site="bob"} 0.0', "key_managers_serving 2.0"):
            assert f"multiplane_{line}\n" in metrics

    run_study(load_shipped("lab3"), 1, workload)


def test_a_network_told_to_stop_is_not_ready_and_still_alive() -> None:
    async def workload(study: Study) -> None:
        desk = desk_of(study, {name: site.kme for name, site in study.sites.items()})
        desk.stopping = True
        assert amiss(await desk.readiness(study.centre.caller)) == {"network": "told to stop"}
        assert amiss(await desk.health(study.centre.caller)) == {}

    run_study(load_shipped("lab3"), 1, workload)


def test_work_that_is_overdue_is_no_health() -> None:
    async def workload(study: Study) -> None:
        assert amiss(await desk_of(study, {}, MOST_BEHIND_S).health(study.centre.caller)) == {}
        late = amiss(await desk_of(study, {}, MOST_BEHIND_S + 1).health(study.centre.caller))
        assert late == {"clock": "work is 3.0 s overdue, at most 2 s are well"}

    run_study(load_shipped("lab3"), 1, workload)


def test_a_link_without_light_is_cut_and_keeps_what_it_holds() -> None:
    async def workload(study: Study) -> None:
        desk = desk_of(study, {})

        async def link() -> LinkReport:
            links = (await desk.report(study.centre.caller)).links
            return next(link for link in links if (link.a, link.b) == ("alice", "relay"))

        assert (await link()).state == "dark"
        await study.scenario.cut(study.centre.caller, ends("alice", "relay"))
        await asyncio.sleep(1.0)
        assert ((await link()).state, (await link()).reason) == ("cut", "loss of light")
        await study.scenario.restore(study.centre.caller, ends("alice", "relay"))
        with suppress(Busy):
            await issue_in(study)("alice", "bob", 1)
        await asyncio.sleep(70.0)
        before = await link()
        assert before.state == "up"
        assert before.stock_bit > 0
        await study.scenario.cut(study.centre.caller, ends("alice", "relay"))
        await asyncio.sleep(1.0)
        after = await link()
        assert (after.state, after.rate_bit_per_s, after.qber) == ("cut", 0.0, 0.0)
        assert after.stock_bit == pytest.approx(before.stock_bit, rel=0.1)

    run_study(load_shipped("lab3"), 1, workload)
