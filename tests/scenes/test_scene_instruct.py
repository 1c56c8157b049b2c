"""Entanglement on a running network: pairs on two links, swapped in the middle, measured at both ends.

Three programs, one for each site, speak through `multiplane twin instruct`. They keep books of handles and
times as real controllers would; what the outcomes should be follows from the times in the reports alone.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.network import COMMAND_TIMEOUT_S, Network, alive, command, descendants, running

from multiplane.physics.bell import Correlations
from multiplane.physics.memory import decay
from multiplane.physics.operations import depolarising16, swap_factors
from multiplane.twin.quantum.sources import make_source
from multiplane.twin.scenario import load_shipped

pytestmark = [pytest.mark.scene, pytest.mark.timeout(150)]

RATE = 0.2
"""Slow, so that the programs' answers cost pairs little of their coherence time."""
SWAPS = 240
BASES = ("x", "y", "z")
T1_S, T2_S, FLIP = 10.0, 0.5, 0.005
SWAP = swap_factors(depolarising16(0.99), FLIP)


class Program:
    """One site's program: a command that reads instructions and prints reports."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.hears: Callable[[dict[str, Any]], None] = lambda report: None

    @classmethod
    async def at(cls, network: Network, node: str) -> Program:
        arguments = [*command(), "twin", "instruct", "--node", node, "--keep-going"]
        process = await asyncio.create_subprocess_exec(
            *arguments,
            "--state",
            str(network.state),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process)

    def say(self, **instruction: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(instruction).encode() + b"\n")

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.hears(json.loads(line))

    async def ended(self) -> tuple[int, str]:
        assert self._process.stderr is not None
        said = await self._process.stderr.read()
        return await self._process.wait(), said.decode()

    def hang_up(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


class Books:
    """What the three programs know together."""

    def __init__(self, a: Program, b: Program, c: Program) -> None:
        self.programs = (a, b, c)
        self.outer: dict[tuple[str, int], dict[str, Any]] = {}
        self.waiting: dict[str, deque[dict[str, Any]]] = {"a--b": deque(), "b--c": deque()}
        self.swapping: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.joined: dict[str, tuple[int, list[tuple[dict[str, Any], dict[str, Any]]]]] = {}
        self.results: dict[str, list[dict[str, Any]]] = {}
        self.done: list[tuple[str, int, float]] = []
        self.enough = asyncio.Event()
        a.hears = c.hears = self.at_an_end
        b.hears = self.in_the_middle

    def at_an_end(self, report: dict[str, Any]) -> None:
        if report["request"].startswith("m") and report["ok"]:
            self.results.setdefault(report["request"], []).append(report)
            self.count(report["request"])
        elif report["number"] and report["ok"]:
            self.outer[report["link"], report["number"]] = report
            self.measure()

    def in_the_middle(self, report: dict[str, Any]) -> None:
        if report["request"] in self.swapping:
            left, right = self.swapping.pop(report["request"])
            if report["ok"]:
                self.joined[f"m{report['request']}"] = (report["due_ns"], [(left, {}), (right, {})])
                self.measure()
        elif report["number"]:
            self.heard(report)

    def heard(self, report: dict[str, Any]) -> None:
        """A new half at the middle, or one that was thrown away before it could be used."""
        queue = self.waiting[report["link"]]
        if report["ok"]:
            queue.append(report)
        else:
            gone = [one for one in queue if one["number"] == report["number"]]
            for one in gone:
                queue.remove(one)
        left, right = self.waiting["a--b"], self.waiting["b--c"]
        while left and right:
            request = f"s{len(self.swapping) + len(self.joined) + len(self.done)}-{report['due_ns']}"
            self.swapping[request] = (one, two) = (left.popleft(), right.popleft())
            handles = {"left": one["handles"][0], "right": two["handles"][0]}
            self.programs[1].say(do="swap", request=request, corrected=True, **handles)

    def measure(self) -> None:
        """Both ends measure in one basis as soon as all know of the pair."""
        for request, (_, halves) in self.joined.items():
            for place, (inner, outer) in enumerate(halves):
                found = self.outer.get((inner["link"], inner["number"]))
                if outer or found is None:
                    continue
                halves[place] = (inner, found)
                basis = BASES[sum(request.encode()) % 3]
                program = self.programs[0 if inner["link"] == "a--b" else 2]
                program.say(do="measure", request=request, handle=found["handles"][0], basis=basis)

    def count(self, request: str) -> None:
        """With both outcomes there: their product, and what it should be on average."""
        results = self.results[request]
        if len(results) < 2:
            return
        swapped_ns, halves = self.joined[request]
        basis = BASES[sum(request.encode()) % 3]
        rests_s = [(swapped_ns - inner["since_ns"]) / 1e9 for inner, _ in halves]
        by_node = {outer["node"]: outer for _, outer in halves}
        rests_s += [(one["due_ns"] - by_node[one["node"]]["since_ns"]) / 1e9 for one in results]
        sign = 1 - 2 * (results[0]["bits"][0] ^ results[1]["bits"][0])
        self.done.append((basis, sign, expected(basis, rests_s)))
        if len(self.done) >= SWAPS:
            self.enough.set()


def expected(basis: str, rests_s: list[float]) -> float:
    """Mean product of the two outcomes: two links' pairs, a swap, four rests, two readouts."""
    words = load_shipped("chain5").entanglement.links[0]
    pair = make_source(words, (0.5, 0.5)).pair
    both = Correlations(pair.x**2 * SWAP.x, pair.y**2 * SWAP.y, pair.z**2 * SWAP.z)
    mean = {"x": both.x, "y": -both.y, "z": both.z}[basis]
    for rest_s in rests_s:
        factors = decay(rest_s, T1_S, T2_S)
        mean *= factors[2] if basis == "z" else factors[0]
    return mean * (1.0 - 2.0 * FLIP) ** 2


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running("chain5", tmp_path_factory.mktemp("chain"), "--rate", f"{RATE:g}") as found:
        yield found


