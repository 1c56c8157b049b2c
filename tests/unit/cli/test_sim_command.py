"""The command `sim`: what it takes, what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from multiplane.cli.runs import seeds_of


def test_seeds_are_single_or_ranges() -> None:
    assert seeds_of("7") == (7,)
    assert seeds_of("1..4") == (1, 2, 3, 4)
    assert seeds_of("3, 1..2,2..4") == (3, 1, 2, 4)


@pytest.mark.parametrize("text", ["", "x", "4..1", "1..", "..3", "1...3", "-1", "1..20000", "1.5", "¹"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"expected seeds such as 1..32 or 1,3,5..8"):
        seeds_of(text)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("pair",), "--out"),
        (("pair", "--out", "{}/x", "--for", "90"), "--for: got '90', expected a time such as 90s"),
        (("pair", "--out", "{}/x", "--for", "0s"), "--for: got '0s', expected more than 0"),
        (("pair", "--out", "{}/x", "--every", "2h"), "--every: 0.5 looks, expected 1 to 100000"),
        (("pair", "--out", "{}/x", "--seeds", "9..1"), "--seeds"),
        (("pair", "--out", "{}/x", "--jobs", "0"), "--jobs"),
        (("none.toml", "--out", "{}/x"), "none.toml: expected a readable scenario file"),
        (("{}/bad.toml", "--out", "{}/x"), "bad.toml:10: fault[1].kind: got 'cutt', expected 'cut'"),
        (("pair", "--out", "{}/bad.toml"), "--out"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    multiplane: Any, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    bad = 'format = "multiplane-scenario/1"\nname = "x"\ndomain = "x"\n\n[[site]]\nname = "a"\n\n'
    (tmp_path / "bad.toml").write_text(bad + '\n[[fault]]\nkind = "cutt"\n')
    result = multiplane("sim", *(argument.format(tmp_path) for argument in arguments))
    assert result.exit_code == 2
    assert word in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_simulation_ends_with_its_summary_and_runs_no_seed_twice(multiplane: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("sim", "pair", "--for", "30s", "--every", "10s", "--out", str(out))
    done = multiplane(*arguments, "--seeds", "1,2", "--jobs", "2")
    assert done.exit_code == 0, done.output
    assert "2 seeds of 30s, 2 of them run now" in done.output
    assert sorted(path.name for path in out.glob("seed-*")) == ["seed-1.npz", "seed-2.npz"]
    before = (out / "seed-1.npz").stat().st_mtime_ns
    again = multiplane(*arguments, "--seeds", "1..3", "--json")
    assert again.exit_code == 0, again.output
    assert (out / "seed-1.npz").stat().st_mtime_ns == before
    rows = json.loads(again.stdout)
    assert {row["n"] for row in rows if row["quantity"] == "key rate"} == {3}
    other = multiplane("sim", "lab3", "--for", "30s", "--every", "10s", "--out", str(out))
    assert other.exit_code == 2
    assert "holds a run with scenario pair, this one has lab3" in other.output
