"""A scripted day of chain5, printed as a digest of what every node heard and was answered."""

from __future__ import annotations

import hashlib

import msgspec
from tests.support.quantum import SECOND_PS, Bench

from multiplane.api.instructions import Generate, Measure, Query, Report, Swap
from multiplane.twin.scenario import load_shipped

_STEP_PS = SECOND_PS // 200


def step(bench: Bench, number: int) -> list[Report]:
    """Each inner node joins its oldest pairs; now and then the ends measure what they hold."""
    answers = []
    for near, node, far in ("abc", "bcd", "cde"):
        sides = [f"{near}--{node}", f"{node}--{far}"]
        held = [bench.do(node, Query(request=f"q{number}{side}", link=side)).handles for side in sides]
        if all(held):
            joined = Swap(request=f"s{number}", left=held[0][0], right=held[1][0])
            answers.append(bench.do(node, joined))
    for node, side in (("a", "a--b"), ("e", "d--e")) if number % 3 == 0 else ():
        for handle in bench.do(node, Query(request=f"q{number}", link=side)).handles:
            answers.append(bench.do(node, Measure(request=f"m{handle}", handle=handle, basis="x")))
    return answers


def digest() -> str:
    """SHA-256 of 1 s, in hexadecimal digits."""
    bench = Bench(load_shipped("chain5").entanglement)
    answers = []
    for near, far in ("ab", "bc", "cd", "de"):
        bench.quantum.perform(near, Generate(request=f"g{near}", link=f"{near}--{far}", pairs=0))
    for number in range(200):
        bench.heap.advance_to(number * _STEP_PS)
        answers += step(bench, number)
    heard = {name: listener.reports for name, listener in bench.heard.items()}
    assert sum(map(len, heard.values())) > 1_000
    return hashlib.sha256(msgspec.json.encode([heard, answers])).hexdigest()


if __name__ == "__main__":
    print(digest())  # noqa: T201