def test_pairs_are_swapped_and_measured_as_the_closed_form_predicts(
    network: Network, record_property: Callable[[str, object], None]
) -> None:
    done = asyncio.run(swap_and_measure(network))
    seen = []
    for basis in BASES:
        signs = [(sign, mean) for one, sign, mean in done if one == basis]
        assert len(signs) > SWAPS / 8
        off = sum(sign - mean for sign, mean in signs)
        sigma = math.sqrt(sum(1.0 - mean * mean for _, mean in signs))
        assert abs(off) < 4.0 * sigma, (basis, off, sigma)
        mean, wanted = (sum(part) / len(signs) for part in zip(*signs, strict=True))
        seen.append(f"{basis * 2} {mean:+.3f} of {wanted:+.3f} in {len(signs)}, {off / sigma:+.1f} sigma")
    record_property("saw", "; ".join(seen))


async def swap_and_measure(network: Network) -> list[tuple[str, int, float]]:
    programs = [await Program.at(network, node) for node in ("a", "b", "c")]
    books = Books(*programs)
    listening = [asyncio.create_task(program.listen()) for program in programs]
    programs[0].say(do="query", request="there", link="a--b")
    for link in ("a--b", "b--c"):
        programs[1].say(do="generate", request=f"g-{link}", link=link, pairs=0, corrected=True)
    await asyncio.wait_for(books.enough.wait(), 100.0)
    for link in ("a--b", "b--c"):
        programs[1].say(do="cancel", request=f"c-{link}", generate=f"g-{link}")
    for program in programs:
        program.hang_up()
    for program, task in zip(programs, listening, strict=True):
        code, said = await program.ended()
        await task
        # A half may be thrown away while its instruction is on its way: that is told, and nothing else.
        assert code in (0, 2), said
        assert all("instruction.expired" in line for line in said.splitlines()), said
    return books.done


def test_bad_instructions_are_told_and_the_network_goes_on(network: Network) -> None:
    kept = network.cli("twin", "instruct", lines(network, make("k", keep=True)), "--node", "a")
    handle = json.loads(kept.stdout)["handles"][0]
    asyncio.run(asyncio.sleep(0.25 / RATE))  # beyond the cut-off of 0.2 s of the network's time
    bad = {
        "unknown": {"do": "teleprot", "request": "u"},
        "foreign_handle": {"do": "discard", "request": "f", "handle": handle + 1},
        "deadline": make("d", deadline_ns=1),
        "expired": {"do": "measure", "request": "e", "handle": handle},
    }
    path = lines(network, *bad.values())
    told = network.cli("twin", "instruct", path, "--node", "a", "--keep-going", check=False)
    assert told.returncode == 2
    for number, (code, line) in enumerate(zip(bad, told.stderr.splitlines(), strict=True), start=1):
        assert line.startswith(f"multiplane: {path}:{number}: instruction.{code}: "), line
    first = network.cli("twin", "instruct", path, "--node", "a", check=False)
    assert (first.returncode, first.stderr.count("\n")) == (2, 1)
    network.check_runs()
    again = network.cli("twin", "instruct", lines(network, make("z", keep=False)), "--node", "a")
    assert len(json.loads(again.stdout)["bits"]) == 3
    report = network.cli_json("status")
    assert report["pair_links"][0]["pairs"] >= SWAPS
    metrics = network.cli("metrics").stdout
    assert "multiplane_reports_early_total 0.0" in metrics
    assert 'multiplane_report_lateness_seconds{quantile="0.99"}' in metrics


def test_a_killed_network_leaves_nothing_and_whoever_listened_is_told(network: Network) -> None:
    assert network.process is not None
    pids = descendants(network.process.pid)

    async def listen() -> tuple[int, str]:
        program = await Program.at(network, "a")
        listening = asyncio.create_task(program.listen())
        heard = asyncio.Event()
        program.hears = lambda report: heard.set()
        program.say(do="query", request="still there", link="a--b")
        await asyncio.wait_for(heard.wait(), COMMAND_TIMEOUT_S)
        network.kill_all()
        ended = await asyncio.wait_for(program.ended(), COMMAND_TIMEOUT_S)
        await listening
        return ended

    code, said = asyncio.run(listen())
    assert code == 1
    assert said.startswith("multiplane: the network is gone")
    assert not [pid for pid in pids if alive(pid)]
    network.start()


def make(request: str, **more: Any) -> dict[str, Any]:
    return {"do": "generate", "request": request, "link": "a--b", **more}


def lines(network: Network, *instructions: dict[str, Any]) -> str:
    path: Path = network.folder / "lines.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in instructions))
    return str(path)
