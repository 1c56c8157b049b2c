"""QuNetSim as a backend: checks of what an application does with qubits, never of time or rate.

Its hosts are threads on the wall clock and its chance is global, so outcomes are not repeatable with a seed,
and a process serves one question only.
"""

import importlib.metadata
import platform
import random
from collections.abc import Callable
from typing import Any

import numpy
from qunetsim.components import Host, Network
from qunetsim.objects import Logger, Qubit

PATIENCE_S = 10
ROUNDS = 4

Logger.DISABLED = True


def describe() -> dict[str, Any]:
    """Facts of the contract."""
    return {
        "contract": 1,
        "name": "qunetsim",
        "version": importlib.metadata.version("qunetsim"),
        "runs_on": f"Python {platform.python_version()}, eqsn {importlib.metadata.version('eqsn')}",
        "jobs": ["functional"],
        "functional": list(CHECKS),
        "seeded": False,
    }


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Outcome of a job: bits by host, in order of the rounds."""
    random.seed(job["seed"])
    numpy.random.seed(job["seed"] % 2**32)
    names = [f"host{index:02d}" for index in range(job["nodes"])]
    network = Network.get_instance()
    network.start(names)
    hosts = [Host(name) for name in names]
    for index, host in enumerate(hosts):
        for near in (index - 1, index + 1):
            if 0 <= near < len(hosts):
                host.add_connection(names[near])
        host.start()
    network.add_hosts(hosts)
    bits: dict[str, list[int]] = {}
    for number in range(ROUNDS):
        for name, bit in CHECKS[job["check"]](hosts, number).items():
            bits.setdefault(name, []).append(bit)
    return {"bits": bits}


def epr(hosts: list[Any], number: int) -> dict[str, int]:
    """A pair between the ends of the line, measured in Z in even rounds and in X in odd ones."""
    first, last = hosts[0], hosts[-1]
    pair_id, _ = first.send_epr(last.host_id, await_ack=True)
    halves = {
        first.host_id: first.get_epr(last.host_id, q_id=pair_id, wait=PATIENCE_S),
        last.host_id: last.get_epr(first.host_id, q_id=pair_id, wait=PATIENCE_S),
    }
    return {name: measured(half, number) for name, half in halves.items()}


def teleport(hosts: list[Any], number: int) -> dict[str, int]:
    """A bit in the Z or X basis, teleported along the line and measured in the same basis."""
    first, last = hosts[0], hosts[-1]
    qubit = Qubit(first)
    bit = random.getrandbits(1)
    if bit:
        qubit.X()
    if number % 2:
        qubit.H()
    first.send_teleport(last.host_id, qubit, await_ack=True)
    return {
        first.host_id: bit,
        last.host_id: measured(last.get_qubit(first.host_id, wait=PATIENCE_S), number),
    }


def ghz(hosts: list[Any], _number: int) -> dict[str, int]:
    """A GHZ state over all hosts but the first, which makes it; all measured in Z."""
    maker, holders = hosts[0], hosts[1:]
    maker.send_ghz([host.host_id for host in holders], distribute=True)
    return {host.host_id: measured(host.get_ghz(maker.host_id, wait=PATIENCE_S), 0) for host in holders}


def measured(qubit: Any, number: int) -> int:
    """Z in even rounds, X in odd ones. Raises TimeoutError when the qubit never came."""
    if qubit is None:
        raise TimeoutError(f"no qubit arrived within {PATIENCE_S} s")
    if number % 2:
        qubit.H()
    return int(qubit.measure())


CHECKS: dict[str, Callable[[list[Any], int], dict[str, int]]] = {"epr": epr, "teleport": teleport, "ghz": ghz}
