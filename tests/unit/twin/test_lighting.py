"""Links of pairs feel what happens to their fibres and devices; what is held lives on."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from tests.support.quantum import SECOND_PS, Heap, Listener

from multiplane.api.instructions import Generate, Measure, Prepare
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import Caller, ends
from multiplane.physics.bell import Correlations
from multiplane.twin.engine import Twin
from multiplane.twin.scenario import parse

OPERATOR = Caller(principal="urn:qkd:lab:operator", domain="lab")
LINK, ENDS = "a--b", ends("a", "b")
TEXT = """
format = "multiplane-scenario/1"
name = "lab"
domain = "lab"
defaults = {profile = "bare-fibre"}
site = [{name = "a"}, {name = "b"}, {name = "c"}]
link = [{a = "a", b = "b", length_km = 20, loss_db = 4}, {a = "b", b = "c", length_km = 20, loss_db = 4}]
entangled = [
  {a = "a", b = "b", type = "fixed", fidelity = 0.98, memories = 4, handshake = "HANDSHAKE"},
  {a = "b", b = "c", type = "fixed", fidelity = 0.98, memories = 4},
]
"""


class Rig:
    """A twin on a heap, with a listener at each node."""

    def __init__(self, handshake: str = "grant", more: str = "") -> None:
        self.heap = Heap()
        world = parse(TEXT.replace("HANDSHAKE", handshake) + more, "lab.toml")
        self.twin = Twin(world, self.heap, bytes(32), 1)
        self.quantum, self.link = self.twin.quantum, self.twin.quantum.links[LINK]
        self.heard = {name: Listener(self.heap) for name in self.quantum.nodes}
        for name, listener in self.heard.items():
            self.quantum.listen(name, listener)

    def advance(self, span_s: float) -> None:
        self.heap.advance_to(self.heap.now_ps() + round(span_s * SECOND_PS))

    def ask(self, call: Coroutine[Any, Any, Any]) -> Any:
        try:
            call.send(None)
        except StopIteration as answer:
            return answer.value
        raise AssertionError("the door waited")

    def generate(self, pairs: int = 0, *, keep: bool = False) -> None:
        self.quantum.perform("a", Generate(request=f"g{pairs}{keep}", link=LINK, pairs=pairs, keep=keep))

    def made_in(self, span_s: float) -> int:
        before = self.link.made
        self.advance(span_s)
        return self.link.made - before


@pytest.mark.parametrize("handshake", ["grant", "request-poll"])
def test_a_cut_stops_what_is_under_way_and_a_splice_lets_it_go_on(handshake: str) -> None:
    rig = Rig(handshake)
    scenario = rig.twin.scenario
    rig.generate()
    before = rig.made_in(1.0)
    assert before > 50
    rig.ask(scenario.cut(OPERATOR, ENDS))
    assert rig.made_in(1.0) == 0
    assert not rig.link.lit
    rig.ask(scenario.cut(OPERATOR, ENDS))
    rig.ask(scenario.restore(OPERATOR, ENDS))
    after = rig.made_in(1.0)
    assert abs(after - before) < 5 * (before + after) ** 0.5
    assert rig.link.heralds == rig.link.made == before + after
    assert rig.link.attempts > rig.link.heralds


def test_pairs_that_are_held_outlive_a_cut_and_those_asked_for_come_after_it() -> None:
    rig = Rig()
    rig.generate(2, keep=True)
    rig.advance(1.0)
    held = [report.handles[0] for report in rig.heard["a"].reports]
    rig.ask(rig.twin.scenario.cut(OPERATOR, ENDS))
    rig.generate(1)
    rig.advance(1.0)
    assert rig.link.made == 2
    done = rig.quantum.perform("a", Measure(request="m", handle=held[0]))
    assert done is not None
    assert done.ok
    rig.ask(rig.twin.scenario.restore(OPERATOR, ENDS))
    rig.advance(1.0)
    assert rig.link.made == 3
    assert sorted(rig.quantum.nodes["a"].qubits) == held[1:]


def test_loss_changes_the_pace_and_flips_change_the_pairs() -> None:
    rig = Rig()
    rig.generate()
    before = rig.made_in(4.0)
    rig.ask(rig.twin.scenario.set_loss(OPERATOR, ENDS, 4.0 + 6.02))
    after = rig.made_in(4.0)
    assert rig.link.facts.success_probability == pytest.approx(0.5 * 10 ** (-1.002))
    assert 3.0 < before / after < 4.5  # a quarter, but for the messages in between
    clean = rig.link.source.pair
    rig.ask(rig.twin.scenario.set_error(OPERATOR, ENDS, 0.1))
    expected = Correlations(clean.x * 0.8, clean.y * 0.8, clean.z * 0.8)
    assert rig.link.source.pair == pytest.approx(expected)
    rig.ask(rig.twin.scenario.set_error(OPERATOR, ENDS, 0.0))
    assert rig.link.source.pair == pytest.approx(clean)
    with pytest.raises(Refused) as error:
        rig.quantum.perform("a", Generate(request="x", link=LINK, min_fidelity=0.99))
    assert error.value.code == "instruction.fidelity"


def test_a_fibre_that_lets_nothing_through_is_dark_until_it_is_mended() -> None:
    rig = Rig()
    rig.generate()
    rig.ask(rig.twin.scenario.set_loss(OPERATOR, ENDS, 1_000.0))
    assert not rig.link.lit
    assert rig.made_in(1.0) == 0
    rig.ask(rig.twin.scenario.cut(OPERATOR, ENDS))
    rig.ask(rig.twin.scenario.restore(OPERATOR, ENDS))
    assert not rig.link.lit
    rig.ask(rig.twin.scenario.set_loss(OPERATOR, ENDS, 4.0))
    assert rig.made_in(1.0) > 50


def test_a_device_that_fails_loses_what_it_held_and_tells_its_node() -> None:
    rig = Rig()
    rig.generate(3, keep=True)
    rig.advance(1.0)
    handle = rig.heard["a"].reports[0].handles[0]
    rig.ask(rig.twin.scenario.fail_device(OPERATOR, ENDS, "a"))
    lost = rig.heard["a"].reports[3:]
    assert [report.code for report in lost] == ["instruction.expired"] * 3
    assert {report.reason for report in lost} == {
        f"pair {n} was lost when its device failed" for n in (1, 2, 3)
    }
    with pytest.raises(Refused, match="was lost when its device failed") as error:
        rig.quantum.perform("a", Measure(request="m", handle=handle))
    assert error.value.code == "instruction.expired"
    with pytest.raises(Busy):
        rig.quantum.perform("a", Prepare(request="p", link=LINK))
    assert len(rig.quantum.nodes["b"].qubits) == 3
    rig.generate(1)
    assert rig.made_in(1.0) == 0
    rig.ask(rig.twin.scenario.repair_device(OPERATOR, ENDS, "a"))
    assert rig.made_in(1.0) == 1


def test_a_lost_site_takes_its_links_with_it_and_no_others() -> None:
    rig = Rig()
    other = rig.quantum.links["b--c"]
    rig.generate()
    rig.quantum.perform("b", Generate(request="o", link="b--c", pairs=0, keep=False))
    rig.ask(rig.twin.scenario.lose_site(OPERATOR, "a"))
    assert rig.made_in(1.0) == 0
    assert other.made > 50
    rig.ask(rig.twin.scenario.return_site(OPERATOR, "a"))
    assert rig.made_in(1.0) > 50


def test_faults_of_a_scenario_reach_links_of_pairs() -> None:
    cut = 'fault = [{kind = "cut", link = ["a", "b"], at = "1s", duration = "1s"}]\n'
    rig = Rig(more=cut)
    rig.twin.start()
    rig.generate()
    made = [rig.made_in(1.0) for _ in range(3)]
    assert made[0] > 50
    assert made[1] == 0
    assert made[2] > 50


@pytest.mark.parametrize(
    ("kind", "left"),
    [("intercept-resend", (0.8, 0.6, 0.8)), ("entangling-probe", (0.6, 0.6, 1.0))],
)
def test_whoever_measures_or_probes_leaves_his_own_mark_on_pairs(
    kind: str, left: tuple[float, float, float]
) -> None:
    rig = Rig(
        more=f"""
