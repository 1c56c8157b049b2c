"""SeQUeNCe 1.3.x as a backend: links, chains and swaps by its own protocols and state algebra.

Bell weights: SeQUeNCe has them in order phi+, phi-, psi+, psi- (it says I, Z, X, Y), as the contract does.
Memories: its `coherence_time` tau gives coherence exp(-2 t / tau) under pure dephasing, so tau = 2 T2.
"""

import importlib.metadata
import platform
import random
import time
from typing import Any

import numpy
from sequence.app.request_app import RequestApp
from sequence.components.memory import Memory
from sequence.constants import BELL_DIAGONAL_STATE_FORMALISM, SINGLE_HERALDED
from sequence.entanglement_management.generation import EntanglementGenerationA, EntanglementGenerationB
from sequence.entanglement_management.swapping import EntanglementSwappingA, EntanglementSwappingB
from sequence.kernel.timeline import Timeline
from sequence.topology.node import QuantumRouter
from sequence.topology.router_net_topo import RouterNetTopo

SECOND_PS = 10**12
LIGHT_M_PER_S = 2e8
DETECTOR_RATE_HZ = 1e12
START_PS = 10**10
LOWEST_FIDELITY = 0.01

EntanglementGenerationA.set_global_type(SINGLE_HERALDED)
EntanglementGenerationB.set_global_type(SINGLE_HERALDED)
EntanglementSwappingA.set_formalism(BELL_DIAGONAL_STATE_FORMALISM)
EntanglementSwappingB.set_formalism(BELL_DIAGONAL_STATE_FORMALISM)


