"""Worlds whose deliveries are judged: chains, grids, random graphs of unlike devices; pairs and more."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Final

from tests.support.judged import Ask, Judged, judge
from tests.support.judged_units import judge_units

from multiplane.twin.scenario import World, parse

Numbers = Mapping[str, float | str]
Edges = Sequence[tuple[str, str]]
FIXED: Final[Numbers] = {"type": "fixed", "success_probability": 0.05, "memories": 4}
NOISY: Final = {
    "single_error_probability": 0.001,
    "double_error_probability": 0.004,
    "readout_flip_probability": 0.002,
}


@dataclass(frozen=True)
class Case:
    """A world and what is wished for in it.

    Args:
        edges: between sites of one letter; empty: a random graph of `sites` sites.
        links, memories: of devices; links, and sites, take them in turns. noise: of all memories.
        asks: in a random graph only the number of parties counts, they are drawn for each seed.
        share: of the deliveries of a campaign, against that of others.
        door: applications ask for units at the service door, not its controller for states of the fabric.
    """

    name: str
    asks: tuple[Ask, ...]
    links: tuple[Numbers, ...]
    memories: tuple[Numbers, ...]
    edges: Edges = ()
    sites: int = 0
    noise: Numbers = field(default_factory=dict)
    model: str = "pairs"
    share: float = 1.0
    door: bool = False

    def judge(self, seed: int, size: int) -> list[Judged]:
        """All wishes of a seed, so many states each."""
        return (judge_units if self.door else judge)(*self.drawn(seed), seed, size)

    def drawn(self, seed: int) -> tuple[World, tuple[Ask, ...]]:
        """The world and the wishes of a seed."""
        rng = Random(f"{self.name}/{seed}")
        edges, asks = self.edges, self.asks
        if not edges:
            letters = string.ascii_lowercase[: self.sites]
            edges = _random_graph(letters, rng)
            asks = tuple(ask._replace(sites="".join(rng.sample(letters, len(ask.sites)))) for ask in asks)
        return parse(self._text(edges), f"{self.name}.toml"), asks

    def _text(self, edges: Edges) -> str:
        sites = sorted({site for edge in edges for site in edge})
        turn = {site: f"kind{place % len(self.memories)}" for place, site in enumerate(sites)}
        text = 'format = "multiplane-scenario/1"\nname = "judged"\ndomain = "judged"\n'
        text += '[defaults]\nprofile = "bare-fibre"\n' + _table("states", {"model": self.model})
        text += _table("[noise]", {"name": "gates", **self.noise})
        for place, memory in enumerate(self.memories):
            text += _table("[memory]", {"name": f"kind{place}", "noise": "gates", **memory})
        for site in sites:
            text += _table("[site]", {"name": site}) + (
                f'saes = ["{site}-1"]\n' if self.door else "saes = []\n"
            )
        for place, (a, b) in enumerate(edges):
            near, far = sorted((a, b))
            text += _table("[link]", {"a": a, "b": b, "length_km": 5.0 + 3.0 * (place % 4), "loss_db": 2.0})
            text += _table("[entangled]", {"a": a, "b": b, **self.links[place % len(self.links)]})
            text += f'memory = ["{turn[near]}", "{turn[far]}"]\n'
        return text


def _table(name: str, rows: Numbers) -> str:
    said = (
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in rows.items()
    )
    return "\n".join((f"[{name}]", *said, ""))


def _chain(sites: str) -> Edges:
    return list(pairwise(sites))


def _grid(wide: int, high: int) -> Edges:
    at = [[string.ascii_lowercase[y * wide + x] for x in range(wide)] for y in range(high)]
    across = [(row[x], row[x + 1]) for row in at for x in range(wide - 1)]
    return across + [(at[y][x], at[y + 1][x]) for y in range(high - 1) for x in range(wide)]


def _random_graph(letters: str, rng: Random) -> Edges:
    """A random tree, and half as many links again."""
    edges = {(rng.choice(letters[:place]), site) for place, site in enumerate(letters) if place}
    while len(edges) < 3 * len(letters) // 2:
        edges.add(tuple(sorted(rng.sample(letters, 2))))  # type: ignore[arg-type]
    return sorted(edges)


def _fixed(*fidelities: float, **more: float | str) -> tuple[Numbers, ...]:
    return tuple({**FIXED, "fidelity": fidelity, **more} for fidelity in fidelities)


def _t1_t2(*both: tuple[float, float], **more: float) -> tuple[Numbers, ...]:
    return tuple({"t1_s": t1_s, "t2_s": t2_s, "cutoff_s": 2.0, **more} for t1_s, t2_s in both)


CASES: Final = (
    Case(
        "two links, short memories",
        (Ask("ac", 0.01, sacrifice_share=0.2), Ask("ac", 0.04, hold_s=0.01)),
        _fixed(0.975, success_probability=0.01),
        _t1_t2((5.0, 0.1)),
        _chain("abc"),
    ),
    Case(
        "five links, unlike memories, gates that err",
        (Ask("af", 0.02), Ask("bf", 0.04), Ask("ac", 0.01, hold_s=0.02)),
        _fixed(0.985, 0.99, 0.98),
        _t1_t2((10.0, 1.0), (3.0, 0.5), (100.0, 2.0)),
        _chain("abcdef"),
        noise=NOISY,
    ),
    Case(
        "one link, purified twice",
        (Ask("ab", 0.01), Ask("ab", 0.03, hold_s=0.005)),
        _fixed(0.85, memories=8),
        _t1_t2((20.0, 1.0)),
        _chain("ab"),
        noise=NOISY,
    ),
    Case(
        "three links, purified, gates that err",
        (Ask("ad", 0.01), Ask("ac", 0.02, sacrifice_share=0.1)),
        _fixed(0.92, 0.95, memories=6),
        _t1_t2((30.0, 2.0), (10.0, 1.0)),
        _chain("abcd"),
        noise=NOISY,
    ),
    Case(
        "single clicks, dark counts",
        (Ask("ad", 0.02), Ask("ac", 0.01, hold_s=0.001)),
        (
            {
                "type": "single-click",
                "bright_probability": 0.03,
                "detector_efficiency": 0.7,
                "dark_probability": 1e-4,
                "visibility": 0.97,
                "phase_spread_rad": 0.1,
                "memories": 4,
            },
        ),
        _t1_t2((1.0, 0.05), (0.5, 0.1)),
        _chain("abcd"),
        noise=NOISY,
    ),
    Case(
        "double clicks, request-poll",
        (Ask("ad", 0.06), Ask("bd", 0.03)),
        (
            {
                "type": "double-click",
                "detector_efficiency": 0.6,
                "dark_probability": 1e-4,
                "visibility": 0.96,
                "memories": 4,
                "handshake": "request-poll",
            },
        ),
        _t1_t2((2.0, 0.1)),
        _chain("abcd"),
        noise=NOISY,
    ),
    Case(
        "grid of nine, sources between",
        (Ask("ai", 0.02), Ask("cg", 0.03), Ask("df", 0.01), Ask("bh", 0.05, hold_s=0.002)),
        (
            {"type": "source-between", "pair_probability": 0.2, "emitted_fidelity": 0.98, "memories": 4},
            {"type": "source-between", "mu": 0.02, "dark_probability": 1e-5, "memories": 4},
        ),
        _t1_t2((1.0, 0.1), (1.0, 0.2)),
        _grid(3, 3),
        noise=NOISY,
    ),
    Case(
        "random graphs of nine",
        (Ask("??", 0.02), Ask("??", 0.03), Ask("??", 0.01, hold_s=0.01)),
        _fixed(0.98, 0.93, 0.99),
        _t1_t2((5.0, 0.5), (50.0, 1.0), (2.0, 0.3)),
        sites=9,
        noise=NOISY,
    ),
    Case(
        "memories that forget all alike",
        (Ask("ad", 0.02), Ask("bd", 0.01)),
        _fixed(0.98),
        ({"model": "depolarising", "lifetime_s": 0.5},),
        _chain("abcd"),
    ),
    Case(
        "swaps of linear optics, slow gates",
        (Ask("ad", 0.02), Ask("bd", 0.02)),
        _fixed(0.99),
        _t1_t2((10.0, 0.5), swap_success_probability=0.5, operation_s=1e-4),
        _chain("abcd"),
        noise=NOISY,
    ),
    Case(
        "relaxation alone, whole density matrices",
        (Ask("ad", 0.01), Ask("bd", 0.03)),
        _fixed(0.98, success_probability=0.01),
        _t1_t2((0.3, 0.6)),
        _chain("abcd"),
        model="dense",
    ),
    Case(
        "purified under relaxation, whole density matrices",
        (Ask("ac", 0.01),),
        _fixed(0.93, memories=6),
        _t1_t2((0.3, 0.4)),
        _chain("abc"),
        noise=NOISY,
        model="dense",
        share=0.1,
    ),
    Case(
        "GHZ of three and four, a party in the middle",
        (Ask("bac", 0.02), Ask("bacd", 0.03)),
        _fixed(0.985, 0.99),
        _t1_t2((5.0, 1.0), (2.0, 0.5)),
        (("a", "b"), ("a", "c"), ("a", "d")),
        noise=NOISY,
        model="dense",
    ),
    Case(
        "GHZ of three and four, nobody in the middle",
        (Ask("bcd", 0.02), Ask("bcde", 0.03, hold_s=0.001)),
        _fixed(0.985),
        _t1_t2((2.0, 0.5)),
        (("a", "b"), ("a", "c"), ("a", "d"), ("a", "e")),
        noise=NOISY,
        model="dense",
    ),
    Case(
        "GHZ on random graphs",
        (Ask("???", 0.03), Ask("??", 0.02)),
        _fixed(0.985, 0.97),
        _t1_t2((5.0, 1.0), (10.0, 2.0)),
        sites=7,
        noise=NOISY,
        model="dense",
    ),
    Case(
        "graph states: a line and a ring of four",
        (
            Ask("abcd", 0.02, edges=((0, 1), (1, 2), (2, 3))),
            Ask("abcd", 0.02, edges=((0, 1), (1, 2), (2, 3), (0, 3))),
        ),
        _fixed(0.99),
        _t1_t2((5.0, 1.0)),
        (("a", "b"), ("a", "c"), ("a", "d")),
        noise=NOISY,
        model="dense",
    ),
    Case(
        "asked at the service door",
        (Ask("ac", 0.02), Ask("bd", 0.03), Ask("abd", 0.03)),
        _fixed(0.985, 0.99, memories=8),
        _t1_t2((100.0, 5.0), (50.0, 10.0)),
        (("a", "b"), ("b", "c"), ("a", "d")),
        noise=NOISY,
        model="dense",
        door=True,
    ),
)


def named(names: Iterable[str]) -> list[Case]:
    """Cases whose names have one of these words in them; all without words."""
    words = list(names)
    return [case for case in CASES if not words or any(word in case.name for word in words)]
