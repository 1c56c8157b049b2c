"""Classes of one's own: found in files and packages, refused in one line, and harmless when they fail."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import cast

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.quantum import SECOND_PS, Heap

from multiplane.api.instructions import Cancel, Generate, Measure, Report
from multiplane.api.policy import LinkFacts, LinkHost
from multiplane.assembly import plugins as loading
from multiplane.assembly.plugins import load_plugins
from multiplane.assembly.sim.results import Results
from multiplane.assembly.sim.running import Simulation
from multiplane.assembly.sim.seed import Plan
from multiplane.assembly.up import load_world
from multiplane.kernel.errors import Faulty, Refused
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import load_shipped, parse
from multiplane.twin.scenario_writing import write
from multiplane.twin.toml_reading import ScenarioError

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = [EXAMPLES / name for name in ("time_bins.py", "stretched.py", "biased.py")]
MEMORY = """\
class Mine:
    def __init__(self, t2_s=1.0):
        self.t2_s = t2_s
    def decay(self, elapsed_ps):
        return (1.0, 1.0, 1.0, 0.0)
MEMORY_MODELS = {"mine": Mine}
"""
NOISE = """\
class Mine:
    def single(self):
        return (0.0, 0.0, 0.0)
    def double(self):
        return [1.0] + [0.0] * 15
    def flip_probability(self):
        return 0.0
NOISE_MODELS = {"mine": Mine}
"""
LINK = """\
class Mine:
    def __init__(self, facts, host):
        pass
    def raw(self, end, slot):
        pass
    def withdraw(self, end, slot):
        pass
