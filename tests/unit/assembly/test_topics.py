"""The devices of a node, reached by the agent at its site and by the operator beside it."""

from __future__ import annotations

import pytest

from multiplane.api.instructions import Generate, Measure, Query, Report
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Caller
from multiplane.runtime.clocks import PS_PER_S
from multiplane.twin.scenario import load_shipped

OPERATOR = Caller(principal="urn:qkd:chain5:operator", domain="chain5")
LINK = "a--b"


class Listener:
    def __init__(self) -> None:
        self.reports: list[Report] = []

    def report(self, report: Report) -> None:
        self.reports.append(report)


async def pass_time(study: Study) -> None:
    await study.clock.sleep_until_ps(study.clock.now_ps() + PS_PER_S // 10)


def test_an_agent_reaches_the_devices_of_its_own_node_and_no_others() -> None:
    async def workload(study: Study) -> None:
        near, far = study.sites["a"], study.sites["b"]
        heard, beside = Listener(), Listener()
        await near.parts.quantum.subscribe(near.caller, heard)
        await study.centre.topics.desk().watch(OPERATOR, "a", beside)
        await near.parts.quantum.submit(near.caller, Generate(request="g", link=LINK, pairs=2))
        await pass_time(study)
        assert [(report.request, report.number) for report in heard.reports] == [("g", 1), ("g", 2)]
        assert beside.reports == heard.reports
        handle = heard.reports[0].handles[0]
        with pytest.raises(Refused) as foreign:
            await far.parts.quantum.submit(far.caller, Measure(request="m", handle=handle))
        assert foreign.value.code == "instruction.foreign_handle"
        with pytest.raises(Refused) as stranger:
            await near.parts.quantum.submit(OPERATOR, Query(request="q", link=LINK))
        assert stranger.value.code == "instruction.nobody"

    run_study(load_shipped("chain5"), 1, workload)


def test_the_operator_speaks_for_a_node_until_his_session_ends() -> None:
    async def workload(study: Study) -> None:
        desk, heard = study.centre.topics.desk(), Listener()
        await desk.watch(OPERATOR, "b", heard)
        await desk.instruct(OPERATOR, "b", Query(request="q", link=LINK))
        await pass_time(study)
        assert [(report.node, report.asker, report.free) for report in heard.reports] == [("b", "b", 4)]
        desk.close()
        await desk.instruct(OPERATOR, "b", Query(request="r", link=LINK))
        await pass_time(study)
        assert len(heard.reports) == 1
        for unknown in ("x", "No label"):
            with pytest.raises(Refused, match="expected one of a, b, c, d, e"):
                await desk.instruct(OPERATOR, unknown, Query(request="s", link=LINK))

    run_study(load_shipped("chain5"), 1, workload)


def test_reports_are_counted_with_how_late_they_came() -> None:
    async def workload(study: Study) -> None:
        topics, heard = study.centre.topics, Listener()
        await topics.desk().watch(OPERATOR, "a", heard)
        await topics.desk().instruct(OPERATOR, "a", Generate(request="g", link=LINK, pairs=5, keep=False))
        await pass_time(study)
        figures = topics.figures()
        # Of five pairs the agents at both ends hear, and who watches one of them.
        assert (figures.reports, figures.early, figures.late_max_s) == (15, 0, 0.0)

    run_study(load_shipped("chain5"), 1, workload)
