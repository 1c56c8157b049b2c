"""Kinds of unit that come with the service, and the registry that finds a kind by its name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from multiplane.api.kinds import Carrier, Making, UnitKind
from multiplane.api.units import Consumption, Part
from multiplane.kernel.errors import Refused

AS_USUAL: Final = -1.0
MOST_SACRIFICED: Final = 0.9
BASES: Final = ("x", "y", "z")
FINE: Final = ("", "")
NO_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {}


class StateKind:
    """States in quantum memories.

    Args:
        name, options, valid_s: see `api.kinds.UnitKind`.
        state: what the fabric makes; parties: least and most, 0 = no limit.
        choices: options of its own, and what each may be; least_size: fewest states.
    """

    def __init__(
        self,
        name: str,
        state: str,
        parties: tuple[int, int],
        options: Iterable[str] = ("basis", "sacrifice"),
        valid_s: float = 60.0,
        *,
        choices: Mapping[str, tuple[str, ...]] = NO_CHOICES,
        least_size: int = 1,
    ) -> None:
        self.name, self.options, self.valid_s = name, frozenset((*options, *choices)), valid_s
        self._state, self._parties, self._choices, self._least_size = state, parties, choices, least_size

    def check(self, part: Part, parties: int) -> tuple[str, str]:
        """Number of parties, floor, basis, edges."""
        least, most = self._parties
        if parties < least or (most and parties > most):
            expected = f"{least}" if most == least else f"{least} or more"
            return (
                "unit.parties",
                f"parties: expected {expected} with the caller for {self.name}, got {parties}",
            )
        if part.size_bit:
            return "unit.size", f"size_bit: expected 0 for {self.name}, got {part.size_bit}"
        if part.size < self._least_size:
            return "unit.size", f"size: expected {self._least_size} or more for {self.name}, got {part.size}"
        return self._check_options(part, parties)

    def _check_options(self, part: Part, parties: int) -> tuple[str, str]:
        for option, values in self._choices.items():
            if (value := dict(part.options).get(option, values[0])) not in values:
                return "unit.option", f"{option}: expected one of {', '.join(values)}, got {value[:80]!r}"
        basis = dict(part.options).get("basis", BASES[-1])
        if basis not in BASES:
            return "unit.option", f"basis: expected one of {', '.join(BASES)}, got {basis!r}"
        if (share := _share(part)) is None or not (share == AS_USUAL or 0.0 <= share <= MOST_SACRIFICED):
            got = dict(part.options)["sacrifice"]
            return "unit.option", f"sacrifice: expected a share of 0 to {MOST_SACRIFICED:g}, got {got!r}"
        if self._state == "graph":
            return _check_edges(part.edges, parties)
        if part.edges:
            return "unit.edges", f"edges: expected none for {self.name}, got {len(part.edges)}"
        stock = dict(part.options).get("stock", "0")
        if not stock.isdecimal() or len(stock) > 4:
            return "unit.option", f"stock: expected a whole number, got {stock!r}"
        return FINE

    def making(self, part: Part, parties: int) -> Making:
        """The fabric makes it as it is asked for."""
        del parties
        share = _share(part)
        return Making(
            carrier=Carrier.MEMORIES,
            state=self._state,
            edges=part.edges,
            sacrifice_share=AS_USUAL if share is None else share,
        )


class KeyKind:
    """Keys of the key managers: each end gets each of them once."""

    name, options, valid_s = "key", frozenset[str](), 3600.0

    def check(self, part: Part, parties: int) -> tuple[str, str]:
        """Sizes; a key knows no fidelity."""
        del parties
        if part.size_bit < 0 or part.size_bit % 8:
            return "unit.size", f"size_bit: expected a multiple of 8, got {part.size_bit}"
        if part.min_fidelity:
            return "unit.fidelity", f"min_fidelity: expected 0 for a key, got {part.min_fidelity:g}"
        if part.edges:
            return "unit.edges", f"edges: expected none for a key, got {len(part.edges)}"
        return FINE

    def making(self, part: Part, parties: int) -> Making:
        """The key manager of the first party issues it."""
        del parties
        return Making(carrier=Carrier.KEYS, size_bit=part.size_bit)


SHIPPED: Final[tuple[UnitKind, ...]] = (
    StateKind("bell", "bell", (2, 2), ("basis", "sacrifice", "stock")),
    StateKind("ghz", "ghz", (2, 0)),
    StateKind("graph", "graph", (2, 0)),
    StateKind("timeline", "bell", (2, 2), choices={"estimator": ("mean", "median")}, least_size=2),
    StateKind("sensing", "ghz", (2, 0), choices={"settings": ("3", "2", "5")}, least_size=2),
    KeyKind(),
)


class Kinds:
    """The kinds of a domain by name.

    Args: more: kinds of one's own. Raises: ValueError when two have the same name.
    """

    def __init__(self, more: Iterable[UnitKind] = ()) -> None:
        self._by_name: dict[str, UnitKind] = {}
        for kind in (*SHIPPED, *more):
            if kind.name in self._by_name:
                raise ValueError(f"kind: expected one {kind.name!r}, got two")
            self._by_name[kind.name] = kind

    @property
    def by_name(self) -> Mapping[str, UnitKind]:
        """All of them."""
        return self._by_name

    def kind(self, name: str) -> UnitKind:
        """The kind of a name. Raises: Refused(`unit.kind`)."""
        found = self._by_name.get(name)
        if found is None:
            known = ", ".join(sorted(self._by_name))
            raise Refused("unit.kind", f"kind: expected one of {known}, got {name[:200]!r}")
        return found

    def making(self, part: Part, parties: int, consumption: str) -> Making:
        """What is made for a part that was checked; the tolerant class measures on arrival."""
        made = self.kind(part.kind).making(part, parties)
        if (
            made.carrier is Carrier.MEMORIES
            and consumption == Consumption.TOLERANT.value
            and not made.measure
        ):
            basis = dict(part.options).get("basis", "z")
            return msgspec.structs.replace(made, measure=basis)
        return made


def _share(part: Part) -> float | None:
    """The share to sacrifice that a part names; None when it is no number."""
    text = dict(part.options).get("sacrifice", "")
    try:
        return float(text) if text else AS_USUAL
    except ValueError:
        return None


def _check_edges(edges: tuple[tuple[int, int], ...], parties: int) -> tuple[str, str]:
    """A graph is connected, its edges are between different places and each stands once."""
    seen: set[frozenset[int]] = set()
    reached = list(range(parties))
    for one, two in edges:
        if not (0 <= one < parties and 0 <= two < parties) or one == two:
            return "unit.edges", f"edges: expected two places of 0 to {parties - 1}, got {one} and {two}"
        if frozenset((one, two)) in seen:
            return "unit.edges", f"edges: expected each once, got {one} and {two} again"
        seen.add(frozenset((one, two)))
        old, new = reached[one], reached[two]
        reached = [new if place == old else place for place in reached]
    if len(set(reached)) > 1:
        return "unit.edges", f"edges: expected a connected graph of {parties} places, got {len(edges)} edges"
    return FINE
