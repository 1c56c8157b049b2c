"""States of many parties by repeaters, sacrificed ones, purification: the oracle and closed forms agree."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.support.quantum import chain
from tests.support.repeaters import CONTROLLER, Lab, circuit, element, job, run_lab

from multiplane.api.fabric_units import HeldState
from multiplane.api.states import Step
from multiplane.fabric.planes import Job, Junction
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id
from multiplane.physics.bell import fidelity, swap, werner
from multiplane.physics.multipartite import ghz_from_star, ghz_with_centre
from multiplane.physics.operations import depolarising16
from multiplane.physics.purification import bbpssw, dejmps
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind

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


def errors(lab: Lab, site: str) -> list[tuple[int, int]]:
    return list(lab.controller.job_of(site).errors)


@pytest.mark.parametrize(("party", "kind"), [(True, "ghz"), (False, "ghz"), (True, "graph")])
def test_sacrificed_states_of_many_parties_show_no_errors_without_noise(party: bool, kind: str) -> None:
    edges = ((0, 1), (1, 2), (2, 3)) if kind == "graph" else ()

    async def work(lab: Lab) -> None:
        given = star_job("abc", party=party, kind=kind, edges=edges, size=4, sacrifice_share=0.8)
        await lab.take_on(given)
        await lab.until(lambda: all(len(lab.ears[leaf].held) == 4 for leaf in "abc"))
        await lab.sleep_s(0.01)
        checked, wrong = (sum(column) for column in zip(*errors(lab, "m"), strict=True))
        assert checked >= 8
        assert wrong == 0

    run_lab(star("abc", memories=8), work)


def test_sacrificed_states_show_the_errors_of_their_fidelity() -> None:
    """A third of the states is measured in each basis; each shows 2 (1 - F) / 3 errors of a Werner pair."""

    async def work(lab: Lab) -> None:
        one = circuit("am", sacrifice_share=0.999, window=(4,))
        await lab.take_on(job(one, size=0))
        await lab.sleep_s(0.15)
        for checked, wrong in errors(lab, "a"):
            expected = 2 * (1 - 0.85) / 3
            assert checked > 80
            assert abs(wrong - expected * checked) < 4 * (checked * expected * (1 - expected)) ** 0.5
        names = {held.state for held in lab.ears["a"].held}
        assert names == {held.state for held in lab.ears["m"].held}, "both ends sacrifice the same"

    run_lab(star("a", fidelity=0.85, memories=4), work)


@pytest.mark.parametrize("protocol", ["dejmps", "bbpssw"])
@pytest.mark.parametrize(("rounds", "end_rounds"), [(1, 0), (2, 0), (0, 1), (1, 1)])
def test_purified_pairs_have_the_fidelity_that_is_promised(
    protocol: str, rounds: int, end_rounds: int
) -> None:
    rule = dejmps if protocol == "dejmps" else bbpssw
    pair = werner(0.9)
    for _ in range(rounds):
        pair, _success = rule(pair, pair, depolarising16(1.0), 0.0)
    pair = swap(pair, pair)
    for _ in range(end_rounds):
        pair, _success = rule(pair, pair, depolarising16(1.0), 0.0)
    expected = fidelity(pair)

    async def work(lab: Lab) -> None:
        one = circuit("abc", rounds=(rounds,) * 2, end_rounds=end_rounds, protocol=protocol, window=(4,) * 2)
        await lab.take_on(job(one, size=2))
        await lab.until(lambda: all(len(lab.ears[site].held) == 2 for site in "ac"))
        for near, far in zip(*(sorted(lab.ears[site].held, key=state) for site in "ac"), strict=True):
            assert near.state == far.state
            handle = int(near.address.split("/")[1])
            assert lab.oracle.partner("a", handle) == ("c", int(far.address.split("/")[1]))
            true = fidelity(lab.oracle.pair("a", handle))
            assert near.fidelity == pytest.approx(true, abs=2e-3 if protocol == "bbpssw" else 1e-9)
            assert near.fidelity == pytest.approx(expected, abs=1e-3)

    def state(held: HeldState) -> str:
        return held.state

    run_lab(chain("abc", numbers={"fidelity": 0.9, "success_probability": 0.5}, memories=8), work)


def test_halves_measured_as_they_come_give_the_bits_of_phi_plus() -> None:
    async def work(lab: Lab) -> None:
        for basis in "xyz":
            one = circuit("abcd", name=basis, order_id=basis, measure=basis, window=(1,) * 3)
            await lab.take_on(job(one, size=20))
        await lab.until(lambda: all(len(lab.ears[site].held) == 60 for site in "ad"))
        far = {(held.order_id, held.state): held.bits for held in lab.ears["d"].held}
        for held in lab.ears["a"].held:
            assert held.address == ""
            assert (held.bits == far[held.order_id, held.state]) == (held.order_id != "y")
        await lab.sleep_s(0.05)
        assert lab.held() == 0

    run_lab(chain("abcd", numbers={"fidelity": 1.0}), work)


@pytest.mark.parametrize("basis", ["x", "y", "z"])
def test_pairs_that_are_purified_at_their_ends_are_measured_after_that(basis: str) -> None:
    async def work(lab: Lab) -> None:
        one = circuit("abc", measure=basis, window=(2, 2), end_rounds=1, end_cutoff_ns=10**9)
        await lab.take_on(job(one, size=10))
        await lab.until(lambda: all(len(lab.ears[site].held) >= 10 for site in "ac"))
        far = {held.state: held.bits for held in lab.ears["c"].held}
        for held in lab.ears["a"].held[:10]:
            assert held.address == ""
            assert (held.bits == far[held.state]) == (basis != "y")

    run_lab(chain("abc", numbers={"fidelity": 1.0}, memories=4), work)


@pytest.mark.parametrize(
    ("path", "levels"), [("abcde", (0, 1, 0)), ("abcde", (0, 1, 2)), ("abcdefghi", (0, 1, 0, 2, 0, 1, 0))]
)
def test_swaps_wait_for_those_of_lower_level(path: str, levels: tuple[int, ...]) -> None:
    async def work(lab: Lab) -> None:
        hops = len(path) - 1
        await lab.take_on(job(circuit(path, levels=levels, window=(2,) * hops), size=3))
        await lab.until(lambda: all(len(lab.ears[site].held) == 3 for site in (path[0], path[-1])))
        for held in lab.ears[path[-1]].held:
            rows = await lab.agents[path[-1]].trace(CONTROLLER, "o", held.state)
            swaps = {row.site: row for row in rows if row.what == "swap"}
            assert len(swaps) == hops - 1
            for site, level in zip(path[1:-1], levels, strict=True):
                for other, lower in zip(path[1:-1], levels, strict=True):
                    if lower < level and abs(path.index(other) - path.index(site)) == 1:
                        assert swaps[other].at_ns < swaps[site].at_ns
            handle = int(held.address.split("/")[1])
            assert fidelity(lab.oracle.pair(path[-1], handle)) == pytest.approx(held.fidelity)

    run_lab(chain(path), work)


def test_swaps_that_fail_are_made_up_for() -> None:
    kind = MemoryKind(name="optics", swap_success_probability=0.5)

    async def work(lab: Lab) -> None:
        await lab.take_on(job(circuit("abcd"), size=3))
        await lab.until(lambda: all(len(lab.ears[site].held) == 3 for site in "ad"))
        await lab.sleep_s(0.05)
        assert lab.held() == 6
        assert lab.channels.sent["expire"] > 0

    run_lab(chain("abcd", memory=kind), work)


@pytest.mark.parametrize("party", [True, False])
def test_a_junction_takes_the_messages_and_the_time_that_the_page_derives(party: bool) -> None:
    legs = ("am", "bm", "xcm")
    sites = (*"m" * party, "a", "b", "x")
    links = star("abc")
    far = msgspec.structs.replace(links.links[0], id=link_id("c", "x"), sites=("c", "x"))
    sure = tuple(
        msgspec.structs.replace(link, numbers=(("fidelity", 1.0), ("success_probability", 1.0)))
        for link in (*links.links, far)
    )

    def given(order: str) -> Job:
        circuits = [circuit(path, name=path, order_id=order) for path in legs]
        junction = Junction(
            junction="j", order_id=order, binding=1, site="m", circuits=legs, kind="ghz", party=party
        )
        return job(*circuits, junctions=(junction,), kind="ghz", sites=sites, size=1)

    async def work(lab: Lab) -> None:
        for round_ in (1, 2):  # in the first one channels are opened too
            lab.channels.sent.clear()
            begun_ns = lab.timeline.now_ns()
            await lab.take_on(given(f"o{round_}"))
            await lab.until(lambda: all(len(lab.ears[site].held) == round_ for site in sites))  # noqa: B023
            await lab.sleep_s(0.05)
            await lab.drop(f"o{round_}")
        hops, longest, delay_ns = 4, 2, 100_000
        assert lab.ears["x"].at_ns[1] - begun_ns == delay_ns + 100_000 + 2 * longest * delay_ns
        sent = {"create": 2 * hops, "track": hops, "joined": hops, "want": hops}
        assert dict(lab.channels.sent) == sent

    run_lab(msgspec.structs.replace(links, links=sure), work)


def test_pairs_of_a_junction_may_be_purified_before() -> None:
    async def work(lab: Lab) -> None:
        legs = [
            circuit("xcm", name="c", rounds=(1, 1), end_rounds=1, window=(4, 4)),
            circuit("am", name="a", rounds=(1,), window=(4,)),
        ]
        junction = Junction(
            junction="j", order_id="o", binding=1, site="m", circuits=("c", "a"), kind="ghz", party=True
        )
        await lab.take_on(job(*legs, junctions=(junction,), kind="ghz", sites=("m", "x", "a"), size=1))
        await lab.until(lambda: all(lab.ears[site].held for site in "mxa"))
        found = overlap(lab, qubits(lab, "mxa"), ghz(3))
        assert found == pytest.approx(lab.ears["m"].held[0].fidelity, abs=1e-9)
        assert found > 0.9**3

    links = star("ac", fidelity=0.9, memories=8)
    far = msgspec.structs.replace(links.links[0], id=link_id("c", "x"), sites=("c", "x"))
    run_lab(msgspec.structs.replace(links, links=(*links.links, far)), work)


def test_the_service_works_on_what_it_holds() -> None:
    """Teleportation by steps on addresses: a qubit prepared at one end shows at the other."""

    async def work(lab: Lab) -> None:
        await lab.take_on(job(circuit("abc"), size=2))
        await lab.until(lambda: all(len(lab.ears[site].held) == 2 for site in "ac"))
        here, there = lab.agents["a"], lab.agents["c"]
        near, far = lab.ears["a"].held[0], lab.ears["c"].held[0]
        steps = (
            Step(do="prepare", on=("mine",), state="-"),
            Step(do="gate", on=("mine", near.address), gate="cx"),
            Step(do="gate", on=("mine",), gate="h"),
            Step(do="measure", on=("mine",)),
            Step(do="measure", on=(near.address,)),
        )
        phase, parity = (await here.operate(element("a"), steps)).bits
        turns = tuple(
            Step(do="gate", on=(far.address,), gate=gate)
            for gate, bit in (("x", parity), ("z", phase))
            if bit
        )
        read = Step(do="measure", on=(far.address,), basis="x")
        assert (await there.operate(element("c"), (*turns, read))).bits == (1,)
        with pytest.raises(Refused, match=r"fabric\.address"):
            await there.operate(element("c"), (read,))
        with pytest.raises(Refused, match=r"fabric\.address"):
            await here.operate(element("a"), (Step(do="prepare", on=("a/7",)),))
        with pytest.raises(Refused, match=r"fabric\.step"):
            await here.operate(element("a"), (Step(do="sing", on=(lab.ears["a"].held[1].address,)),))
        with pytest.raises(Refused, match=r"repeater\.not_allowed"):
            await here.operate(element("c"), (read,))

    run_lab(chain("abc", numbers={"fidelity": 1.0}), work)