def describe() -> dict[str, Any]:
    """Facts of the contract."""
    return {
        "contract": 1,
        "name": "sequence",
        "version": importlib.metadata.version("sequence"),
        "runs_on": f"Python {platform.python_version()}, numpy {numpy.__version__}",
        "jobs": ["swap", "link", "chain"],
    }


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Outcome of a job."""
    random.seed(job["seed"])  # some of its parts use the global sources
    numpy.random.seed(job["seed"] % 2**32)
    return {"swap": swap, "link": link, "chain": chain}[job["kind"]](job)


def topology(job: dict[str, Any], hops: int, memories: int) -> tuple[Any, list[str]]:
    """A chain of routers whose names rise along the path, and the names."""
    names = [f"r{index:02d}" for index in range(hops + 1)]
    length_m = job["length_km"] * 1000
    seeds = [int(seed) for seed in numpy.random.SeedSequence(job["seed"]).generate_state(2 * hops + 1)]
    detector = {"efficiency": job["detector_efficiency"], "count_rate": DETECTOR_RATE_HZ, "dark_count": 0}
    memory = {
        "fidelity": job["raw_fidelity"],
        "coherence_time": 2 * job["t2_s"],
        "efficiency": 1,
        "decoherence_errors": [0, 0, 1],
        "cutoff_flag": False,
    }
    swapping = {"swapping_success_prob": job.get("swap_success_probability", 1.0)}
    bsm = {"detectors": [detector, detector], "success_rate": 0.5}
    nodes = [
        {"name": name, "type": "QuantumRouter", "seed": seed, "template": "router"}
        | {"memo_size": memories if name in (names[0], names[-1]) else 2 * memories}
        for name, seed in zip(names, seeds, strict=False)
    ]
    fibres = [
        {"node1": names[index], "node2": names[index + 1], "type": "meet_in_the_middle", "template": "bsm"}
        | {"attenuation": job["loss_db_per_km"] / 1000, "distance": length_m, "seed": seeds[hops + 1 + index]}
        for index in range(hops)
    ]
    companions = [
        {"node1": names[one], "node2": names[two], "distance": (two - one) * length_m}
        | {"delay": int((two - one) * length_m / LIGHT_M_PER_S * SECOND_PS)}
        for one in range(hops + 1)
        for two in range(one + 1, hops + 1)
    ]
    config = {
        "formalism": BELL_DIAGONAL_STATE_FORMALISM,
        "templates": {
            "router": {"MemoryArray": memory, "EntanglementSwapping": swapping},
            "bsm": {"encoding_type": "single_heralded", "SingleHeraldedBSM": bsm},
        },
        "nodes": nodes,
        "qconnections": fibres,
        "cconnections": companions,
    }
    return RouterNetTopo(config), names


class End(RequestApp):  # type: ignore[misc]  # known in its own environment only
    """An end of the path: notes each pair with the true state of it, and frees the memory at once."""

    def __init__(self, node: Any, partner: str, note: Any) -> None:
        super().__init__(node)
        self.partner = partner
        self.note = note

    def get_memory(self, info: Any) -> None:
        """SeQUeNCe calls this with each memory that no rule of its own wants."""
        mine = info.index in self.memo_to_reservation and info.remote_node == self.partner
        if info.state in ("ENTANGLED", "PURIFIED") and mine:
            self.note(info)
            self.node.resource_manager.update(None, info.memory, "RAW")


def weights_of(info: Any, timeline: Any) -> list[float]:
    """Bell weights now of the pair that a memory holds one half of; both halves are aged to now."""
    info.memory.bds_decohere()
    timeline.get_entity_by_name(info.remote_memo).bds_decohere()
    return [float(weight) for weight in timeline.quantum_manager.get(info.memory.qstate_key).state]


def link(job: dict[str, Any]) -> dict[str, Any]:
    """One memory at each end: each wait is one of its intervals between two deliveries."""
    network, names = topology(job, 1, 1)
    timeline = network.get_timeline()
    waits_ps: list[int] = []
    ages_ps: list[int] = []
    weights: list[list[float]] = []
    free_ps = [START_PS]

    def note(info: Any) -> None:
        now = timeline.now()
        waits_ps.append(now - free_ps[0])
        ages_ps.append(now - info.memory.generation_time)
        weights.append(weights_of(info, timeline))
        free_ps[0] = now
        if len(waits_ps) > job["pairs"]:
            timeline.stop()

    nodes = {node.name: node for node in network.get_nodes_by_type("QuantumRouter")}
    asker = End(nodes[names[0]], names[1], note)
    End(nodes[names[1]], names[0], lambda _: None)
    timeline.init()
    asker.start(names[1], START_PS, 10**22, 1, LOWEST_FIDELITY)
    timeline.run()
    # The first wait holds the start of the reservation too.
    return {"waits_ps": waits_ps[1:], "ages_ps": ages_ps[1:], "weights": weights[1:]}


def chain(job: dict[str, Any]) -> dict[str, Any]:
    """Counts at both ends and fidelity at the first, by window."""
    begun_s = time.process_time()
    network, names = topology(job, job["hops"], job["memories"])
    timeline = network.get_timeline()
    windows = job["windows"]
    window_ps = round(job["window_s"] * SECOND_PS)
    begin_ps = START_PS + round(job["warm_s"] * SECOND_PS)
    first, second = [0] * windows, [0] * windows
    fidelity_sums = [0.0] * windows
    first_s = 0.0

    def note_first(info: Any) -> None:
        nonlocal first_s
        index = (timeline.now() - begin_ps) // window_ps
        if 0 <= index < windows:
            first_s = first_s or (timeline.now() - START_PS) / SECOND_PS
            if job.get("first_only"):
                timeline.stop()
            first[index] += 1
            fidelity_sums[index] += weights_of(info, timeline)[0]

    def note_second(_: Any) -> None:
        index = (timeline.now() - begin_ps) // window_ps
        if 0 <= index < windows:
            second[index] += 1

    nodes = {node.name: node for node in network.get_nodes_by_type("QuantumRouter")}
    asker = End(nodes[names[0]], names[-1], note_first)
    End(nodes[names[-1]], names[0], note_second)
    end_ps = begin_ps + windows * window_ps
    timeline.stop_time = end_ps
    timeline.init()
    asker.start(names[-1], START_PS, end_ps + SECOND_PS, job["memories"], LOWEST_FIDELITY)
    built_s = time.process_time()
    timeline.run()
    return {
        "first": first,
        "second": second,
        "fidelity_sums": fidelity_sums,
        "processor_s": time.process_time() - built_s,
        "build_s": built_s - begun_s,
        "first_s": first_s,
    }


def swap(job: dict[str, Any]) -> dict[str, Any]:
    """Its own rule for two given states, without a network."""
    timeline = Timeline(formalism=BELL_DIAGONAL_STATE_FORMALISM)
    node = QuantumRouter("r", timeline, 2, gate_fid=job["gate_fidelity"], meas_fid=job["readout_fidelity"])
    far = [Memory(f"far{index}", timeline, 1, 0, 1, -1, 500) for index in (0, 1)]
    near = list(node.components["r.MemoryArray"])
    for memory, partner, state in zip(near, far, (job["left"], job["right"]), strict=True):
        timeline.quantum_manager.set([memory.qstate_key, partner.qstate_key], state)
        memory.entangled_memory = {"node_id": partner.name, "memo_id": partner.name}
    protocol = EntanglementSwappingA.create(node, "swap", near[0], near[1], 1, is_twirled=job["twirl"])
    return {"weights": [float(weight) for weight in protocol.swapping_res()]}
