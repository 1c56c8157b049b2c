"""What a scenario says about entanglement: states, planning, memories, noise and links of pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from multiplane.kernel.names import link_id, slug
from multiplane.twin.handshake import interactions
from multiplane.twin.quantum.building import link_facts
from multiplane.twin.quantum.devices import (
    LINK_TYPES,
    NONE,
    PLANNING,
    STATE_MODELS,
    Entangled,
    Entanglement,
    MemoryKind,
    NoiseKind,
    Numbers,
)
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.quantum.sources import make_source
from multiplane.twin.toml_reading import Reader, Where, choice, show

T = TypeVar("T")
SECTIONS: Final = ("states", "planning", "memory", "noise", "entangled")
MAX_MEMORIES: Final = 10_000
_LONGEST_S: Final = 1e9
_NUMBERS: Final = 1e18
_MEMORY_KEYS: Final = (
    "name",
    "model",
    "noise",
    "cutoff_s",
    "efficiency",
    "swap_success_probability",
    "operation_s",
)
_LINK_KEYS: Final = (
    "a",
    "b",
    "type",
    "memories",
    "memory",
    "handshake",
    "attempts",
    "attempts_per_s",
    "dead_ns",
    "jitter_ps",
    "protocol",
)


class Fibre(NamedTuple):
    """What links of pairs may be laid over."""

    id: str
    sites: tuple[str, str]
    length_km: float
    loss_db: float


def read(doc: Reader, fibres: Iterable[Fibre], policies: Policies) -> Entanglement:
    """What a scenario says about entanglement. Raises: ScenarioError."""
    return _Reading(doc, {fibre.id: fibre for fibre in fibres}, policies).entanglement()


class _Reading:
    def __init__(self, doc: Reader, fibres: Mapping[str, Fibre], policies: Policies) -> None:
        self._doc = doc
        self._fibres = fibres
        self._policies = policies
        self._noises: dict[str, NoiseKind] = {}
        self._memories: dict[str, MemoryKind] = {}

    def entanglement(self) -> Entanglement:
        document = self._doc.document
        states = document.get("states", {})
        if not isinstance(states, dict):
            raise self._doc.error(("states",), f"got {show(states)}, expected a table [states]")
        self._doc.keys(states, ("states",), (), ("model", "twirl"))
        twirl = states.get("twirl", False)
        if not isinstance(twirl, bool):
            raise self._doc.error(("states", "twirl"), f"got {show(twirl)}, expected true or false")
        for where, table in self._tables("noise"):
            noise = self._noise(table, where)
            self._noises[self._new(noise.name, where, self._noises)] = noise
        for where, table in self._tables("memory"):
            memory = self._memory(table, where)
            self._memories[self._new(memory.name, where, self._memories)] = memory
        links: dict[str, Entangled] = {}
        for where, table in self._tables("entangled"):
            link = self._link(table, where)
            if link.id in links:
                problem = f"{link.sites[0]!r} and {link.sites[1]!r} make pairs already"
                raise self._doc.error((*where, "b"), f"{problem}, expected one [[entangled]] for two sites")
            links[link.id] = link
        said = Entanglement(
            state_model=self._doc.one_of(states, ("states",), "model", STATE_MODELS),
            twirl=twirl,
            memories=tuple(self._memories.values()),
            noises=tuple(self._noises.values()),
            links=tuple(links.values()),
            planning=self._planning(document.get("planning", {})),
        )
        return NONE if said == NONE else said  # the very default is not encoded

    def _planning(self, table: Any) -> tuple[tuple[str, str], ...]:
        """Names of policies of the controller of pairs."""
        if not isinstance(table, dict):
            raise self._doc.error(("planning",), f"got {show(table)}, expected a table [planning]")
        self._doc.keys(table, ("planning",), (), PLANNING)
        known = self._policies.planning
        for kind, name in table.items():
            here = ("planning", kind)
            if known:
                self._named(name, here, known[kind])
            else:
                self._doc.text(name, here)
        return tuple(sorted(table.items()))

    def _tables(self, section: str) -> Iterable[tuple[Where, dict[str, Any]]]:
        tables = self._doc.tables(self._doc.document.get(section, []), section)
        return [((section, number), table) for number, table in enumerate(tables)]

    def _new(self, name: str, where: Where, known: Mapping[str, object]) -> str:
        if name in known:
            raise self._doc.error((*where, "name"), f"{name!r} exists already, expected a name of its own")
        return name

    def _noise(self, table: dict[str, Any], where: Where) -> NoiseKind:
        numbers = self._numbers(table, where, ("name",), ("model",))
        model = self._named(table.get("model", "depolarising"), (*where, "model"), self._policies.noises)
        noise = NoiseKind(name=self._doc.label(table["name"], (*where, "name")), model=model, numbers=numbers)
        self._try(table, where, lambda: self._policies.noises[model](dict(numbers)).double())
        return noise

    def _memory(self, table: dict[str, Any], where: Where) -> MemoryKind:
        numbers = self._numbers(table, where, ("name",), _MEMORY_KEYS)
        usual = "t1-t2" if numbers else "ideal"
        model = self._named(table.get("model", usual), (*where, "model"), self._policies.memories)
        self._try(table, where, lambda: self._policies.memories[model](dict(numbers)).decay(0))
        noise = table.get("noise", "")
        if noise:
            self._named(noise, (*where, "noise"), self._noises)
        return MemoryKind(
            name=self._doc.label(table["name"], (*where, "name")),
            model=model,
            numbers=numbers,
            noise=noise,
            cutoff_s=self._optional(table, (*where, "cutoff_s"), _LONGEST_S, 0.0),
            efficiency=self._optional(table, (*where, "efficiency"), 1.0, 1.0),
            swap_success_probability=self._optional(table, (*where, "swap_success_probability"), 1.0, 1.0),
            operation_s=self._optional(table, (*where, "operation_s"), 1.0, 0.0),
        )

    def _link(self, table: dict[str, Any], where: Where) -> Entangled:
        numbers = self._numbers(table, where, ("a", "b", "type"), _LINK_KEYS)
        fibre = self._fibre(table, where)
        handshakes = self._policies.handshakes
        handshake = self._named(table.get("handshake", "grant"), (*where, "handshake"), handshakes)
        link = Entangled(
            id=fibre.id,
            sites=fibre.sites,
            length_km=fibre.length_km,
            loss_db=fibre.loss_db,
            type=self._doc.one_of(table, where, "type", LINK_TYPES),
            numbers=numbers,
            memories=self._count(table.get("memories", 1), (*where, "memories")),
            memory=self._kinds(table.get("memory", ""), (*where, "memory")),
            handshake=handshake,
            attempts=self._named(table.get("attempts", "jump"), (*where, "attempts"), handshakes[handshake]),
            attempts_per_s=self._optional(table, (*where, "attempts_per_s"), 1e12, 0.0),
            dead_ns=self._optional(table, (*where, "dead_ns"), 1e9, 0.0),
            jitter_ps=self._optional(table, (*where, "jitter_ps"), 1e9, 50.0),
            protocol=self._of_protocol(table.get("protocol", {}), handshake, (*where, "protocol")),
        )
        efficiencies = tuple(self._memories[name].efficiency if name else 1.0 for name in link.memory)
        source = self._try(table, where, lambda: make_source(link, (efficiencies[0], efficiencies[1])))
        unseen = interactions(handshake, link_facts(link, source.success_probability))
        if link.attempts == "jump" and unseen:
            raise self._doc.error(
                (*where, "attempts"), f"got 'jump', expected 'message': {'; '.join(unseen)}"
            )
        return link

    def _of_protocol(self, said: Any, handshake: str, where: Where) -> Numbers:
        """Numbers of a link protocol of somebody's own, which knows what they may be."""
        if not isinstance(said, dict):
            raise self._doc.error(where, f"got {show(said)}, expected a table such as {{guard_ps = 100}}")
        if said and handshake in POLICIES.handshakes:
            raise self._doc.error(where, f"handshake {handshake!r} takes no numbers, expected none")
        return tuple(
            (key, self._doc.number(value, (*where, key), _NUMBERS, least=-_NUMBERS))
            for key, value in said.items()
        )

    def _fibre(self, table: dict[str, Any], where: Where) -> Fibre:
        labels = []
        for key in ("a", "b"):
            text = self._doc.text(table[key], (*where, key))
            try:
                labels.append(slug(text))
            except ValueError:
                labels.append(text)
        found = self._fibres.get(link_id(*labels))
        if found is None:
            known = [fibre.id for fibre in self._fibres.values()]
            problem = f"no [[link]] between {show(labels[0])} and {show(labels[1])}"
            raise self._doc.error((*where, "b"), f"{problem}, {choice(link_id(*labels), known)}")
        return found

    def _kinds(self, value: Any, where: Where) -> tuple[str, str]:
        """One kind of memory for both ends, or one for each, in order of the names of the sites."""
        if not isinstance(value, list):
            value = [value, value]
        if len(value) != 2:
            raise self._doc.error(where, f"got {show(value)}, expected a memory or a list of two")
        near, far = (self._named(name, where, self._memories) if name != "" else "" for name in value)
        return near, far

    def _count(self, value: Any, where: Where) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_MEMORIES:
            raise self._doc.error(
                where, f"got {show(value)}, expected a whole number from 1 to {MAX_MEMORIES}"
            )
        return value

    def _named(self, value: Any, where: Where, known: Mapping[str, object]) -> str:
        name = self._doc.text(value, where)
        if name not in known:
            raise self._doc.error(where, f"unknown {where[-1]} {show(name)}, {choice(name, known)}")
        return name

    def _optional(self, table: dict[str, Any], here: Where, most: float, absent_value: float) -> float:
        """A number above 0, or what stands for its absence."""
        key = here[-1]
        return self._doc.number(table[key], here, most) if key in table else absent_value

    def _numbers(
        self, table: dict[str, Any], where: Where, required: tuple[str, ...], words: tuple[str, ...]
    ) -> Numbers:
        """Keys that are not words are numbers of a model, which knows what they may be."""
        own = tuple(key for key in table if key not in required and key not in words)
        self._doc.keys(table, where, required, (*words, *own))
        return tuple(
            (key, self._doc.number(table[key], (*where, key), _NUMBERS, least=-_NUMBERS)) for key in own
        )

    def _try(self, table: dict[str, Any], where: Where, make: Callable[[], T]) -> T:
        """What a model makes of its numbers; it says `KEY: ...` of one that cannot be."""
        try:
            return make()
        except ValueError as error:
            key, _, problem = str(error).partition(": ")
            here = (*where, key) if key in table else where
            raise self._doc.error(here, problem if key in table else str(error)) from None
