"""Policies of planning of one's own: a scenario names them, their answers are held to what was asked for."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from multiplane.api.fabric_units import UnitOrder
from multiplane.api.instructions import LinkSheet
from multiplane.assembly.planning_policies import planning_policies
from multiplane.assembly.plugins import load_plugins
from multiplane.fabric.control.planning import Plan, Unattainable, plan
from multiplane.fabric.control.policies import BUILT_IN, Shortest
from multiplane.fabric.control.views import LinkFact, PairView
from multiplane.kernel.errors import Refused
from multiplane.twin.quantum.writing import lines
from multiplane.twin.scenario import load_shipped, parse
from multiplane.twin.toml_reading import ScenarioError

ROUND = """\
class Roundabout:
    def routes(self, network, ask):
        return [("a", "c", "b")]
class Late:
    def levels(self, path):
        yield tuple(7 for _ in path[1:])
ROUTING_POLICIES = {"roundabout": Roundabout}
SWAPPING_POLICIES = {"late": Late}
"""


def view() -> PairView:
    """Three sites in a ring."""
    links = {}
    for a, b in (("a", "b"), ("b", "c"), ("a", "c")):
        sheet = LinkSheet(
            link=f"{a}--{b}",
            sites=(a, b),
            memories=(2, 2),
            success_probability=0.1,
            attempt_ns=1000,
            delay_ns=500,
            weights=(0.97, 0.01, 0.01, 0.01),
        )
        links[sheet.link] = LinkFact(sheet=sheet, free=(2, 2))
    return PairView(links=links)


ORDER = UnitOrder(order_id="order", kind="bell", sites=("a", "b"))


def file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plug_in_is_named_and_asked(tmp_path: Path) -> None:
    makers = load_plugins([file(tmp_path / "round.py", ROUND)]).policies.planning
    chosen = planning_policies([("routing", "roundabout"), ("swapping", "late")], makers)
    found = plan(ORDER, view(), chosen)
    assert isinstance(found, Plan)
    assert found.job.circuits[0].path == ("a", "c", "b")
    assert found.job.circuits[0].levels == (7,)
    usual = plan(ORDER, view(), planning_policies([], makers))
    assert isinstance(usual, Plan)
    assert usual.job.circuits[0].path == ("a", "b")


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("routing", "def routes(self, network, ask): return [('a', 'z', 'b')]", "expected routes over links"),
        ("routing", "def routes(self, network, ask): return [('a', 'c')]", "expected routes over links"),
        ("routing", "def routes(self, network, ask): return 1 / 0", "ZeroDivisionError"),
        (
            "scheduling",
            "def window(self, order, link, free): return 3",
            "expected a whole number from 1 to 2",
        ),
        (
            "purification",
            "def rounds(self, path, windows): return [(5,) * len(path)]",
            "fewer than their windows",
        ),
        (
            "purification",
            "def rounds(self, path, windows): return [(0,) * len(path) + (2,)]",
            "maybe between the ends",
        ),
        ("swapping", "def levels(self, path): return [(1, 1)]", "for each inner site"),
        ("admission", "def admit(self, order, promise): return None", "expected a text"),
    ],
)
def test_an_answer_that_cannot_be_names_its_plug_in(tmp_path: Path, kind: str, code: str, said: str) -> None:
    text = f"class Mine:\n    {code}\n{kind.upper()}_POLICIES = {{'mine': Mine}}\n"
    makers = load_plugins([file(tmp_path / "mine.py", text)]).policies.planning
    failed = plan(ORDER, view(), planning_policies([(kind, "mine")], makers))
    assert isinstance(failed, Unattainable)
    assert failed.code == "plugin.failed"
    assert "mine.py" in failed.reason
    assert "'mine'" in failed.reason
    assert said in failed.reason


def test_a_route_over_a_site_to_be_avoided_is_none(tmp_path: Path) -> None:
    makers = load_plugins([file(tmp_path / "round.py", ROUND)]).policies.planning
    order = msgspec.structs.replace(ORDER, avoid=("c",))
    failed = plan(order, view(), planning_policies([("routing", "roundabout")], makers))
    assert isinstance(failed, Unattainable)
    assert failed.code == "plugin.failed"
    assert "routes is [('a', 'c', 'b')], expected routes over links around c" in failed.reason


def test_why_an_order_is_not_admitted_is_said_in_one_line(tmp_path: Path) -> None:
    text = "class Mine:\n    def admit(self, order, promise): return 'not\\nnow' + 'x' * 9999\n"
    makers = load_plugins([file(tmp_path / "mine.py", text + "ADMISSION_POLICIES = {'mine': Mine}\n")])
    failed = plan(ORDER, view(), planning_policies([("admission", "mine")], makers.policies.planning))
    assert isinstance(failed, Unattainable)
    assert failed.code == "fabric.not_admitted"
    assert failed.reason.startswith("not nowxxx")
    assert len(failed.reason) == 300


def test_a_name_that_ships_is_taken(tmp_path: Path) -> None:
    text = "class Mine:\n    def routes(self, network, ask): return []\nROUTING_POLICIES = {'widest': Mine}\n"
    with pytest.raises(Refused, match="routing policy 'widest' is taken by multiplane itself"):
        load_plugins([file(tmp_path / "mine.py", text)])


def test_a_scenario_names_policies_and_is_written_back() -> None:
    text = (
        (files("multiplane.twin") / "scenarios" / "chain5.toml")
        .read_text(encoding="utf-8")
        .replace("[[noise]]", '[planning]\nrouting = "shortest"\nadmission = "headroom"\n\n[[noise]]', 1)
    )
    policies = load_plugins().policies
    world = parse(text, "chain5", policies=policies)
    assert world.entanglement.planning == (("admission", "headroom"), ("routing", "shortest"))
    assert isinstance(planning_policies(world.entanglement.planning, policies.planning).routing, Shortest)
    assert 'routing = "shortest"' in list(lines(world.entanglement))
    assert load_shipped("chain5").entanglement.planning == ()
    with pytest.raises(ScenarioError, match=r"unknown routing 'shortes', expected 'shortest'"):
        parse(text.replace('"shortest"', '"shortes"'), "chain5", policies=policies)
    with pytest.raises(ScenarioError, match="routng"):
        parse(text.replace("routing =", "routng ="), "chain5", policies=policies)


def test_every_kind_has_a_default_that_is_its_first() -> None:
    usual = planning_policies([], {})
    for kind, named in BUILT_IN.items():
        assert type(getattr(usual, kind)) is next(iter(named.values()))
