"""States of many parties by repeaters, sacrificed ones, purification: the oracle and closed forms agree."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from tests.support.repeaters import Lab, circuit, job, run_lab

from multiplane.fabric.planes import Job, Junction
from multiplane.kernel.names import link_id
from multiplane.physics.bell import werner
from multiplane.physics.multipartite import ghz_from_star, ghz_with_centre
from multiplane.twin.quantum.devices import Entangled, Entanglement

ROOT = 0.5**0.5
Edges = tuple[tuple[int, int], ...]
Vector = np.ndarray[Any, np.dtype[np.float64]]


def star(leaves: str, *, fidelity: float = 1.0, memories: int = 2) -> Entanglement:
    """Leaves around a site `m`."""
    links = tuple(
        Entangled(
            id=link_id("m", leaf),
            sites=(min("m", leaf), max("m", leaf)),
            length_km=20.0,
            loss_db=4.0,
            type="fixed",
            numbers=(("fidelity", fidelity),),
            memories=memories,
            handshake="plain",
        )
        for leaf in leaves
    )
    return Entanglement(state_model="dense", links=links)


def star_job(leaves: str, *, party: bool, kind: str = "ghz", edges: Edges = (), **values: Any) -> Job:
    share = values.pop("sacrifice_share", 0.0)
    circuits = [circuit(leaf + "m", name=leaf, sacrifice_share=share) for leaf in leaves]
    junction = Junction(
        junction="j",
        order_id="o",
        binding=1,
        site="m",
        circuits=tuple(leaves),
        kind=kind,
        party=party,
        edges=edges,
    )
    sites = (*"m" * party, *leaves)
    return job(*circuits, junctions=(junction,), kind=kind, sites=sites, **values)


def qubits(lab: Lab, sites: str, at: int = 0) -> list[tuple[str, int]]:
    """Where the parts of a state are, of which all ends say the same name."""
    held = [lab.ears[site].held[at] for site in sites]
    assert len({one.state for one in held}) == 1
    return [(one.address.split("/")[0], int(one.address.split("/")[1])) for one in held]


def ghz(count: int) -> Vector:
    vector = np.zeros(2**count)
    vector[0] = vector[-1] = ROOT
    return vector


def graph(count: int, edges: Edges) -> Vector:
    vector = [
        (-1) ** sum(bits[one] * bits[two] for one, two in edges) for bits in product((0, 1), repeat=count)
    ]
    return np.array(vector) / 2 ** (count / 2)


def overlap(lab: Lab, where: list[tuple[str, int]], wanted: Vector) -> float:
    rho = np.array(lab.oracle.density(where))
    return float((wanted.conj() @ rho @ wanted).real)


@pytest.mark.parametrize("party", [True, False])
@pytest.mark.parametrize("leaves", ["ab", "abc"])
def test_ghz_states_of_a_star_have_the_fidelity_of_the_closed_form(leaves: str, party: bool) -> None:
    sites = ("m" if party else "") + leaves

    async def work(lab: Lab) -> None:
        await lab.take_on(star_job(leaves, party=party, size=2))
        await lab.until(lambda: all(len(lab.ears[site].held) == 2 for site in sites))
        formula = (ghz_with_centre if party else ghz_from_star)([werner(0.95)] * len(leaves))
        for at in range(2):
            found = overlap(lab, qubits(lab, sites, at), ghz(len(sites)))
            assert found == pytest.approx(formula, abs=1e-9)
        for site in sites:
            assert lab.ears[site].held[0].fidelity == pytest.approx(formula, abs=1e-9)
        await lab.sleep_s(0.02)
        assert lab.held() == 2 * len(sites)

    run_lab(star(leaves, fidelity=0.95), work)


@pytest.mark.parametrize(
    ("party", "leaves", "edges"),
    [
        (True, "abc", ((0, 1), (1, 2), (2, 3))),
        (True, "abc", ((0, 1), (0, 2), (0, 3), (2, 3))),
        (True, "ab", ((0, 2), (1, 2))),
        (False, "abcd", ((1, 2), (2, 3), (3, 4), (4, 1))),
        (False, "abc", ((1, 2), (2, 3))),
    ],
)
def test_graph_states_have_just_their_edges(party: bool, leaves: str, edges: Edges) -> None:
    sites = ("m" if party else "") + leaves
    shift = 0 if party else 1

    async def work(lab: Lab) -> None:
        await lab.take_on(star_job(leaves, party=party, kind="graph", edges=edges, size=1))
        await lab.until(lambda: all(lab.ears[site].held for site in sites))
        wanted = graph(len(sites), tuple((one - shift, two - shift) for one, two in edges))
        assert overlap(lab, qubits(lab, sites), wanted) == pytest.approx(1.0, abs=1e-9)

    for seed in (1, 2, 3):
        run_lab(star(leaves), work, seed=seed)
