"""Link protocols, memory models, noise models and repeater generations of one's own, in files and packages.

A file says `LINK_PROTOCOLS = {"name": Class}`, `MEMORY_MODELS`, `NOISE_MODELS` or `REPEATER_GENERATIONS`; a
package has entry points in `multiplane.link_protocols`, `.memory_models`, `.noise_models` or
`.repeater_generations`. Scenarios name them, they import nothing.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import msgspec

from multiplane.api.policy import (
    LinkFacts,
    LinkHost,
    LinkProtocol,
    MemoryModel,
    NoiseModel,
    RepeaterGeneration,
)
from multiplane.assembly.planning_policies import GUARDS, Guarded
from multiplane.assembly.plugin_guard import (
    GuardedGeneration,
    GuardedLink,
    GuardedMemory,
    Origin,
    guarded_noise,
    place,
    told,
)
from multiplane.fabric.control.generations import GENERATIONS
from multiplane.fabric.control.policies import BUILT_IN
from multiplane.kernel.errors import Refused
from multiplane.twin.handshake import FIDELITIES
from multiplane.twin.quantum.policies import POLICIES, Policies

MOST_BYTE: Final = 1_000_000


class Kind(NamedTuple):
    """What a class can be: the table of a file, the group of entry points, its methods and what they take."""

    title: str
    table: str
    group: str
    methods: Mapping[str, int]
    versions: tuple[str, ...] = ("",)
    """Fidelities in which a name has a class of its own, or the same."""


LINK: Final = Kind(
    "link protocol", "LINK_PROTOCOLS", "multiplane.link_protocols", {"raw": 2, "withdraw": 2}, FIDELITIES
)
MEMORY: Final = Kind("memory model", "MEMORY_MODELS", "multiplane.memory_models", {"decay": 1})
NOISE: Final = Kind(
    "noise model",
    "NOISE_MODELS",
    "multiplane.noise_models",
    {"single": 0, "double": 0, "flip_probability": 0},
)
GENERATION: Final = Kind(
    "repeater generation",
    "REPEATER_GENERATIONS",
    "multiplane.repeater_generations",
    {"attainable": 3, "signalling": 3},
)
_PLANNING_METHODS: Final[Mapping[str, Mapping[str, int]]] = {
    "routing": {"routes": 2},
    "scheduling": {"window": 3},
    "purification": {"rounds": 2},
    "swapping": {"levels": 1},
    "admission": {"admit": 2},
}
PLANNING: Final = {
    kind: Kind(f"{kind} policy", f"{kind.upper()}_POLICIES", f"multiplane.{kind}_policies", methods)
    for kind, methods in _PLANNING_METHODS.items()
}
KINDS: Final = (LINK, MEMORY, NOISE, GENERATION, *PLANNING.values())
WITH_PLANNING: Final = msgspec.structs.replace(POLICIES, planning=BUILT_IN)


class Plugins(msgspec.Struct, frozen=True, kw_only=True):
    """What names stand for, with those of one's own.

    Args: generations: of repeaters, by name, those that ship first; files: name and SHA-256 of each file;
        packages: name and version of each package that offers some.
    """

    policies: Policies = WITH_PLANNING
    generations: Mapping[str, RepeaterGeneration] = msgspec.field(default_factory=lambda: GENERATIONS)
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


NO_PLUGINS: Final = Plugins()


class Plugin:
    """A class of one's own under its name.

    Args: find: brings the class; it is called once, at the latest when the first scenario names it.
    """

    def __init__(self, kind: Kind, name: str, source: str, find: Callable[[], object]) -> None:
        self.kind, self.name, self.source = kind, name, source
        self._find = find

    @cached_property
    def found(self) -> type:
        """The class. Raises: Refused(`input.plugin`) when there is none, or not of this kind."""
        try:
            found = self._find()
        except (Exception, SystemExit) as error:
            raise self._refused(f"its module {told(error)}") from error
        if not isinstance(found, type):
            raise self._refused(f"got {found!r}, expected a class")
        for method, takes in self.kind.methods.items():
            self._check_method(found, method, takes)
        if self.kind is LINK:
            self._check_takes(found, found.__name__, 2, more=True)
        return found

    def _check_method(self, found: type, method: str, takes: int) -> None:
        static = inspect.getattr_static(found, method, None)
        if static is None:
            raise self._refused(
                f"class {found.__name__} has no method {method}, as a {self.kind.title} needs"
            )
        bound = isinstance(static, staticmethod | classmethod)
        self._check_takes(getattr(found, method), f"{found.__name__}.{method}", takes, own=not bound)

    def _check_takes(
        self, called: Any, name: str, takes: int, *, own: bool = False, more: bool = False
    ) -> None:
        try:
            signature = inspect.signature(called)
            (signature.bind_partial if more else signature.bind)(*[None] * (takes + own))
        except (TypeError, ValueError) as error:
            expected = f"expected to be called with {takes} {'value' if takes == 1 else 'values'}"
            raise self._refused(f"{name}: {error}, {expected}") from None

    def _refused(self, what: str) -> Refused:
        return Refused("input.plugin", f"{self.source}: {self.kind.title} {self.name!r}: {what}")

    @property
    def origin(self) -> Origin:
        """For what it says while it runs."""
        module = sys.modules.get(self.found.__module__)
        return Origin(name=self.name, source=self.source, file=getattr(module, "__file__", None) or "")

    def link(self, facts: LinkFacts, host: LinkHost) -> LinkProtocol:
        """As `api.policy.MakeLinkProtocol`."""
        return GuardedLink(self.origin, self.found, facts, host)

    def memory(self, given: Mapping[str, float]) -> MemoryModel:
        """As `api.policy.MakeMemory`."""
        return GuardedMemory(self.origin, self.found, given)

    def noise(self, given: Mapping[str, float]) -> NoiseModel:
        """As `api.policy.MakeNoise`."""
        return guarded_noise(self.origin, self.found, given)

    def planning(self, kind: str) -> Guarded:
        """A policy of planning, of this kind."""
        return GUARDS[kind](self.origin, self.found)

    def generation(self) -> RepeaterGeneration:
        """As `api.policy.RepeaterGeneration`."""
        return GuardedGeneration(self.origin, self.found)


def load_plugins(files: Sequence[Path | str] = ()) -> Plugins:
    """The shipped policies with those of installed packages and of `files`.

    Raises: Refused(`input.plugin`) for a file that cannot be used, or a name that is taken.
    """
    registry = _Registry()
    packages: set[str] = set()
    for kind in KINDS:
        for entry in entry_points(group=kind.group):
            packages.add(_package(entry))
            plugin = Plugin(kind, entry.name, f"{_package(entry)}: {entry.value}", entry.load)
            registry.add(plugin, dict.fromkeys(kind.versions, plugin))
    digests = [_load_file(Path(file), registry) for file in files]
    return Plugins(
        policies=registry.policies(),
        generations=registry.generations(),
        files=tuple(digests),
        packages=tuple(sorted(packages)),
    )


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"


class _Registry:
    """Names that are taken, and by whom."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], str] = {}
        self._added: dict[str, dict[str, Mapping[str, Plugin]]] = {kind.group: {} for kind in KINDS}
        models = (POLICIES.handshakes, POLICIES.memories, POLICIES.noises)
        shipped = (*models, GENERATIONS, *(BUILT_IN[kind] for kind in PLANNING))
        for kind, names in zip(KINDS, shipped, strict=True):
            self._taken.update({(kind.group, name): "multiplane itself" for name in names})

    def add(self, plugin: Plugin, by_fidelity: Mapping[str, Plugin]) -> None:
        """Give a name its class. Raises: Refused(`input.plugin`)."""
        title, name = plugin.kind.title, plugin.name
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            what = f"name of a {title}: got {name!r}, expected lower-case letters, digits and -"
            raise Refused("input.plugin", f"{plugin.source}: {what}")
        holder = self._taken.get((plugin.kind.group, name))
        if holder is not None:
            what = f"{title} {name!r} is taken by {holder}, expected a name of its own"
            raise Refused("input.plugin", f"{plugin.source}: {what}")
        self._taken[plugin.kind.group, name] = plugin.source
        self._added[plugin.kind.group][name] = by_fidelity

    def policies(self) -> Policies:
        """Those that ship and those that were added."""
        links, memories, noises = (self._added[kind.group] for kind in (LINK, MEMORY, NOISE))
        return Policies(
            handshakes={
                **POLICIES.handshakes,
                **{
                    name: {fidelity: one.link for fidelity, one in by_fidelity.items()}
                    for name, by_fidelity in links.items()
                },
            },
            memories={**POLICIES.memories, **{name: one[""].memory for name, one in memories.items()}},
            noises={**POLICIES.noises, **{name: one[""].noise for name, one in noises.items()}},
            planning={name: {**shipped, **self._planning(name)} for name, shipped in BUILT_IN.items()},
        )

    def _planning(self, kind: str) -> Mapping[str, Callable[[], Guarded | RepeaterGeneration]]:
        if kind == "generation":
            return {name: one[""].generation for name, one in self._added[GENERATION.group].items()}
        added = self._added[PLANNING[kind].group]
        return {name: partial(one[""].planning, kind) for name, one in added.items()}

    def generations(self) -> Mapping[str, RepeaterGeneration]:
        """Those that ship, and those that were added."""
        added = self._added[GENERATION.group].items()
        return {**GENERATIONS, **{name: one[""].generation() for name, one in added}}


