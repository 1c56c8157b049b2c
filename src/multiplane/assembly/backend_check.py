"""A small known job for each backend, and whether its answer is the closed form."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from multiplane.api import backend as door
from multiplane.api.backend import FunctionalJob, LinkJob, SwapJob, Weights
from multiplane.assembly.backends import swapped
from multiplane.kernel.errors import MultiplaneError
from multiplane.physics import bell

TIMEOUT_S: Final = 60.0
LINK: Final = LinkJob(length_km=20.0, pairs=300, seed=7)
# The one-way delay over 20 km at 2e8 m/s; a failed attempt costs four of them (docs/backends.md).
CYCLE_S: Final = 4 * LINK.length_km / 2e5
_LEFT: Final[Weights] = (0.90, 0.05, 0.03, 0.02)
_RIGHT: Final[Weights] = (0.80, 0.10, 0.06, 0.04)
_SIGMAS: Final = 4.0


class Check(NamedTuple):
    """One comparison. Args: got, expected: as shown to people."""

    backend: str
    what: str
    got: str
    expected: str
    ok: bool


async def checks(backend: door.Backend) -> list[Check]:
    """All that the backend says it can do, compared; a failure of the backend is a failed check."""
    try:
        facts = await backend.describe()
    except MultiplaneError as error:
        return [Check("?", "describe", error.reason, "an answer", ok=False)]
    found = []
    try:
        if "swap" in facts.jobs:
            found += [await _swap(facts.name, backend, twirl) for twirl in (False, True)]
        if "link" in facts.jobs:
            found += await _link(facts.name, backend)
        found += [await _functional(facts.name, backend, name) for name in facts.functional]
    except MultiplaneError as error:
        found.append(Check(facts.name, "run", error.reason, "an outcome", ok=False))
    return found


async def _swap(name: str, backend: door.Backend, twirl: bool) -> Check:
    job = SwapJob(left=_LEFT, right=_RIGHT, gate_fidelity=0.98, readout_fidelity=0.99, twirl=twirl)
    outcome = await backend.run(job, TIMEOUT_S)
    assert isinstance(outcome, door.SwapOutcome)
    expected = swapped(job) if name != "native" else _convolved(job)
    worst = max(abs(one - two) for one, two in zip(outcome.weights, expected, strict=True))
    return Check(
        name,
        "swap, Werner" if twirl else "swap",
        " ".join(f"{weight:.6f}" for weight in outcome.weights),
        " ".join(f"{weight:.6f}" for weight in expected),
        worst < 1e-9,
    )


def _convolved(job: SwapJob) -> Weights:
    """The same by another way: errors of the two pairs, the gate and the two readouts add up one by one."""
    left, right = ((bell.werner(w[0]), w) for w in (job.left, job.right))
    states = [bell.weights(pair) if job.twirl else weights for pair, weights in (left, right)]
    wrong = 1.0 - job.readout_fidelity
    # Index 1 is a sign error, index 2 a flip; the readouts cause one each, independently.
    readout = [(1 - wrong) ** 2, wrong * (1 - wrong), wrong * (1 - wrong), wrong**2]
    gate = [job.gate_fidelity + (1 - job.gate_fidelity) / 4, *[(1 - job.gate_fidelity) / 4] * 3]
    total = [1.0, 0.0, 0.0, 0.0]
    for weights in (*states, readout, gate):
        total = [sum(total[one] * weights[one ^ index] for one in range(4)) for index in range(4)]
    rest = (1.0 - total[0]) / 3
    return (total[0], rest, rest, rest) if job.twirl else (total[0], total[1], total[2], total[3])


async def _link(name: str, backend: door.Backend) -> list[Check]:
    """Mean wait against cycle over probability; fidelity against dephasing of both halves from emission."""
    outcome = await backend.run(LINK, TIMEOUT_S)
    assert isinstance(outcome, door.LinkOutcome)
    probability = 0.5 * 10 ** (-LINK.loss_db_per_km * LINK.length_km / 10)
    mean_s = math.fsum(outcome.waits_ps) / len(outcome.waits_ps) / 1e12
    error_s = CYCLE_S * math.sqrt(1 - probability) / probability / math.sqrt(LINK.pairs)
    wait = Check(
        name,
        "link, mean wait",
        f"{mean_s * 1e3:.3f} ms",
        f"{CYCLE_S / probability * 1e3:.3f} ± {error_s * 1e3:.3f} ms",
        abs(mean_s - CYCLE_S / probability) < _SIGMAS * error_s and len(outcome.waits_ps) == LINK.pairs,
    )
    age_s = outcome.ages_ps[0] / 1e12
    raw = bell.werner(LINK.raw_fidelity)
    coherence = math.exp(-2 * age_s / LINK.t2_s)
    expected_fidelity = (1 + raw.x * coherence + raw.y * coherence + raw.z) / 4
    state = Check(
        name,
        "link, fidelity",
        f"{outcome.weights[0][0]:.9f}",
        f"{expected_fidelity:.9f}",
        abs(outcome.weights[0][0] - expected_fidelity) < 1e-9,
    )
    return [wait, state]


async def _functional(name: str, backend: door.Backend, check: str) -> Check:
    outcome = await backend.run(FunctionalJob(check=check, nodes=4, seed=1), TIMEOUT_S)
    assert isinstance(outcome, door.FunctionalOutcome)
    bits = list(outcome.bits.values())
    shown = " ".join("".join(map(str, row)) for row in bits)
    equal = len(bits) >= 2 and len(bits[0]) > 0 and all(row == bits[0] for row in bits)
    return Check(name, f"{check}, 4 hosts", shown, "equal bits at all hosts", equal)