[[attacker]]
kind = "{kind}"
link = ["a", "b"]
share = 0.4
from = "1s"
until = "3s"
"""
    )
    rig.twin.start()
    plain = rig.link.source.pair
    rig.advance(0.5)
    assert rig.link.source.pair == plain
    rig.advance(1.0)
    assert rig.link.source.pair == pytest.approx([one * by for one, by in zip(plain, left, strict=True)])
    assert rig.link.lit
    rig.ask(rig.twin.scenario.set_error(OPERATOR, ENDS, 0.1))
    both = [one * by * 0.8 for one, by in zip(plain, left, strict=True)]
    assert rig.link.source.pair == pytest.approx(both)
    rig.ask(rig.twin.scenario.set_error(OPERATOR, ENDS, 0.0))
    rig.advance(2.0)
    assert rig.link.source.pair == plain


def test_a_drift_reaches_a_bare_fibre_with_pairs() -> None:
    drift = (
        'fault = [{kind = "drift", link = ["a", "b"], loss_db = 6.02, flip_probability = 0.05, '
        'ramp = "1s", from = "1s"}]\n'
    )
    rig = Rig(more=drift)
    rig.twin.start()
    clean = rig.link.source.pair
    rig.advance(3.0)
    assert rig.link.facts.success_probability == pytest.approx(0.5 * 10 ** (-1.002))
    assert rig.link.source.pair.x == pytest.approx(clean.x * 0.9)


def test_the_world_says_which_spans_make_pairs() -> None:
    rig = Rig()
    links = rig.ask(rig.twin.scenario.links(OPERATOR))
    assert [(link.pair_type, link.memories) for link in links] == [("fixed", 4), ("fixed", 4)]


def test_whoever_watches_hears_what_the_agent_hears_until_he_stops() -> None:
    rig = Rig()
    watcher = Listener(rig.heap)
    rig.quantum.watch("b", watcher)
    rig.generate(2)
    rig.advance(1.0)
    assert watcher.reports == rig.heard["b"].reports
    rig.quantum.unwatch("b", watcher)
    rig.generate(1)
    rig.advance(1.0)
    assert len(watcher.reports) == 2
    with pytest.raises(Refused, match="expected one of a, b, c"):
        rig.quantum.watch("x", watcher)