class _Bytes(importlib.abc.SourceLoader):
    """Loads a module from what was read of its file: what runs is what the digest is of."""

    def __init__(self, file: str, content: bytes) -> None:
        self._file, self._content = file, content

    def __repr__(self) -> str:
        return f"_Bytes({self._file!r})"

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002
        """Where the module says that it is."""
        return self._file

    def get_data(self, path: str | bytes) -> bytes:  # noqa: ARG002
        """What was read."""
        return self._content


def _load_file(path: Path, registry: _Registry) -> str:
    """Name and digest of a file whose classes are in the registry now."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTE + 1)
    except OSError as error:
        raise Refused(
            "input.plugin", f"{path}: expected a readable plug-in file: {error.strerror}"
        ) from error
    if len(content) > MOST_BYTE:
        raise Refused("input.plugin", f"{path}: expected a plug-in file of at most {MOST_BYTE} bytes")
    digest = hashlib.sha256(content).hexdigest()
    module = _module(path, content, digest)
    tables = [(kind, getattr(module, kind.table)) for kind in KINDS if hasattr(module, kind.table)]
    if not tables:
        expected = " or ".join(f"{kind.table} = {{...}}" for kind in KINDS)
        raise Refused("input.plugin", f"{path}: says none, expected {expected}")
    for kind, table in tables:
        if not isinstance(table, dict):
            what = f'got {table!r}, expected a table {{"name": Class}}'
            raise Refused("input.plugin", f"{path}: {kind.table}: {what}")
        for name, said in table.items():
            _add(registry, kind, name, str(path), said)
    return f"{path.name} sha256:{digest}"


def _add(registry: _Registry, kind: Kind, name: Any, source: str, said: Any) -> None:
    """One row of a table: a class, or of a link protocol one for each fidelity."""
    apart = kind is LINK and isinstance(said, dict)
    if apart and (not said or not set(said) <= set(FIDELITIES)):
        what = f"{kind.title} {name!r}: got {sorted(said, key=str)}, expected {' and '.join(FIDELITIES)}"
        raise Refused("input.plugin", f"{source}: {what}")
    given = said if apart else dict.fromkeys(kind.versions, said)
    plugins = {key: Plugin(kind, name, source, partial(_same, one)) for key, one in given.items()}
    for plugin in plugins.values():
        plugin.found  # noqa: B018 - checked now: a file is named to be used
    registry.add(next(iter(plugins.values())), plugins)


def _same(found: object) -> object:
    return found


def _module(path: Path, content: bytes, digest: str) -> ModuleType:
    name, file = f"multiplane_plugin_{digest[:16]}", str(path.absolute())
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file, loader=_Bytes(file, content))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        where = place(str(path), file, error)
        raise Refused("input.plugin", f"{where}: the file {told(error)}") from error
    return module
