"""The commands of the network's time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from typer.testing import Result

Run = Callable[..., Result]


@pytest.mark.usefixtures("running")
def test_pause_step_rate_resume(multiplane: Run) -> None:
    assert "runs at 1 simulated" in multiplane("twin", "pace").stdout
    refused = multiplane("twin", "step", "1s")
    assert refused.exit_code == 1
    assert "pause it first" in refused.stderr
    assert "paused" in multiplane("twin", "pause").stdout


@pytest.mark.usefixtures("running")
def test_json_and_bad_input(multiplane: Run) -> None:
    assert json.loads(multiplane("twin", "rate", "2.5", "--json").stdout)["rate"] == 2.5
    assert json.loads(multiplane("twin", "resume", "--json").stdout)["paused"] is False
    bad = multiplane("twin", "step", "soon")
    assert bad.exit_code == 2
    assert "duration" in bad.stderr
    assert multiplane("twin", "rate", "fast").exit_code == 2


def test_an_unknown_policy_is_named(multiplane: Run) -> None:
    bad = multiplane("up", "pair", "--late", "ignore")
    assert bad.exit_code == 2
    assert "warn, dilate or fail" in bad.stderr


@pytest.mark.usefixtures("running")
def test_fork_tells_mean_and_spread_of_its_copies(multiplane: Run) -> None:
    words = ("twin", "fork", "--demand", "a--b=2e4", "--without-link", "a--b", "--poisson", "--for", "5s")
    told = json.loads(multiplane(*words, "--copies", "2", "--json").stdout)
    (pair,) = told["pairs"]
    assert told["copies"] == pair["dry_copies"] == 2
    assert 0.0 < pair["dry_sd_s"] < 2.0 * pair["dry_after_s"] < 2.0 * told["looked_s"]
    table = multiplane(*words, "--copies", "2").stdout
    shown = f"{pair['dry_after_s']:.1f} ± {pair['dry_sd_s']:.1f} s"
    assert re.search(rf"^a -> b .* {re.escape(shown)}  ", table, re.MULTILINE)
    refused = multiplane(*words, "--copies", "0")
    assert refused.exit_code == 2
    assert "--copies" in refused.stderr
