"""Repeaters under loss, reordering and kills, many interleavings: nothing leaks, no name has two meanings."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.support.quantum import chain
from tests.support.repeaters import CONTROLLER, EPOCH_NS, Lab, circuit, job, run_lab

from multiplane.api.fabric_units import HeldState
from multiplane.fabric.planes import Circuit, Job, Junction
from multiplane.kernel.errors import Busy, MultiplaneError
from multiplane.kernel.names import link_id
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind
from multiplane.twin.quantum.links import lose

UNTIL_NS = EPOCH_NS + 60_000_000
PATHS = ("abcd", "ab", "abc")


def world(rng: random.Random) -> Entanglement:
    """A chain of four with a fifth site beside it; memories that forget, some with a cut-off."""
    kind = MemoryKind(
        name="m",
        model="t1-t2",
        numbers=(("t2_s", 0.05),),
        cutoff_s=rng.choice([0.0, 0.01]),
        swap_success_probability=rng.choice([1.0, 0.5]),
        operation_s=rng.choice([0.0, 2e-5]),
    )
    links = tuple(
        Entangled(
            id=link_id(*pair),
            sites=(pair[0], pair[1]),
            length_km=10.0,
            loss_db=2.0,
            type="fixed",
            numbers=(("fidelity", 0.98), ("success_probability", 0.3)),
            memories=4,
            memory=("m", "m"),
            handshake="grant",
        )
        for pair in ("ab", "bc", "cd", "be")
    )
    return Entanglement(memories=(kind,), links=links)


WEBS = {  # circuits, each joined at the end of its path
    "ghz": (("ab", "eb", "cb", "dc"), "aecd"),
    "graph": (("ab", "cb", "abc"), "abc"),
}


def web(rng: random.Random, **common: Any) -> Job:
    """A tree of two junctions, or a triangle edge by edge."""
    kind = rng.choice(["ghz", "graph"])
    paths, parties = WEBS[kind]
    circuits = [circuit(path, name=path, window=(2,) * (len(path) - 1), **common) for path in paths]
    junctions = tuple(
        Junction(
            junction=f"o/{site}",
            order_id="o",
            binding=common["binding"],
            site=site,
            circuits=tuple(path for path in paths if path[-1] == site),
            given=tuple(path for path in paths if path[0] == site),
            kind="edges" if kind == "graph" else "ghz",
            party=site in parties,
        )
        for site in ("bc" if kind == "ghz" else "bca")
    )
    size = rng.choice([1, 3])
    given: dict[str, Any] = {"size": size, "until_ns": UNTIL_NS, "min_fidelity": 0.5}
    return job(*circuits, junctions=junctions, kind=kind, sites=tuple(parties), **given)


def shape(rng: random.Random, binding: int) -> Job:
    """Some job."""
    common: dict[str, Any] = {"binding": binding, "until_ns": UNTIL_NS}
    share = rng.choice([0.0, 0.3])
    if rng.random() < 0.3:
        return web(rng, sacrifice_share=share, **common)
    if rng.random() < 0.3:
        legs = [circuit(leaf + "b", name=leaf, sacrifice_share=share, window=(2,), **common) for leaf in "ae"]
        party = rng.random() < 0.5
        cut = circuit("cb", name="c", sacrifice_share=share, window=(2,), **common)
        kind = rng.choice(["ghz", "graph"]) if party else "ghz"
        junction = Junction(
            junction="j",
            order_id="o",
            binding=binding,
            site="b",
            circuits=("a", "e", "c"),
            kind=kind,
            party=party,
            edges=((0, 1), (1, 2), (0, 3)) if kind == "graph" else (),
        )
        joined = (*legs, cut)
        size = rng.choice([1, 3])
        sites = (*"b" * party, *"aec")
        return job(
            *joined,
            junctions=(junction,),
            kind=kind,
            sites=sites,
            size=size,
            until_ns=UNTIL_NS,
            min_fidelity=0.5,
        )
    path = rng.choice(PATHS)
    hops = len(path) - 1
    rounds, end_rounds = rng.choice([0, 0, 1]), rng.choice([0, 0, 1])
    one: Circuit = circuit(
        path,
        rounds=(rounds,) * hops,
        end_rounds=end_rounds,
        end_cutoff_ns=rng.choice([0, 2_000_000]),
        window=(max(2, rounds + end_rounds + 1),) * hops,
        levels=tuple(rng.choice([0, 1]) for _ in range(hops - 1)),
        cutoff_ns=(rng.choice([0, 5_000_000]),) * hops,
        measure=rng.choice(["", "", "x"]),
        sacrifice_share=share,
        **common,
    )
    return job(one, size=rng.choice([0, 1, 3]), until_ns=UNTIL_NS, min_fidelity=0.5)


class Witness:
    """Holds every announcement against all others of the same name."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.seen: set[tuple[str, str]] = set()
        self.alive: dict[str, dict[str, int]] = {}
        self.checked = 0

    def at(self, site: str) -> Callable[[HeldState], None]:
        def held(state: HeldState) -> None:
            assert (site, state.state) not in self.seen, "handed over twice"
            self.seen.add((site, state.state))
            if state.address:
                handle = int(state.address.split("/")[1])
                self.alive.setdefault(state.state, {})[site] = handle
                self._compare(state.state, site, handle)

        return held

    def _compare(self, name: str, site: str, handle: int) -> None:
        """Whoever else still has a part of it shares just this state."""
        nodes = self.lab.quantum.nodes
        for other, there in self.alive[name].items():
            if other != site and there in nodes[other].qubits:
                mine, theirs = nodes[site].qubits[handle].state, nodes[other].qubits[there].state
                lost = any(len(getattr(state, "qubits", (0, 0))) < 2 for state in (mine, theirs))
                if type(mine).__name__ == "Single" or type(theirs).__name__ == "Single" or lost:
                    continue  # a third part of it was lost
                assert mine is theirs, f"{name} is two things"
                self.checked += 1


