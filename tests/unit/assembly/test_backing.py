"""Links that another simulator answers need real time; the state model of a run can be chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiplane.assembly.backing import Backing
from multiplane.assembly.pairs import run_links
from multiplane.assembly.sim.simulate import Request, simulate
from multiplane.assembly.up import in_state_model
from multiplane.kernel.errors import Refused
from multiplane.twin.quantum.policies import POLICIES
from multiplane.twin.scenario import load_shipped, parse
from multiplane.twin.scenario_writing import write

TEXT = write(load_shipped("chain5")).replace(
    '[[entangled]]\na = "a"', '[[entangled]]\nhandshake = "sequence"\na = "a"'
)
ANSWERED = parse(TEXT, "answered.toml")


def test_virtual_time_refuses_a_link_that_answers_in_real_time(tmp_path: Path) -> None:
    assert [link.handshake for link in ANSWERED.entanglement.links].count("sequence") == 1
    with pytest.raises(Refused, match=r"link a--b: .* expected `multiplane up`") as error:
        run_links(ANSWERED, 1, for_s=1.0)
    assert error.value.code == "handshake.real_time"
    file = tmp_path / "answered.toml"
    file.write_text(TEXT)
    request = Request(
        scenario=str(file), out=tmp_path / "out", lasts_ns=10**9, every_ns=10**9, seeds=(1,), jobs=1
    )
    with pytest.raises(Refused, match="link a--b: handshake 'sequence' answers in real time"):
        simulate(request, lambda found, left: None, lambda reached: None)


def test_a_network_refuses_to_start_without_the_backend_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIPLANE_BACKENDS", str(tmp_path))
    with pytest.raises(Refused, match="multiplane backends install sequence"):
        Backing(ANSWERED, 1)
    nothing = Backing(load_shipped("chain5"), None)
    assert nothing.policies(POLICIES).handshakes == POLICIES.handshakes


def test_an_installed_backend_stands_for_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "sequence" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    monkeypatch.setenv("MULTIPLANE_BACKENDS", str(tmp_path))
    policies = Backing(ANSWERED, 1).policies(POLICIES)
    assert policies.handshakes["sequence"] != POLICIES.handshakes["sequence"]
    assert policies.handshakes["grant"] == POLICIES.handshakes["grant"]


def test_the_state_model_of_a_run_can_be_chosen() -> None:
    world = load_shipped("chain5")
    assert in_state_model(world, None) is world
    assert in_state_model(world, "dense").entanglement.state_model == "dense"
    assert in_state_model(in_state_model(world, "dense"), "pairs") == world
    keys_only = load_shipped("pair")
    assert in_state_model(keys_only, "dense") is keys_only
    with pytest.raises(Refused, match="state_model: got 'exact', expected one of pairs, dense"):
        in_state_model(world, "exact")
