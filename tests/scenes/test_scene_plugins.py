"""Classes of one's own under a running network: what its devices report has the laws of their formulas."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import exp, sqrt
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.network import Network, command, running

pytestmark = [pytest.mark.scene, pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = [str(EXAMPLES / name) for name in ("time_bins.py", "stretched.py", "biased.py")]
P, CYCLE_NS, MEMORIES, WERNER = 0.02, 500_000, 64, (4 * 0.98 - 1) / 3
PHASE, OTHER = 0.54, 0.06
ROUNDS, HOLD_S, PATIENCE_S = 5, 0.6, 20.0


class Desk:
    """`multiplane twin instruct` at one site, line by line."""

    def __init__(self, network: Network, site: str) -> None:
        words = ["twin", "instruct", "--node", site, "--state", str(network.state)]
        self.process = subprocess.Popen(
            [*command(), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._heard: queue.Queue[dict[str, Any]] = queue.Queue()
        self._requests = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._heard.put(json.loads(line))

    def ask(self, do: str, **words: Any) -> str:
        """Give one instruction; the name of its request."""
        self._requests += 1
        request = f"{do}-{self._requests}"
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "request": request, **words}) + "\n")
        self.process.stdin.flush()
        return request

    def hear(self, count: int, about: str) -> list[dict[str, Any]]:
        """The next `count` reports about requests whose name begins so."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            report = self._heard.get(timeout=PATIENCE_S)
            assert report.get("ok", True), report
            if report["request"].startswith(about):
                found.append(report)
        return found

    def close(self) -> None:
        """End the command."""
        with self.process:
            self.process.kill()

    def measure(self, handles: list[int], basis: str) -> list[dict[str, Any]]:
        """Measure qubits; the reports in order of `handles`."""
        asked = [self.ask("measure", handle=handle, basis=basis) for handle in handles]
        told = {report["request"]: report for report in self.hear(len(handles), "measure-")}
        return [told[request] for request in asked]


@contextmanager
def desk(network: Network, site: str) -> Iterator[Desk]:
    """A desk that is closed at the end."""
    one = Desk(network, site)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    text = (EXAMPLES / "mine.toml").read_text()
    for old, new in (
        ("memories = 4", f"memories = {MEMORIES}"),
        ("error_probability = 0.06", "error_probability = 0.6"),
    ):
        assert old in text
        text = text.replace(old, new)
    scenario = tmp_path / "mine.toml"
    scenario.write_text(text)
    options = [word for file in FILES for word in ("--plugin", file)]
    with running(str(scenario), tmp_path, "--rate", "2", *options) as network:
        yield network


def test_devices_of_ones_own_live_by_their_formulas(
    network: Network, record_property: Callable[[str, object], None]
) -> None:
    with ExitStack() as stack:
        a, b, c = (stack.enter_context(desk(network, site)) for site in "abc")
        for one in (a, b, c):  # all listen before the first pair is made
            one.ask("query", link="b--c" if one is c else "a--b")
            one.hear(1, "query-")
        saw = [_times(a, b), _memories(a, b), _swaps(a, b, c)]
    record_property("saw", "; ".join(saw))


def _times(a: Desk, b: Desk) -> str:
    """Pairs come in time bins, as often as a schedule without messages lets them."""
    count = 600
    a.ask("generate", link="a--b", pairs=count, keep=False)
    # Towards the end fewer memories try than there are: only those before are judged.
    due_ns = [report["due_ns"] for report in a.hear(count, "generate-")][: count - 2 * MEMORIES]
    b.hear(count, "generate-")
    bin_ns = CYCLE_NS / MEMORIES
    assert all(abs(((one - due_ns[0]) / bin_ns + 0.5) % 1.0 - 0.5) < 1e-3 for one in due_ns)
    trials = MEMORIES * (due_ns[-1] - due_ns[0]) / CYCLE_NS
    sigma = sqrt(trials * P * (1 - P))
    off = (len(due_ns) - 1 - trials * P) / sigma
    assert abs(off) < 4, (len(due_ns), trials * P, sigma)
    return f"{len(due_ns)} pairs in their bins, {off:+.1f} sigma"


def _memories(a: Desk, b: Desk) -> str:
    """What two halves have forgotten when they are measured, each at its own time."""
    equal, expected, variance = 0, 0.0, 0.0
    for _ in range(ROUNDS):
        halves = _pairs(a, b, "a--b")
        threading.Event().wait(HOLD_S / 2)  # the network runs at twice the pace
        near = a.measure([one["handles"][0] for one, _ in halves], "x")
        far = b.measure([other["handles"][0] for _, other in halves], "x")
        for (born, _), one, other in zip(halves, near, far, strict=True):
            ages_s = [(report["due_ns"] - born["since_ns"]) / 1e9 for report in (one, other)]
            x = WERNER * exp(-sum(age_s**2 for age_s in ages_s))
            equal += one["bits"] == other["bits"]
            expected += (1 + x) / 2
            variance += (1 + x) / 2 * (1 - x) / 2
            assert min(ages_s) > HOLD_S / 2
    off = (equal - expected) / sqrt(variance)
    assert abs(off) < 4, (equal, expected, variance)
    return f"{equal} of {ROUNDS * MEMORIES} halves agree after a rest, {off:+.1f} sigma"


def _swaps(a: Desk, b: Desk, c: Desk) -> str:
    """Phase errors of the gates of a swap spoil X and hardly Z."""
    factors = {"x": 1 - 2 * (2 / 3 * PHASE + OTHER / 2), "z": 1 - 2 * (2 / 3 * OTHER)}
    said = []
    for basis, factor in factors.items():
        left, right = _pairs(a, b, "a--b"), _pairs(c, b, "b--c")
        for (_, half), (_, other) in zip(left, right, strict=True):
            b.ask("swap", left=half["handles"][0], right=other["handles"][0], corrected=True)
        b.hear(MEMORIES, "swap-")
        near = a.measure([one["handles"][0] for one, _ in left], basis)
        far = c.measure([one["handles"][0] for one, _ in right], basis)
        equal = sum(one["bits"] == other["bits"] for one, other in zip(near, far, strict=True))
        # All four halves rest until the last of them is measured, at most; coherence only makes X worse.
        rest_s = (max(one["due_ns"] for one in near + far) - min(one["since_ns"] for one, _ in left)) / 1e9
        least = WERNER**2 * factor * (exp(-4 * rest_s**2) if basis == "x" else 1.0)
        low, high = (1 + least) / 2, (1 + WERNER**2 * factor) / 2
        margin = 4 * sqrt(MEMORIES * 0.25 if basis == "x" else MEMORIES * high * (1 - high))
        assert MEMORIES * low - margin < equal < MEMORIES * high + margin, (basis, equal, low, high)
        said.append(f"{equal} of {MEMORIES} agree in {basis} after a swap, {MEMORIES * high:.0f} expected")
    return "; ".join(said)


def _pairs(asks: Desk, other: Desk, link: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """A pair in every memory of a link: what both ends were told of each."""
    asks.ask("generate", link=link, pairs=MEMORIES, corrected=True)
    near = {report["number"]: report for report in asks.hear(MEMORIES, "generate-")}
    far = {report["number"]: report for report in other.hear(MEMORIES, "generate-")}
    return [(near[number], far[number]) for number in sorted(near)]