def weather(lab: Lab, rng: random.Random) -> Callable[[bytes, Callable[[bytes], None]], None]:
    """What becomes of messages: some are lost, some overtaken."""
    lose, late = rng.choice([0.0, 0.05, 0.3]), rng.choice([0.0, 0.3])

    def deliver(send: Callable[[bytes], None], message: bytes) -> None:
        with contextlib.suppress(MultiplaneError):  # the channel went meanwhile
            send(message)

    def fate(message: bytes, send: Callable[[bytes], None]) -> None:
        draw = rng.random()
        if draw < lose:
            return
        if draw < lose + late:
            lab.timeline.at_ns(lab.timeline.now_ns() + rng.randrange(1_000_000), deliver, send, message)
        else:
            send(message)

    return fate


async def storm(lab: Lab, rng: random.Random) -> int:
    """Jobs, faults, then calm until all is over."""
    witness = Witness(lab)
    for site, ear in lab.ears.items():
        ear.then = witness.at(site)
    lab.channels.fate = weather(lab, rng)
    binding = 1
    await give(lab, shape(rng, binding))
    for _ in range(rng.randrange(4)):
        await lab.sleep_s(rng.uniform(0.001, 0.012))
        match rng.randrange(4):
            case 0:
                site = rng.choice("abcde")
                await lab.agents[site].close()
                lab.quantum.site_lost(site)
                await lab.start(site)
                lab.ears[site].then = witness.at(site)
            case 1:
                binding += 1
                await give(lab, shape(rng, binding))
            case 2:
                await lab.agents[rng.choice("abcde")].drop(CONTROLLER, "o", "dropped")
            case _:
                lab.quantum.links["b--c"].darken()
    await lab.sleep_s(0.1)
    for site, agent in lab.agents.items():
        assert await agent.jobs(CONTROLLER) == ()
        held = await agent.subscribe(agent._caller, lab.ears[site])
        await agent.discard(agent._caller, tuple(state.address for state in held))
    await lab.sleep_s(0.02)
    assert lab.held() == 0, "a memory leaks"
    return witness.checked


async def give(lab: Lab, given: Job) -> None:
    for site in sorted({site for one in given.circuits for site in one.path}):
        with contextlib.suppress(Busy):  # what was handed over before fills the memories
            await lab.agents[site].take_on(CONTROLLER, given, lab.controller)


def one_run(seed: int) -> int:
    rng = random.Random(seed)
    try:
        return run_lab(world(rng), lambda lab: storm(lab, rng), seed=seed + 1)
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise


def test_nothing_leaks_and_no_name_has_two_meanings() -> None:
    assert sum(one_run(seed) for seed in range(40)) > 20


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_leaks_over_many_interleavings() -> None:
    assert sum(one_run(seed) for seed in range(40, 2_100)) > 1_000


@pytest.mark.parametrize(
    ("path", "rounds", "end_rounds", "loser"),
    [("ab", 1, 0, 0), ("ab", 1, 0, -1), ("abc", 0, 1, 0), ("abc", 0, 1, -1)],
)
def test_a_round_one_end_of_which_loses_a_half_is_given_up(
    path: str, rounds: int, end_rounds: int, loser: int
) -> None:
    """The word of the leader is on its way: with two memories nothing else could be made while it waits."""

    async def work(lab: Lab) -> None:
        far, lost = path[loser], list[int]()

        def fate(message: bytes, send: Callable[[bytes], None]) -> None:
            said = msgspec.msgpack.decode(message)
            if said["is"] == "distil" and not lost:
                qubits = lab.quantum.nodes[far].qubits
                lost.append(max(qubits))
                lose(qubits[lost[0]], lab.timeline.now_ns(), "was lost")
            send(message)

        lab.channels.fate = fate
        hops = len(path) - 1
        one = circuit(path, rounds=(rounds,) * hops, end_rounds=end_rounds, window=(2,) * hops)
        await lab.take_on(job(one, size=2))
        await lab.until(
            lambda: all(len(lab.ears[site].held) == 2 for site in (path[0], path[-1])), within_s=5.0
        )
        assert lost

    run_lab(chain(path, numbers={"fidelity": 0.9, "success_probability": 0.5}, memories=8), work)
