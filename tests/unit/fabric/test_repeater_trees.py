"""GHZ states of trees of several junctions, graph states edge by edge: the oracle and closed forms agree."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import msgspec
import pytest
from tests.support.repeaters import CONTROLLER, Lab, circuit, run_lab
from tests.support.repeaters import job as job_of

from multiplane.api.fabric_units import HeldState
from multiplane.fabric.planes import Job, Junction
from multiplane.fabric.resource.job_part import check_job
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id
from multiplane.physics.bell import werner
from multiplane.physics.multipartite import ghz_from_tree, graph_state
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind

from .test_repeater_states import Edges, errors, ghz, graph, overlap, qubits

SIDES = ("am", "bm", "nm", "cn", "dn")
"""Two parties on either side of a link: m and n join, neither is a party."""
DEEP = ("am", "nm", "cn", "on", "do", "eo")
"""Three junctions in a row, of which n is a party."""


def net(
    *pairs: str, fidelity: float = 1.0, memory: MemoryKind | None = None, memories: int = 4
) -> Entanglement:
    """Links between sites of one letter."""
    kind = memory.name if memory else ""
    links = tuple(
        Entangled(
            id=link_id(*pair),
            sites=(min(pair), max(pair)),
            length_km=20.0,
            loss_db=4.0,
            type="fixed",
            numbers=(("fidelity", fidelity),),
            memories=memories,
            memory=(kind, kind),
            handshake="plain",
        )
        for pair in pairs
    )
    return Entanglement(state_model="dense", memories=(memory,) if memory else (), links=links)


def web(*paths: str, parties: str, kind: str = "ghz", **values: Any) -> Job:
    """A job of these circuits, each joined at the end of its path; who is given nothing names the states."""
    share, measure = values.pop("sacrifice_share", 0.0), values.pop("measure", "")
    circuits = [circuit(path, name=path, sacrifice_share=share, measure=measure) for path in paths]
    owners = dict.fromkeys(path[-1] for path in paths)
    several = {site for site in parties if sum(path[0] == site for path in paths) > 1}
    junctions = tuple(
        Junction(
            junction=f"o/{site}",
            order_id="o",
            binding=1,
            site=site,
            circuits=tuple(path for path in paths if path[-1] == site),
            given=tuple(path for path in paths if path[0] == site),
            kind="edges" if kind == "graph" else kind,
            party=site in parties,
        )
        for site in (*owners, *sorted(several - owners.keys()))
    )
    return job_of(*circuits, junctions=junctions, kind=kind, sites=tuple(parties), **values)


def edges_of(parties: str, paths: tuple[str, ...]) -> Edges:
    return tuple((parties.index(path[0]), parties.index(path[-1])) for path in paths)


@pytest.mark.parametrize(
    ("paths", "parties"),
    [(SIDES, "abcd"), (DEEP, "ancde"), (DEEP, "acde"), (("ba", "cb", "dc"), "abcd")],
)
def test_ghz_states_of_a_tree_have_the_fidelity_of_the_closed_form(
    paths: tuple[str, ...], parties: str
) -> None:
    async def work(lab: Lab) -> None:
        await lab.take_on(web(*paths, parties=parties, size=3))
        await lab.until(lambda: all(len(lab.ears[site].held) == 3 for site in parties), within_s=1.0)
        ends = [(path[0], path[-1]) for path in paths]
        formula = ghz_from_tree(ends, parties, [werner(0.95)] * len(paths))
        for at in range(3):
            found = overlap(lab, qubits(lab, parties, at), ghz(len(parties)))
            assert found == pytest.approx(formula, abs=1e-9)
        for site in parties:
            assert lab.ears[site].held[0].fidelity == pytest.approx(formula, abs=1e-9)
        await lab.sleep_s(0.05)
        assert lab.held() == 3 * len(parties)

    run_lab(net(*paths, fidelity=0.95), work)


LINE = ("ba", "cb", "dc")
RING = ("ba", "da", "cb", "cd")
STAR = ("ba", "ca", "da")
COMPLETE = tuple(b + a for a, b in combinations("abcd", 2))


@pytest.mark.parametrize("paths", [LINE, RING, STAR, COMPLETE, ("ba", "ca", "cb", "dc", "ed", "fe")])
def test_graph_states_edge_by_edge_have_just_their_edges(paths: tuple[str, ...]) -> None:
    parties = "".join(sorted({site for path in paths for site in path}))

    async def work(lab: Lab) -> None:
        await lab.take_on(web(*paths, parties=parties, kind="graph", size=3))
        await lab.until(lambda: all(len(lab.ears[site].held) == 3 for site in parties), within_s=1.0)
        for at in range(3):
            wanted = graph(len(parties), edges_of(parties, paths))
            assert overlap(lab, qubits(lab, parties, at), wanted) == pytest.approx(1.0, abs=1e-9)
        await lab.sleep_s(0.05)
        assert lab.held() == 3 * len(parties)

    for seed in (1, 2, 3):
        run_lab(net(*paths), work, seed=seed)


@pytest.mark.parametrize("paths", [LINE, RING])
def test_graph_states_edge_by_edge_have_the_fidelity_of_the_closed_form(paths: tuple[str, ...]) -> None:
    async def work(lab: Lab) -> None:
        await lab.take_on(web(*paths, parties="abcd", kind="graph", size=1))
        await lab.until(lambda: all(lab.ears[site].held for site in "abcd"), within_s=1.0)
        edges = edges_of("abcd", paths)
        formula = graph_state(4, edges, [werner(0.95)] * len(paths))
        assert overlap(lab, qubits(lab, "abcd"), graph(4, edges)) == pytest.approx(formula, abs=1e-9)
        bound = lab.ears["a"].held[0].fidelity
        assert bound == pytest.approx(0.95 ** len(paths), abs=1e-9)
        assert bound < formula

    run_lab(net(*paths, fidelity=0.95), work)


@pytest.mark.parametrize(("paths", "kind"), [(SIDES, "ghz"), (LINE, "ghz"), (RING, "graph")])
def test_sacrificed_states_of_several_junctions_show_no_errors_without_noise(
    paths: tuple[str, ...], kind: str
) -> None:
    async def work(lab: Lab) -> None:
        await lab.take_on(web(*paths, parties="abcd", kind=kind, size=4, sacrifice_share=0.95))
        await lab.until(lambda: all(len(lab.ears[leaf].held) == 4 for leaf in "abcd"), within_s=1.0)
        await lab.sleep_s(0.01)
        root = "m" if paths is SIDES else "a"
        checked, wrong = (sum(column) for column in zip(*errors(lab, root), strict=True))
        assert checked >= 8
        assert wrong == 0

    run_lab(net(*paths, memories=8), work)


@pytest.mark.parametrize(
    ("paths", "parties", "kind", "basis", "even"),
    [
        (SIDES, "abcd", "ghz", "z", ("ab", "bc", "cd")),
        (DEEP, "ancde", "ghz", "z", ("an", "nc", "cd", "de")),
        (SIDES, "abcd", "ghz", "x", ("abcd",)),
        (("ba", "cb"), "abc", "graph", "x", ("ac",)),
    ],
)
def test_states_that_are_measured_as_they_come_give_the_bits_of_the_state(
    paths: tuple[str, ...], parties: str, kind: str, basis: str, even: tuple[str, ...]
) -> None:
    async def work(lab: Lab) -> None:
        await lab.take_on(web(*paths, parties=parties, kind=kind, measure=basis, size=20))
        await lab.until(lambda: all(len(lab.ears[site].held) == 20 for site in parties))
        bits = {site: {held.state: held.bits for held in lab.ears[site].held} for site in parties}
        assert {held.address for site in parties for held in lab.ears[site].held} == {""}
        for state in bits[parties[0]]:
            for sites in even:
                assert sum(bits[site][state][0] for site in sites) % 2 == 0
        assert {one[0] for one in bits[parties[0]].values()} == {0, 1}
        await lab.sleep_s(0.05)
        assert lab.held() == 0

    run_lab(net(*{path[at : at + 2] for path in paths for at in range(len(path) - 1)}), work)


def test_what_rests_is_in_the_promise() -> None:
    """Memories that dephase: each end says what the state is when it is handed its part, to 1 in 1000."""
    kind = MemoryKind(name="warm", model="t1-t2", numbers=(("t2_s", 0.05),))
    seen: list[tuple[float, float]] = []

    async def work(lab: Lab) -> None:
        def look(held: HeldState) -> None:
            if all(lab.ears[site].held for site in "abcd"):
                seen.append((overlap(lab, qubits(lab, "abcd"), ghz(4)), held.fidelity))

        for ear in lab.ears.values():
            ear.then = look
        await lab.take_on(web(*SIDES, parties="abcd", size=1))
        await lab.until(lambda: bool(seen), within_s=1.0)

    for seed in range(5):
        run_lab(net(*SIDES, fidelity=0.98, memory=kind), work, seed=seed)
    for true, said in seen:
        assert true < ghz_from_tree([(path[0], path[1]) for path in SIDES], "abcd", [werner(0.98)] * 5) - 0.02
        assert 0.0 <= true - said < 0.01


def test_a_part_that_is_lost_takes_back_all_others_and_another_state_comes() -> None:
    """The memory of d throws its qubit away after 20 ms; d hangs on n, the others on m."""
    short = MemoryKind(name="short", cutoff_s=0.02)
    links = net(*SIDES)
    ends = [("short", "") if link.id == "d--n" else ("", "") for link in links.links]
    entangled = tuple(
        msgspec.structs.replace(link, memory=end) for link, end in zip(links.links, ends, strict=True)
    )

    async def work(lab: Lab) -> None:
        await lab.take_on(web(*SIDES, parties="abcd", size=1))
        await lab.until(lambda: all(len(lab.ears[site].held) == 2 for site in "abcd"), within_s=0.04)
        for site in "abcd":
            first, second = (held.state for held in lab.ears[site].held)
            assert [lost.state for lost in lab.ears[site].lost] == [first] != [second]
        assert overlap(lab, qubits(lab, "abcd", 1), ghz(4)) == pytest.approx(1.0)
        await lab.sleep_s(0.005)
        assert lab.held() == 4

    run_lab(msgspec.structs.replace(links, memories=(short,), links=entangled), work)


BROKEN = [
    ({"given": ()}, "given"),
    ({"given": ("nm", "am")}, "given"),
    ({"site": "d"}, "site"),
    ({"kind": "tree"}, "kind"),
    ({"circuits": ("cn",)}, "junctions"),
    ({"party": True}, "sites"),
]


@pytest.mark.parametrize(("change", "field"), BROKEN)
def test_junctions_that_cannot_work_together_are_refused(change: dict[str, Any], field: str) -> None:
    good = web(*SIDES, parties="abcd")

    async def work(lab: Lab) -> None:
        sheets = {sheet.link: sheet for sheet in await lab.agents["n"].sheets(CONTROLLER)}
        check_job(good, "n", sheets, 0)
        junctions = (good.junctions[0], msgspec.structs.replace(good.junctions[1], **change))
        with pytest.raises(Refused, match=f"repeater.job: {field}: "):
            check_job(msgspec.structs.replace(good, junctions=junctions), "n", sheets, 0)

    run_lab(net(*SIDES), work)
