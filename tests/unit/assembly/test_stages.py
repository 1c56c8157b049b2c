"""Stages of two ends: each threshold from both sides, worlds of keys and of pairs, the world as it is now."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from multiplane.api.device import LinkState
from multiplane.api.scenario import WorldLink
from multiplane.assembly.pairs import run_links, run_path
from multiplane.assembly.stages import as_it_is, pair_facts, site_of, stage_between
from multiplane.cli.main import app
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import ends
from multiplane.physics import stages
from multiplane.physics.stages import PairFacts, Stage
from multiplane.twin.scenario import World, load_shipped, parse

GOOD = PairFacts(0.9, 0.8, 0.001, 0.001, 0.0, 400)


def chain(
    *, fidelity: float = 0.98, t2_s: float = 10.0, gate: float = 0.0, memories: int = 4, loss_db: float = 4.0
) -> World:
    """Three sites in a row whose links make Werner pairs and no key, and a fourth that nothing reaches."""
    links = "".join(
        f'[[link]]\na = "{a}"\nb = "{b}"\nlength_km = 20.0\nloss_db = {loss_db}\n'
        f'[[entangled]]\na = "{a}"\nb = "{b}"\ntype = "fixed"\nfidelity = {fidelity}\nmemory = "m"\n'
        f"memories = {memories}\n"
        for a, b in ("ab", "bc")
    )
    sites = "".join(f'[[site]]\nname = "{name}"\n' for name in "abcd")
    return parse(
        'format = "multiplane-scenario/1"\nname = "w"\ndomain = "w"\n[defaults]\nprofile = "bare-fibre"\n'
        f'[[noise]]\nname = "g"\ndouble_error_probability = {gate}\n'
        f'[[memory]]\nname = "m"\nmodel = "t1-t2"\nt1_s = 1e3\nt2_s = {t2_s}\nnoise = "g"\n{sites}{links}',
        "w.toml",
    )


@pytest.mark.parametrize(
    ("facts", "stage", "lacks"),
    [
        (GOOD, Stage.QUANTUM_COMPUTING, ""),
        (GOOD._replace(qubits=349), Stage.FEW_QUBIT_FAULT_TOLERANT, "fewer than 350"),
        (GOOD._replace(qubits=7), Stage.FEW_QUBIT_FAULT_TOLERANT, "fewer than 350"),
        (GOOD._replace(qubits=6), Stage.QUANTUM_MEMORY, "fewer than 7"),
        (GOOD._replace(gate_error=0.0075), Stage.QUANTUM_COMPUTING, ""),
        (GOOD._replace(gate_error=0.0076), Stage.QUANTUM_MEMORY, "two-qubit gates"),
        (GOOD._replace(readout_error=0.01), Stage.QUANTUM_MEMORY, "readouts"),
        (GOOD._replace(idle_error=0.01), Stage.QUANTUM_MEMORY, "during one operation"),
        (GOOD._replace(stored_fidelity=0.5), Stage.ENTANGLEMENT_DISTRIBUTION, "memories"),
        (GOOD._replace(fidelity=0.5), Stage.PREPARE_AND_MEASURE, "not above 0.5"),
        (None, Stage.PREPARE_AND_MEASURE, "make pairs"),
    ],
)
def test_each_threshold_from_both_sides(facts: PairFacts | None, stage: Stage, lacks: str) -> None:
    found = stages.stage(facts, direct=True, trusted=True)
    assert found.stage is stage
    assert lacks in found.lacks
    assert bool(found.lacks) == (stage is not Stage.QUANTUM_COMPUTING)


def test_without_a_quantum_way_there_are_trusted_nodes_or_nothing() -> None:
    assert stages.stage(None, direct=False, trusted=True).stage is Stage.TRUSTED_REPEATER
    assert stages.stage(None, direct=False, trusted=False).stage is Stage.NONE
    with pytest.raises(ValueError, match=r"fidelity: 1\.2"):
        stages.stage(GOOD._replace(fidelity=1.2), direct=True, trusted=True)


def test_worlds_of_keys_reach_stage_1_over_relays_and_2_over_one_link() -> None:
    lab = load_shipped("lab3")
    far = stage_between(lab, "alice", "bob")
    assert (far.stage, far.path) == (1, ("alice", "relay", "bob"))
    near = stage_between(lab, "alice-1", "urn:qkd:lab3:relay:relay-1")
    assert (near.stage, near.path, near.name) == (2, ("alice", "relay"), "prepare and measure")


@pytest.mark.parametrize(
    ("world", "stage"),
    [
        (chain(memories=7), 5),
        (chain(memories=350), 6),
        (chain(memories=3), 4),
        (chain(gate=0.02), 4),
        (chain(t2_s=4e-4), 3),
        (chain(fidelity=0.6), 0),
    ],
)
def test_stages_of_a_chain_that_makes_pairs(world: World, stage: int) -> None:
    found = stage_between(world, "a", "c")
    assert found.stage == stage, found
    assert stage_between(world, "c", "a").stage == stage


def test_light_from_one_end_to_the_other_needs_no_pairs_worth_the_name() -> None:
    assert stage_between(chain(fidelity=0.4), "a", "b").stage == 2
    nothing = stage_between(chain(), "a", "d")
    assert (nothing.stage, nothing.path, nothing.lacks) == (0, (), "links that make key all the way")


def test_fidelity_is_what_the_twin_delivers() -> None:
    world = chain(fidelity=0.95, gate=0.02, t2_s=0.05)
    facts = pair_facts(world, ("a", "b", "c"))
    made = run_path(world, ("a", "b", "c"), 3, for_s=3.0).fidelity
    # What is delivered has waited in line and for the news of the swap, too.
    assert made.size > 300
    assert facts.stored_fidelity - 0.005 < float(made.mean()) < facts.fidelity
    still = chain(fidelity=0.95, gate=0.02, t2_s=1e3)
    exact = float(run_path(still, ("a", "b", "c"), 3, for_s=0.5).fidelity.mean())
    assert pair_facts(still, ("a", "b", "c")).fidelity == pytest.approx(exact, abs=1e-4)


def test_a_pair_of_one_link_is_as_old_as_its_attempt_however_long_that_took_to_come() -> None:
    world = chain(fidelity=0.95, t2_s=2e-3, loss_db=30.0, memories=1)
    made = run_links(world, 3, for_s=20.0)["a--b"].fidelity
    assert made.size > 20
    assert pair_facts(world, ("a", "b")).fidelity == pytest.approx(float(made.mean()), abs=1e-9)
    assert stage_between(world, "a", "b").stage == 4


def test_memories_that_give_up_before_the_answer_keep_nothing() -> None:
    text = (Path(__file__).parents[3] / "src/multiplane/twin/scenarios/chain5.toml").read_text()
    hasty = parse(text.replace("cutoff_s = 0.2", "cutoff_s = 0.001"), "hasty.toml")
    found = stage_between(hasty, "a", "e")
    assert found.stage == 3
    assert found.stored_fidelity == 0.0


def test_the_world_as_it_is_now_counts() -> None:
    world = chain()
    seen = [
        WorldLink(
            ends=ends(*span.sites),
            length_km=span.length_km,
            loss_db=12.0,
            profile=span.profile,
            state=LinkState.UP,
            cut=span.id == "b--c",
            rate_bit_per_s=0.0,
        )
        for span in world.spans
    ]
    now = as_it_is(world, seen)
    assert [(link.id, link.loss_db) for link in now.entanglement.links] == [("a--b", 12.0)]
    assert stage_between(now, "a", "c").stage == 0
    lossy = as_it_is(world, [msgspec.structs.replace(link, cut=False) for link in seen])
    assert stage_between(lossy, "a", "c").fidelity < stage_between(world, "a", "c").fidelity


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(Refused, match="'x': expected a site or application of w: a, b, c, d"):
        site_of(chain(), "x")
    with pytest.raises(Refused, match="'a': expected another site"):
        stage_between(chain(), "a", "a-1")


def test_the_command_says_stage_and_reason() -> None:
    done = CliRunner().invoke(app, ["stage", "a", "e", "--scenario", "chain5"])
    assert done.exit_code == 0
    assert "a and e: stage 4, quantum memory" in done.output
    assert "next: precision: two-qubit gates" in done.output
    told = CliRunner().invoke(app, ["stage", "alice", "bob", "--scenario", "lab3", "--json"])
    assert json.loads(told.output)["stage"] == 1
    wrong = CliRunner().invoke(app, ["stage", "a", "nowhere", "--scenario", "chain5"])
    assert wrong.exit_code == 2
