"""Sixteen ways to run a network of pairs: four questions, each answered one way or the other.

*Source* of the questions: draft-abane-qirg-function-abstraction (2026).
"""

from __future__ import annotations

from itertools import product
from typing import Final, NamedTuple


class Way(NamedTuple):
    """One of the sixteen.

    Args:
        proactive: links make pairs before anybody asks; else (reactive) for who asks.
        connected: memories along a route are reserved first; else (connectionless) a request goes from site
            to site and takes what pair comes.
        central: a controller that sees what is free chooses routes; else (distributed) tables of sites do.
        synchronous: swaps happen at the edges of slots, and what reactive links made is thrown away with the
            slot; else (asynchronous) as soon as pairs are there.
    """

    proactive: bool
    connected: bool
    central: bool
    synchronous: bool

    @property
    def name(self) -> str:
        """`reactive-connections-central-asynchronous` and the like."""
        return "-".join(words[place] for words, place in zip(WORDS, self, strict=True))


WORDS: Final = (
    ("reactive", "proactive"),
    ("connectionless", "connections"),
    ("distributed", "central"),
    ("asynchronous", "synchronous"),
)
ALL: Final = tuple(Way(*answers) for answers in product((False, True), repeat=4))
BASELINES: Final = {
    Way(False, True, True, False): "virtual circuits: Kozlowski, Dahlberg, Wehner, CoNEXT 2020",
    Way(False, True, True, True): "slots, after Q-PASS: Shi, Qian, SIGCOMM 2020",
    Way(False, True, False, False): "on demand: Chakraborty, Rozpedek, Dahlberg, Wehner, arXiv 1907.11630",
    Way(True, True, False, False): "continuous: Chakraborty, Rozpedek, Dahlberg, Wehner, arXiv 1907.11630",
    Way(False, False, False, False): "packets: DiAdamo, Qi, Miller, Kompella, PRR 4, 043064 (2022)",
    Way(True, False, False, False): "entanglement packet switching, after QUADDR: arXiv 2507.19655",
}
"""Published ones that are nearest; each is a model of its kind, not the authors' code."""
USUAL: Final = (*BASELINES, Way(True, True, True, False), Way(True, True, True, True))


def named(name: str) -> Way | None:
    """The way of this name."""
    return next((way for way in ALL if way.name == name), None)
