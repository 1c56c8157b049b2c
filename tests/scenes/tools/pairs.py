"""Pairs of applications of a whole network: which to ask, and how long until each has had a key at both ends.

python -m tests.scenes.tools.pairs SCENARIO.toml       starts it, asks, prints what it saw
"""

from __future__ import annotations

import asyncio
import random
import time
import tomllib
from collections import deque
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

from tests.scenes.tools.client014 import Client014, Said
from tests.scenes.tools.network import Network

MOST_PAIRS = 200
FAR_SHARE = 4
LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True)
class Pair:
    """Two applications and the fewest hops between their sites."""

    master: str
    slave: str
    hops: int


@dataclass
class Seen:
    """What asking all pairs showed; times in wall seconds since the first question."""

    pairs: int
    hops: tuple[int, int]
    first_s: list[float] = field(default_factory=list)
    busy: int = 0
    wrong: list[str] = field(default_factory=list)
    missing: list[Pair] = field(default_factory=list)

    def summary(self) -> str:
        """One line."""
        ordered = sorted(self.first_s) or [0.0]
        return (
            f"{len(self.first_s)} of {self.pairs} pairs ({self.hops[0]} to {self.hops[1]} hops) had a key: "
            f"half within {ordered[len(ordered) // 2]:.1f} s, all within {ordered[-1]:.1f} s; "
            f"{self.busy} answers 503, {len(self.wrong)} wrong"
        )


def choose(scenario: Path, network: Network, most: int = MOST_PAIRS, seed: int = 1) -> list[Pair]:
    """min(`most`, all) directed pairs of applications at different sites.

    A quarter of them have the most hops there are, the others are drawn.
    """
    near: dict[str, set[str]] = {}
    for link in tomllib.loads(scenario.read_text())["link"]:
        near.setdefault(link["a"], set()).add(link["b"])
        near.setdefault(link["b"], set()).add(link["a"])
    hops = {site: _hops(near, site) for site in network.kme_names}
    homes = {name: sae.kme for name, sae in network.saes.items()}
    every = [
        Pair(a, b, hops[homes[a]][homes[b]])
        for a, b in permutations(sorted(homes), 2)
        if homes[b] in hops[homes[a]] and homes[a] != homes[b]
    ]
    every.sort(key=lambda pair: -pair.hops)
    number = min(most, len(every))
    far, rest = every[: number // FAR_SHARE], every[number // FAR_SHARE :]
    return far + random.Random(seed).sample(rest, number - len(far))


def _hops(near: dict[str, set[str]], start: str) -> dict[str, int]:
    found, queue = {start: 0}, deque([start])
    while queue:
        site = queue.popleft()
        for other in near.get(site, ()):
            if other not in found:
                found[other] = found[site] + 1
                queue.append(other)
    return found


async def ask_all(network: Network, pairs: list[Pair], within_s: float) -> Seen:
    """Ask for a key of each pair at once until it is given, collect it at the other end, compare.

    Before the key nothing but 503 with Retry-After may come, and the client comes back when told so.
    """
    seen = Seen(len(pairs), (min(pair.hops for pair in pairs), max(pair.hops for pair in pairs)))
    begun_s = time.monotonic()

    async def one(pair: Pair, near: Client014, far: Client014) -> None:
        while time.monotonic() - begun_s < within_s:
            try:
                keys = await near.enc(pair.slave)
            except Said as said:
                if said.status != 503:
                    seen.wrong.append(f"{pair}: {said}")
                    return
                seen.busy += 1
                await asyncio.sleep(min(said.retry_after_s, LONGEST_PAUSE_S))
                continue
            got = await far.dec(pair.master, [key.key_id for key in keys])
            if got != keys:
                seen.wrong.append(f"{pair}: the two ends hold different keys")
            seen.first_s.append(time.monotonic() - begun_s)
            return
        seen.missing.append(pair)

    async def with_clients(pair: Pair) -> None:
        near, far = network.client(pair.master), network.client(pair.slave)
        try:
            await one(pair, near, far)
        finally:
            await near.close()
            await far.close()

    await asyncio.gather(*(with_clients(pair) for pair in pairs))
    return seen
