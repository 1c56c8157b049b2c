"""Core instructions at the command line: lines in, lines out, errors with the number of their line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from multiplane.cli.twin_instruct import KINDS, instruction_of
from multiplane.kernel.errors import Refused

Run = Callable[..., Result]
GENERATE = {"do": "generate", "request": "g", "link": "a--b", "pairs": 3, "keep": False}
LOOK = {"do": "query", "request": "q", "link": "b--c"}


def give(
    multiplane: Run, folder: Path, *lines: Any, node: str = "b", options: tuple[str, ...] = ()
) -> Result:
    file = folder / "lines.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return multiplane("twin", "instruct", str(file), "--node", node, *options)


@pytest.mark.usefixtures("running")
def test_reports_come_as_lines_and_it_ends_when_all_are_there(multiplane: Run, tmp_path: Path) -> None:
    done = give(multiplane, tmp_path, "# three pairs, and a look", "", GENERATE, LOOK)
    assert done.exit_code == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(report["number"] for report in reports if report["request"] == "g") == [1, 2, 3]
    assert [report["free"] for report in reports if report["request"] == "q"] == [4]


@pytest.mark.usefixtures("running")
def test_a_cancelled_request_is_not_waited_for(multiplane: Run, tmp_path: Path) -> None:
    endless = {**GENERATE, "pairs": 0}
    done = give(multiplane, tmp_path, endless, {"do": "cancel", "request": "c", "generate": "g"})
    assert done.exit_code == 0
    assert '"c"' in done.stdout.splitlines()[-1]


@pytest.mark.usefixtures("running")
def test_what_never_ends_is_waited_for_as_long_as_one_says(multiplane: Run, tmp_path: Path) -> None:
    assert give(multiplane, tmp_path, {**GENERATE, "pairs": 0}, options=("--for", "0.05")).exit_code == 0


BAD: tuple[tuple[Any, str], ...] = (
    ("{", "instruction.value: line: no JSON"),
    ("[1]", "instruction.unknown: do: got no object, expected one of generate"),
    ({"do": "teleprot", "request": "t"}, "instruction.unknown: do: got 'teleprot'"),
    ({"do": "discard", "request": "d"}, "instruction.value: discard: Object missing"),
    ({"do": "discard", "request": "d", "handle": "x"}, "instruction.value: handle: Expected `int`"),
    ({**GENERATE, "basi": "x"}, "instruction.value: basi: unknown field"),
    ({**GENERATE, "basis": "w"}, "instruction.value: basis: got 'w', expected x, y or z"),
    ({**GENERATE, "link": "c--d"}, "instruction.unknown_link: link: no entanglement link 'c--d' at b"),
    ({**GENERATE, "deadline_ns": 5}, "instruction.deadline: deadline_ns: 5 is past"),
    ({**GENERATE, "min_fidelity": 1}, "instruction.fidelity: min_fidelity: 1, expected at most"),
    ({"do": "measure", "request": "m", "handle": 3}, "instruction.foreign_handle: handle: 3 is of another"),
    ({"do": "measure", "request": "n", "handle": 6}, "instruction.unknown_handle: handle: no qubit 6 at b"),
)


@pytest.mark.usefixtures("running")
def test_each_bad_line_is_told_in_one_line_with_its_number(multiplane: Run, tmp_path: Path) -> None:
    lines = [line for line, _ in BAD]
    first = give(multiplane, tmp_path, LOOK, lines[0], LOOK)
    assert (first.exit_code, first.stderr.count("\n"), len(first.stdout.splitlines())) == (2, 1, 1)
    bad = give(multiplane, tmp_path, *lines, LOOK, options=("--keep-going",))
    assert (bad.exit_code, len(bad.stdout.splitlines())) == (2, 1)
    told = bad.stderr.splitlines()
    assert len(told) == len(BAD)
    for number, (line, (_, expected)) in enumerate(zip(told, BAD, strict=True), start=1):
        assert line.startswith(f"multiplane: {tmp_path / 'lines.jsonl'}:{number}: {expected}")


@pytest.mark.usefixtures("running")
def test_nodes_and_files_that_are_not_there(multiplane: Run, tmp_path: Path) -> None:
    bad = give(multiplane, tmp_path, LOOK, node="x")
    assert bad.exit_code == 1
    assert "no quantum devices at 'x', expected one of a, b, c, d, e" in bad.stderr
    assert multiplane("twin", "topics", "--node", "x").exit_code == 1
    missing = multiplane("twin", "instruct", str(tmp_path / "none"), "--node", "a")
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)


@pytest.mark.usefixtures("running")
def test_topics_listens_for_as_long_as_one_says(multiplane: Run) -> None:
    done = multiplane("twin", "topics", "--node", "a", "--for", "0.05")
    assert (done.exit_code, done.stdout) == (0, "")


def test_every_instruction_of_the_set_has_its_word() -> None:
    assert len(KINDS) == 13
    assert {"generate", "prepare-send", "fuse"} <= set(KINDS)


def test_a_line_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(Refused, match="characters, expected at most"):
        instruction_of("x" * 100_000)
