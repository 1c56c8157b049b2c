"""Scripts of faults: the grammar, which visit acts, and that a kill really kills."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import multiplane
from multiplane.kernel.errors import Faulty, Refused
from multiplane.runtime.faults import KNOWN_POINTS, LiveFaults, NoFaults, Rule, ScriptedFaults, parse_faults

POINTS = st.sampled_from(sorted(KNOWN_POINTS))


def test_a_script_of_all_forms_is_read_in_order() -> None:
    rules = parse_faults(
        "kill@commit.after:5, fail@commit.before:3x2,slow@commit.before:0.5 , kill@pool.ack.before"
    )
    assert rules == (
        Rule("kill", "commit.after", 5, 5, 0.0),
        Rule("fail", "commit.before", 3, 4, 0.0),
        Rule("slow", "commit.before", 1, 0, 0.5),
        Rule("kill", "pool.ack.before", 1, 1, 0.0),
    )


@pytest.mark.parametrize("script", ["", "  "])
def test_an_empty_script_has_no_rules(script: str) -> None:
    assert parse_faults(script) == ()


@pytest.mark.parametrize(
    "script",
    [
        "kill",
        "kill@",
        "kill@commit.after:0",
        "kill@commit.after:-1",
        "kill@commit.after:1.5",
        "kill@commit.after:1x0",
        "kill@commit.after:x2",
        "kill@commit.after:1,",
        ",kill@commit.after",
        "kill @commit.after",
        "Kill@commit.after",
        "kill@commit.afterwards",
        "kill@pool.ack:1",
        "slow@commit.before",
        "slow@commit.before:0",
        "slow@commit.before:-1",
        "slow@commit.before:nan",
        "slow@commit.before:3601",
        "slow@commit.before:1x2",
        "stop@commit.before:1",
        "fail@commit.before:1 fail@commit.after:1",
    ],
)
def test_bad_text_is_refused_with_the_text_in_the_reason(script: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_faults(script)
    assert refusal.value.code == "faults.syntax"


def test_an_unknown_point_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refused, match=re.escape("commit.before")):
        ScriptedFaults("kill@nowhere:1")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(script: str) -> None:
    with contextlib.suppress(Refused):
        assert all(rule.point in KNOWN_POINTS for rule in parse_faults(script))


@given(
    st.sampled_from(["kill", "fail"]),
    POINTS,
    st.integers(1, 10**9 - 1),
    st.none() | st.integers(1, 10**9 - 1),
)
def test_every_counted_rule_comes_back_as_written(
    action: str, point: str, nth: int, count: int | None
) -> None:
    script = f"{action}@{point}:{nth}" + ("" if count is None else f"x{count}")
    assert parse_faults(script) == (Rule(action, point, nth, nth + (count or 1) - 1, 0.0),)


def test_fail_acts_at_its_visits_and_at_no_other() -> None:
    faults = ScriptedFaults("fail@commit.before:3x2")
    outcomes = []
    for _ in range(6):
        faults.reach("commit.after")
        try:
            faults.reach("commit.before")
            outcomes.append("went on")
        except Faulty as fault:
            outcomes.append(fault.code)
    assert outcomes == ["went on"] * 2 + ["fault.injected"] * 2 + ["went on"] * 2


def test_slow_acts_every_time_and_before_a_later_rule() -> None:
    slept: list[float] = []
    killed: list[int] = []
    faults = ScriptedFaults(
        "slow@answer.before:0.25,kill@answer.before:2",
        sleep=slept.append,
        kill=lambda: killed.append(len(slept)),
    )
    for _ in range(3):
        faults.reach("answer.before")
    assert slept == [0.25] * 3
    assert killed == [2]


def test_kill_ends_the_process_at_once_by_sigkill() -> None:
    program = (
        "from multiplane.runtime.faults import ScriptedFaults\n"
        "faults = ScriptedFaults('kill@answer.after:2')\n"
        "for visit in (1, 2, 3):\n"
        "    faults.reach('answer.after')\n"
        "    print(visit, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1\n")


def test_no_faults_lets_everything_pass() -> None:
    for point in KNOWN_POINTS:
        NoFaults().reach(point)


def test_every_point_that_the_code_reaches_can_be_named_in_a_script() -> None:
    package = Path(multiplane.__path__[0])
    reached = {
        point
        for path in package.rglob("*.py")
        for point in re.findall(r"\.reach\(\"([^\"]+)\"\)", path.read_text(encoding="utf-8"))
    }
    assert reached == KNOWN_POINTS


# --- a script in a file -----------------------------------------------------------------------


def test_a_file_of_faults_is_read_again_whenever_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "faults"
    faults = LiveFaults(path, NoFaults())

    def replace(script: str) -> None:
        draft = tmp_path / "draft"
        draft.write_text(script)
        draft.replace(path)

    faults.reach("commit.before")
    assert faults.step_ns() == 0
    replace("fail@commit.before:2,step@clock:+40")
    faults.reach("commit.before")
    with pytest.raises(Faulty):
        faults.reach("commit.before")
    assert faults.step_ns() == 40_000_000_000
    replace("fail@commit.before:2,step@clock:-40")
    faults.reach("commit.before")
    assert faults.step_ns() == -40_000_000_000
    path.unlink()
    faults.reach("commit.before")
    assert faults.step_ns() == 0
    replace("nonsense")
    with pytest.raises(Refused):
        faults.reach("commit.before")


def test_the_script_of_the_environment_acts_beside_the_file(tmp_path: Path) -> None:
    faults = LiveFaults(tmp_path / "absent", ScriptedFaults("fail@answer.before"))
    with pytest.raises(Faulty):
        faults.reach("answer.before")


@pytest.mark.parametrize("script", ["step@clock", "step@clock:40", "step@clock:+", "step@commit.before:+1"])
def test_a_step_has_a_sign_and_is_of_the_clock(script: str) -> None:
    with pytest.raises(Refused):
        parse_faults(script)
