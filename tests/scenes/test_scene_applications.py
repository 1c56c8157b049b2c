"""Applications of shared states against a running network; the stage of two ends as fibres are cut."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest
from tests.scenes.tools.network import Network, running

from multiplane.apps.results import Findings
from multiplane.apps.states import Party
from multiplane.apps.table import APPLICATIONS, run
from multiplane.sdk.units import UnitClient

pytestmark = [pytest.mark.scene, pytest.mark.timeout(200)]

# States and ends of each, so that paths differ.
ASKED = {
    "chsh": (120, ("a1-1", "a3-1")),
    "e91": (1200, ("a3-1", "a5-1")),
    "cnot": (30, ("a1-1", "b2-1")),
    "blind": (30, ("a5-1", "b4-1")),
    "conference": (600, ("a1-1", "a3-1", "b2-1")),
    "sensing": (24, ("a3-1", "b2-1", "b4-1")),
    "clock": (60, ("a1-1", "a3-1")),
}
NOT_WHITE = 0.02
"""Error rates differ by so much along the axes."""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running("ghz20", tmp_path_factory.mktemp("grid")) as network:
        yield network


def test_applications_measure_what_theory_predicts(grid: Network, record_property: Any) -> None:
    assert {*ASKED, "teleport"} == set(APPLICATIONS)
    found = asyncio.run(_all(grid))
    for name, findings in found.items():
        # What is not used within its life is lost, on a busy machine the more the longer it goes on.
        assert findings.states >= 0.5 * ASKED[name][0], findings
        for figure in findings.figures:
            # Theory knows white noise; here bits are flipped less often along z than along x.
            off = abs(figure.value - figure.theory_value) - NOT_WHITE
            assert off < 5.0 * figure.error, (name, figure)
    clock = found["clock"].figures[0]
    # Two links of two devices each, of 50 ps, as the scenario says by default.
    assert clock.error == pytest.approx(50.0 * (4 / found["clock"].states) ** 0.5, rel=0.6)
    chsh = found["chsh"].figures[0]
    assert chsh.value > 2.0
    for name in ("e91", "conference"):
        told = "\n".join(found[name].remarks)
        key = re.search(
            r"a key of (\d+) bits from \d+ sifted ones, in theory (\d+); .* at all [23] ends", told
        )
        assert key, told
        assert int(key[1]) >= 50, told
        record_property("saw", f"{name}: a key of {key[1]} bits, in theory {key[2]}")
    record_property("saw", f"CHSH {chsh.value:.2f} ± {chsh.error:.2f} of {found['chsh'].states} pairs")


async def _all(network: Network) -> dict[str, Findings]:
    return {name: await _one(network, name) for name in ASKED}


async def _one(network: Network, name: str) -> Findings:
    size, ends = ASKED[name]
    async with AsyncExitStack() as stack:
        parties = []
        for end in ends:
            sae = network.saes[end]
            client = UnitClient(network.url(sae.kme), network.ca, sae.cert, sae.key)
            parties.append(Party(end, await stack.enter_async_context(client)))
        return await run(name, parties, Random(name), size=size)


def test_one_runs_by_command(grid: Network) -> None:
    told = grid.cli_json("app", "teleport", "b2", "b4", "--size", "30")
    assert told["states"] >= 24
    (fidelity,) = told["figures"]
    assert abs(fidelity["value"] - fidelity["theory_value"]) < 5.0 * fidelity["error"]
    refused = grid.cli("app", "teleport", "b2", "b4", "--min-fidelity", "1.0", check=False)
    assert refused.returncode == 2
    assert "best: fidelity 0.9" in refused.stderr


def test_a_stage_falls_when_fibres_are_cut(grid: Network) -> None:
    before = grid.cli_json("stage", "a1", "a3")
    assert before["stage"] >= 4
    assert before["path"] == ["a1", "a2", "a3"]
    grid.cli("link", "cut", "a1", "a2")
    around = grid.cli_json("stage", "a1", "a3")
    assert around["path"][:2] == ["a1", "b1"]
    assert around["stored_fidelity"] < before["stored_fidelity"]
    grid.cli("link", "cut", "a1", "b1")
    assert grid.cli_json("stage", "a1", "a3")["stage"] == 0