LINK_PROTOCOLS = {"mine": Mine}
"""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("multiplane_plugin_"):
            del sys.modules[name]


def refusal(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Refused) as refused:
        load_plugins([path])
    assert refused.value.code == "input.plugin"
    assert "\n" not in refused.value.reason
    return refused.value.reason


def test_names_of_files_stand_beside_those_that_ship(tmp_path: Path) -> None:
    found = load_plugins(FILES)
    assert set(found.policies.handshakes) == {*POLICIES.handshakes, "time-bins"}
    assert set(found.policies.handshakes["time-bins"]) == {"jump", "message"}
    assert found.policies.memories["stretched"]({"t2_s": 2.0}).decay(2 * SECOND_PS).x == pytest.approx(
        0.36787944
    )
    assert sum(found.policies.noises["biased"]({"error_probability": 0.1, "bias_ratio": 9.0}).double()) == (
        pytest.approx(1.0)
    )
    assert [text.split(" sha256:")[0] for text in found.files] == [path.name for path in FILES]
    assert not load_plugins().files
    assert not list(EXAMPLES.rglob("*.pyc")), "a plug-in file is read, nothing is written beside it"


def test_what_runs_is_what_the_digest_is_of(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text(MEMORY)
    first = load_plugins([file])
    file.write_text(MEMORY.replace("1.0, 1.0, 1.0, 0.0", "0.5, 0.5, 1.0, 0.0"))
    second = load_plugins([file])
    assert first.files != second.files
    decays = [one.policies.memories["mine"]({}).decay(1) for one in (first, second)]
    assert [decay.x for decay in decays] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", ": says none, expected LINK_PROTOCOLS = {...} or MEMORY_MODELS = {...} or NOISE_MODELS"),
        ("x = (\n", ":1: the file raised SyntaxError: '(' was never closed"),
        ("\n\nx = 1 / 0\n", ":3: the file raised ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", ":2: the file raised SystemExit: 3"),
        ("import no_such_module\n", ":1: the file raised ModuleNotFoundError: No module named"),
        ("MEMORY_MODELS = 5\n", ': MEMORY_MODELS: got 5, expected a table {"name": Class}'),
        ("MEMORY_MODELS = {'mine': 5}\n", ": memory model 'mine': got 5, expected a class"),
        (MEMORY.replace('"mine"', '"My Own"'), "name of a memory model: got 'My Own', expected lower-case"),
        (MEMORY.replace('"mine"', '"t1-t2"'), "memory model 't1-t2' is taken by multiplane itself, expected"),
        (LINK.replace('"mine"', '"grant"'), "link protocol 'grant' is taken by multiplane itself"),
        (
            MEMORY.replace("def decay", "def age"),
            "memory model 'mine': class Mine has no method decay, as a memory model needs",
        ),
        (
            MEMORY.replace("(self, elapsed_ps)", "(self)"),
            "memory model 'mine': Mine.decay: too many positional arguments, expected to be called with 1",
        ),
        (
            LINK.replace("withdraw(self, end, slot)", "withdraw(self, end)"),
            "Mine.withdraw: too many positional",
        ),
        (LINK.replace("(self, facts, host)", "(self, facts)"), "link protocol 'mine': Mine: too many"),
        (NOISE.replace("def double", "def two"), "noise model 'mine': class Mine has no method double"),
        (
            LINK.replace('{"mine": Mine}', '{"mine": {"fast": Mine}}'),
            "link protocol 'mine': got ['fast'], expected jump and message",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "p.py"
    reason = refusal(path, text)
    assert reason.startswith(str(path))
    assert said in reason


def test_files_that_are_no_files_and_names_said_twice_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.py"):
        with pytest.raises(Refused, match="expected a readable plug-in file"):
            load_plugins([path])
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text(MEMORY)
    other.write_text(MEMORY + "# another\n")
    with pytest.raises(Refused, match=r"other\.py: memory model 'mine' is taken by .*one\.py"):
        load_plugins([one, other])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            MEMORY.replace("1.0, 1.0, 1.0, 0.0", "1.0, 1.0, 0.5, 0.0"),
            "decay(0) is (1.0, 1.0, 0.5, 0.0), expected",
        ),
        (MEMORY.replace("1.0, 1.0, 1.0, 0.0", "1.0, 1.0"), "p.py: plug-in 'mine': decay(0) raised TypeError"),
        (MEMORY.replace("return (1.0, 1.0, 1.0, 0.0)", "return None"), "decay(0) raised TypeError"),
        (
            MEMORY.replace("self.t2_s = t2_s", "raise KeyError('x')"),
            "p.py:3: plug-in 'mine': __init__ raised KeyError",
        ),
        (MEMORY.replace("1.0, 1.0, 1.0, 0.0", "float('nan'), 1.0, 1.0, 0.0"), "decay(0) is (nan"),
        (NOISE.replace("[0.0] * 15", "[0.1] * 15"), "double is [1.0, 0.1"),
        (NOISE.replace("[0.0] * 15", "[0.0] * 14"), "expected 16 probabilities that add up to 1"),
        (
            NOISE.replace("(0.0, 0.0, 0.0)", "(0.5, 0.4, 0.3)"),
            "single is (0.5, 0.4, 0.3), expected 3 probabilities",
        ),
        (NOISE.replace("return 0.0", "return 2.0"), "flip_probability is 2.0, expected a probability"),
        (
            NOISE.replace("return 0.0", "return self.x"),
            "p.py:7: plug-in 'mine': flip_probability raised Attribute",
        ),
    ],
)
def test_a_model_that_says_what_cannot_be_is_refused_when_it_is_made(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "p.py"
    path.write_text(text)
    policies = load_plugins([path]).policies
    makers = {**policies.memories, **policies.noises}
    given = {"t2_s": 1.0} if "decay" in text else {}
    with pytest.raises(Refused) as refused:
        makers["mine"](given)
    assert said in refused.value.reason


def test_a_scenario_is_refused_by_line_for_numbers_that_a_plug_in_does_not_take(tmp_path: Path) -> None:
    policies = load_plugins(FILES).policies
    text = (EXAMPLES / "mine.toml").read_text()
    for old, new, said in (
        (
            "t2_s = 1.0",
            "t3_s = 1.0",
            "t3_s: unknown key of plug-in 'stretched', expected one of t2_s, exponent",
        ),
        ("t2_s = 1.0\n", "", "t2_s: missing, expected a number for plug-in 'stretched'"),
        ("t2_s = 1.0", "t2_s = -1.0", "t2_s: -1.0, expected more than 0"),
        ("bias_ratio = 9.0", "bias_ratio = -2.0", "bias_ratio: -2.0, expected 0 or more"),
    ):
        path = tmp_path / "s.toml"
        path.write_text(text.replace(old, new))
        with pytest.raises(Refused) as refused:
            load_world(str(path), policies)
        assert refused.value.code == "scenario.invalid"
        assert refused.value.reason.startswith(f"{path}:")
        assert said in refused.value.reason


def test_packages_are_loaded_when_they_are_named_only(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("fine", "multiplane.twin.quantum.policies:Ideal", "multiplane.memory_models"),
        EntryPoint("broken", "no_such_package:Model", "multiplane.memory_models"),
        EntryPoint("wrong", "multiplane.twin.quantum.policies:Ideal", "multiplane.noise_models"),
    ]
    monkeypatch.setattr(
        loading, "entry_points", lambda group: [entry for entry in entries if entry.group == group]
    )
    policies = load_plugins().policies
    assert policies.memories["fine"]({}).decay(5).x == 1.0
    with pytest.raises(
        Refused, match=r"no_such_package:Model: memory model 'broken': its module raised Module"
    ):
        policies.memories["broken"]({})
    with pytest.raises(Refused, match="class Ideal has no method single"):
        policies.noises["wrong"]({})


def test_results_of_other_plug_ins_are_not_mixed(tmp_path: Path) -> None:
    file, world, plan = tmp_path / "m.py", load_shipped("pair"), Plan(lasts_ns=10, every_ns=10)
    file.write_text(MEMORY)
    first = load_plugins([file])
    results = Results(tmp_path / "out", world, plan, "1", plugins=first)
    assert msgspec.json.decode((tmp_path / "out/run.json").read_bytes())["plugin_files"] == list(first.files)
    assert Results(tmp_path / "out", world, plan, "1", plugins=first).manifest == results.manifest
    simulation = Simulation(world, plan, results, (file,))
    assert "mine" in simulation.policies().memories
    file.write_text(MEMORY.replace("1.0, 1.0, 1.0", "0.9, 0.9, 1.0"))
    with pytest.raises(Refused, match=r"plugin_files .* name another --out"):
        Results(tmp_path / "out", world, plan, "1", plugins=load_plugins([file]))
    with pytest.raises(Refused, match="changed while the simulation ran"):
        simulation.policies()


class Ear:
    """Writes down what a node hears."""

    def __init__(self) -> None:
        self.heard: list[Report] = []

    def report(self, report: Report) -> None:
        self.heard.append(report)


def network(policies: Policies, edit: dict[str, str]) -> tuple[Heap, Quantum, dict[str, Ear]]:
    text = (EXAMPLES / "mine.toml").read_text()
    for old, new in edit.items():
        assert old in text
        text = text.replace(old, new, 1)
    world, heap = parse(text, "mine.toml", policies=policies), Heap()
    quantum = Quantum(world.entanglement, "mine", heap, bytes(32), 1, policies=policies)
    ears = {name: Ear() for name in quantum.nodes}
    for name, ear in ears.items():
        quantum.listen(name, ear)
    return heap, quantum, ears


def test_a_link_protocol_takes_numbers_of_its_own(tmp_path: Path) -> None:
    text = (EXAMPLES / "time_bins.py").read_text()
    slower = tmp_path / "slower.py"
    made = "def __init__(self, facts: LinkFacts, host: LinkHost"
    cycle = "self.cycle_ps = max(self.heard_ps) + facts.reset_ps"
    slower.write_text(
        text.replace(made, f"{made}, guard_ps: float = 0.0").replace(cycle, f"{cycle} + round(guard_ps)")
    )
    policies = load_plugins([slower, *FILES[1:]]).policies
    guarded = 'handshake = "time-bins"\nprotocol = {guard_ps = 5e9}\n'
    pairs = []
    for edit in ({}, {'handshake = "time-bins"\n': guarded}):
        heap, quantum, _ = network(policies, edit)
        quantum.perform("a", Generate(request="g", link="a--b", pairs=0, keep=False))
        heap.advance_to(20 * SECOND_PS)
        pairs.append(quantum.links["a--b"].made)
    plain_ps, guard_ps = 1e9 * 0.5, 5e9  # 100 km: half a millisecond there and back to the middle
    assert pairs[0] > 500
    assert pairs[0] / pairs[1] == pytest.approx((plain_ps + guard_ps) / plain_ps, rel=0.35)
    world = parse((EXAMPLES / "mine.toml").read_text(), "mine.toml", policies=policies)
    again = write(
        parse(write(world).replace('"time-bins"\n', guarded[12:], 1), "again.toml", policies=policies)
    )
    assert "protocol = {guard_ps = 5000000000.0}" in again
    with pytest.raises(Refused, match=r"plug-in 'time-bins': __init__ on link a--b .*guard_pz"):
        network(policies, {'handshake = "time-bins"\n': guarded.replace("guard_ps", "guard_pz")})
    for said, why in (
        ("protocol = 5", "expected a table"),
        ('protocol = {guard_ps = "x"}', "expected a number"),
    ):
        with pytest.raises(ScenarioError, match=why):
            network(policies, {'handshake = "time-bins"\n': f'handshake = "time-bins"\n{said}\n'})
    with pytest.raises(ScenarioError, match="'grant' takes no numbers, expected none"):
        network(policies, {'handshake = "time-bins"': 'handshake = "grant"\nprotocol = {guard_ps = 1}'})


def test_a_link_protocol_may_need_a_number(tmp_path: Path) -> None:
    path = tmp_path / "p.py"
    path.write_text(LINK.replace("(self, facts, host)", "(self, facts, host, guard_ps)"))
    policies = load_plugins([path, *FILES[1:]]).policies
    first = {'handshake = "time-bins"': 'handshake = "mine"', 'handshake = "time-bins"\n': ""}
    with pytest.raises(Refused, match=r"plug-in 'mine': __init__ on link a--b .*guard_ps"):
        network(policies, first)
    network(policies, {'"time-bins"': '"mine"\nprotocol = {guard_ps = 1}', 'handshake = "time-bins"': ""})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sent_ps, (", "-(10**30), (", "herald on link a--b raised ValueError: born: emitted at -1"),
        ("sent_ps, (", "self.host.now_ps() + 1, (", "expected not after and not before now"),
        ("self.facts.success_probability", "2.0", "trials: probability 2.0, expected more than 0, at most 1"),
        ("self.facts.success_probability", "float('nan')", "trials: probability nan, expected more than 0"),
        ("pair = (", "self.host.chance(-1); pair = (", "chance: probability -1, expected a number from 0"),
    ],
)
def test_a_protocol_that_says_what_cannot_be_ends_its_link(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = (EXAMPLES / "time_bins.py").read_text()
    assert text.count(old) == 1
    wrong = tmp_path / "wrong.py"
    wrong.write_text(text.replace(old, new))
    heap, quantum, ears = network(load_plugins([wrong, *FILES[1:]]).policies, {})
    quantum.perform("a", Generate(request="g", link="a--b"))
    heap.advance_to(SECOND_PS)
    (report,) = ears["a"].heard
    assert report.code == "instruction.link_failed"
    assert said in report.reason


@pytest.mark.parametrize("method", ["raw", "withdraw", "herald"])
def test_a_protocol_that_fails_ends_its_link_and_no_other(tmp_path: Path, method: str) -> None:
    text = (EXAMPLES / "time_bins.py").read_text()
    lines = text.splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if f"def {method}(" in line)
    lines.insert(place + 1, "        if self.facts.link == 'a--b':\n            raise RuntimeError('no')\n")
    broken = tmp_path / "broken.py"
    broken.write_text("".join(lines))
    heap, quantum, ears = network(load_plugins([broken, *FILES[1:]]).policies, {})
    quantum.perform("a", Generate(request="bad", link="a--b", pairs=0))
    quantum.perform("c", Generate(request="good", link="b--c", pairs=3))
    if method == "withdraw":
        quantum.perform("a", Cancel(request="no-more", generate="bad"))
    heap.advance_to(SECOND_PS)
    assert [report.ok for report in ears["c"].heard if report.request == "good"] == [True] * 3
    said = [report for report in ears["a"].heard if not report.ok]
    if method != "withdraw":  # a request that had been cancelled is not told
        assert [(report.request, report.code) for report in said] == [("bad", "instruction.link_failed")]
        assert said[0].reason == (
            f"{broken}:{place + 3}: plug-in 'time-bins': {method} on link a--b raised RuntimeError: no"
        )
    with pytest.raises(Faulty) as failed:
        quantum.perform("b", Generate(request="again", link="a--b"))
    assert failed.value.code == "instruction.link_failed"
    assert f"{method} on link a--b raised RuntimeError" in failed.value.reason


def test_a_memory_that_fails_refuses_the_instruction_that_asked_it(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        MEMORY.replace(
            "return (1.0, 1.0, 1.0, 0.0)",
            "return (1.0, 1.0, 1.0, 0.0) if elapsed_ps in (0, 10**12) else 1 / 0",
        )
    )
    policies = load_plugins([path, *FILES]).policies
    heap, quantum, ears = network(policies, {'"stretched"': '"mine"', "exponent = 2.0\n": ""})
    quantum.perform("a", Generate(request="g", link="a--b"))
    heap.advance_to(SECOND_PS)
    (report,) = ears["a"].heard
    with pytest.raises(Faulty) as failed:
        quantum.perform("a", Measure(request="m", handle=report.handles[0]))
    assert failed.value.code == "plugin.failed"
    assert f"{path}:5: plug-in 'mine': decay(" in failed.value.reason
    assert "raised ZeroDivisionError" in failed.value.reason


def test_a_memory_that_fails_is_logged_once(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(MEMORY.replace("1.0, 1.0, 1.0, 0.0", "1.0, 1.0, 1.0, elapsed_ps // 10**13"))
    with capture_logs() as logs:
        memory = load_plugins([path]).policies.memories["mine"]({})
        memory.decay(1)
        assert not logs
        for _ in range(2):
            with pytest.raises(Faulty):
                memory.decay(10**14)
    assert [(line["event"], line["plugin"], line["log_level"]) for line in logs] == [
        ("plugin.failed", "mine", "error")
    ]
    assert "decay(100000000000000) is (1.0, 1.0, 1.0, 10)" in logs[0]["reason"]


def test_an_operation_that_takes_time_tells_what_a_memory_raised(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        MEMORY.replace(
            "return (1.0, 1.0, 1.0, 0.0)",
            "return (1.0, 1.0, 1.0, 0.0) if elapsed_ps in (0, 10**12) else 1 / 0",
        )
    )
    policies = load_plugins([path, *FILES]).policies
    edit = {'"stretched"': '"mine"', "exponent = 2.0\n": "operation_s = 0.001\n"}
    heap, quantum, ears = network(policies, edit)
    quantum.perform("a", Generate(request="g", link="a--b"))
    heap.advance_to(SECOND_PS)
    quantum.perform("a", Measure(request="m", handle=ears["a"].heard[0].handles[0]))
    heap.advance_to(2 * SECOND_PS)
    last = ears["a"].heard[-1]
    assert (last.request, last.ok, last.code) == ("m", False, "plugin.failed")


def test_time_stands_still_while_a_plug_in_decides(tmp_path: Path) -> None:
    path = tmp_path / "p.py"
    path.write_text(
        LINK.replace("        pass\n    def raw", "        self.host = host\n    def raw").replace(
            "slot):\n        pass\n    def withdraw",
            "slot):\n        assert self.host.now_ps() == self.host.now_ps(), 'it moved'\n    def withdraw",
        )
    )
    clock = itertools.count(1)

    class Moving:
        now_ps = staticmethod(lambda: next(clock))

    facts = LinkFacts(
        link="a--b",
        sites=("a", "b"),
        success_probability=0.5,
        delay_ps=2,
        photon_ps=1,
        herald_ps=(1, 1),
        reset_ps=0,
        memories=1,
    )
    protocol = load_plugins([path]).policies.handshakes["mine"]["jump"](facts, cast("LinkHost", Moving()))
    protocol.raw(0, 0)
    assert next(clock) == 3, "asked before the call, not in it"
