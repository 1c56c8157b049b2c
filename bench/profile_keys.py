"""Where the CPU of enc_keys and dec_keys goes: both KMEs in one process under load, sampled.

    python -m bench.profile_keys [SECONDS]

Prints the share of each room and module (innermost frame of ours, with what it called outside), of the
hottest functions, and CPU by thread; writes `bench/results/profile_keys.folded`, one stack a line, as
flame graph tools read it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.keys014 import load_network, warm_pair
from bench.processes import python
from bench.report import RESULTS

SHOWN = 25


@contextmanager
def sampled_command(out: Path) -> Iterator[None]:
    """Let the harness start the command under the sampler."""
    before = dict(os.environ)
    root = str(Path(__file__).parents[1])
    os.environ["MULTIPLANE_COMMAND"] = " ".join(python("bench.sampler", str(out)))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before.get("PYTHONPATH"), root]))
    try:
        yield
    finally:
        for name in ("MULTIPLANE_COMMAND", "PYTHONPATH"):
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def profile(run_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Samples and load of one run."""
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as name:
        out = Path(name) / "samples.json"
        with sampled_command(out), warm_pair(Path(name) / "pair") as network:
            seen = load_network(network, run_s)
        return json.loads(out.read_text()), seen


def ours(stack: Sequence[str]) -> str:
    """Module of the innermost frame that belongs to the package; below the command it is the loop."""
    for frame in stack:
        if frame.startswith("multiplane.") and not frame.startswith("multiplane.cli."):
            return frame.partition(":")[0]
    return "event loop, TLS, HTTP library"


def table(title: str, counts: Counter[str], total: int) -> None:
    """Print shares, largest first."""
    print(f"\n{title}")
    for name, count in counts.most_common(SHOWN):
        print(f"  {100 * count / total:5.1f} %  {name}")


def main(run_s: float) -> None:
    """Profile, print, save the folded stacks."""
    samples, seen = profile(run_s)
    stacks = [(row[0], row[1:]) for row in samples["stacks"]]
    total = sum(count for count, _ in stacks) or 1
    by_module: Counter[str] = Counter()
    by_function: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for count, stack in stacks:
        by_module[ours(stack)] += count
        by_function[stack[0]] += count
        for frame in set(stack):
            if frame.startswith("multiplane."):
                within[frame] += count
    print(
        f"{seen['pairs']} pairs, {seen['cpu_ms']:.3f} ms CPU a request (sampling included), {total} samples"
    )
    table("innermost module of ours", by_module, total)
    table("innermost function", by_function, total)
    table("function of ours, with all it called", within, total)
    print("\nCPU seconds of threads, start and end included (user, system):", samples["threads_s"])
    RESULTS.mkdir(exist_ok=True)
    folded = [f"{';'.join(reversed(stack))} {count}" for count, stack in stacks]
    (RESULTS / "profile_keys.folded").write_text("\n".join(folded) + "\n")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0)
