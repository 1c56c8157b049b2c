"""Classes of one's own while they run: what they say is checked, and what they raise names them.

A link whose protocol fails makes no more pairs, and its requests end with the reason; the others go on.
A memory model that fails refuses the instruction that asked it. A noise model is asked once, when it is made.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, Final

import msgspec
import structlog

from multiplane.api.policy import (
    Decay,
    GenerationFigures,
    HopFacts,
    LinkFacts,
    LinkHost,
    LinkProtocol,
    NoiseModel,
    PauliErrors,
    RepeaterGeneration,
    Signalling,
    StationFacts,
)
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.nouns import Noun
from multiplane.twin.quantum.links import Link

_LONGEST_SAID: Final = 300
_NEAR: Final = 1e-9
_TRIAL_PS: Final = 1_000_000_000_000
_log: Final = structlog.get_logger("multiplane.assembly.plugins")


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a class of one's own comes from.

    Args: name: as scenarios name it; source: file or package, for people; file: as tracebacks name it.
    """

    name: str
    source: str
    file: str

    def says(self, what: str) -> str:
        """A line about it."""
        return f"{self.source}: plug-in {self.name!r}: {what}"

    def raised(self, where: str, error: BaseException) -> str:
        """A line about what it raised, with the line of its file."""
        return f"{place(self.source, self.file, error)}: plug-in {self.name!r}: {where} {told(error)}"


def place(source: str, file: str, error: BaseException) -> str:
    """`SOURCE:LINE` of the last line of `file` that was running."""
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        return f"{source}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{source}:{frames[-1].lineno}" if frames else source


def told(error: BaseException) -> str:
    """What was raised, in one line."""
    said = one_line(str(getattr(error, "reason", error)))
    return f"raised {type(error).__name__}" + (f": {said}" if said else "")


def one_line(said: str) -> str:
    """What a plug-in said, for one line."""
    return " ".join(said.split())[:_LONGEST_SAID]


def make(origin: Origin, kind: type, given: Mapping[str, float]) -> Any:
    """An instance from the numbers of a scenario, which its `__init__` takes by name.

    Raises: ValueError `KEY: ...` for a number that it does not know or lacks, or refuses itself with a
        ValueError; Refused(`input.plugin`) for anything else that it raises.
    """
    wanted = signature(kind).parameters
    open_ended = any(one.kind is Parameter.VAR_KEYWORD for one in wanted.values())
    for key in given:
        if key not in wanted and not open_ended:
            expected = ", ".join(wanted) or "none"
            raise ValueError(f"{key}: unknown key of plug-in {origin.name!r}, expected one of {expected}")
    for key, one in wanted.items():
        required = one.default is Parameter.empty and one.kind not in (
            Parameter.VAR_KEYWORD,
            Parameter.VAR_POSITIONAL,
        )
        if required and key not in given:
            raise ValueError(f"{key}: missing, expected a number for plug-in {origin.name!r}")
    try:
        return kind(**given)
    except ValueError:
        raise
    except Exception as error:
        raise Refused("input.plugin", origin.raised("__init__", error)) from error


class GuardedMemory:
    """A memory model of one's own: what it says is what a memory can do, or an error that names it."""

    def __init__(self, origin: Origin, kind: type, given: Mapping[str, float]) -> None:
        self._origin = origin
        self._decay = make(origin, kind, given).decay
        self._logged = True
        for elapsed_ps in (0, _TRIAL_PS):
            try:
                self.decay(elapsed_ps)
            except Faulty as error:
                raise Refused("input.plugin", error.reason) from error
        self._logged = False

    def decay(self, elapsed_ps: int) -> Decay:
        """As the model says. Raises: Faulty(`plugin.failed`)."""
        try:
            decay = Decay(*self._decay(elapsed_ps))
            possible = _is_possible(decay)
        except Exception as error:
            raise self._fault(self._origin.raised(f"decay({elapsed_ps})", error)) from error
        if not possible:
            what = f"decay({elapsed_ps}) is {tuple(decay)}, expected what a memory can do to a qubit"
            raise self._fault(self._origin.says(what))
        return decay

    def _fault(self, reason: str) -> Faulty:
        """Logged once: who waits for states is not told why none are made."""
        if not self._logged:
            self._logged = True
            _log.error("plugin.failed", plugin=self._origin.name, reason=reason)
        return Faulty("plugin.failed", reason)


def _is_possible(decay: Decay) -> bool:
    """Whether a channel does this to a Bloch vector: it is completely positive.

    Source: Ruskai, Szarek and Werner, Linear Algebra Appl. 347 (2002) 159.
    """
    x, y, z, shift = decay
    both = (x + y) ** 2 <= (1.0 + z) ** 2 - shift**2 + _NEAR
    return both and (x - y) ** 2 <= (1.0 - z) ** 2 - shift**2 + _NEAR and abs(z) + abs(shift) <= 1.0 + _NEAR


class _Noise:
    """What a noise model said when it was made."""

    def __init__(self, single: PauliErrors, double: tuple[float, ...], flip_probability: float) -> None:
        self._single, self._double, self._flip_probability = single, double, flip_probability

    def single(self) -> PauliErrors:
        return self._single

    def double(self) -> tuple[float, ...]:
        return self._double

    def flip_probability(self) -> float:
        return self._flip_probability


def guarded_noise(origin: Origin, kind: type, given: Mapping[str, float]) -> NoiseModel:
    """A noise model of one's own, asked once.

    Raises: as `make`; Refused(`input.plugin`) for what are no probabilities.
    """
    model = make(origin, kind, given)

    def ask(method: str, most: int, expected: str, *, whole: bool) -> tuple[float, ...]:
        try:
            answer = getattr(model, method)()
            values = tuple(map(float, answer if most > 1 else (answer,)))
        except Exception as error:
            raise Refused("input.plugin", origin.raised(method, error)) from error
        total = math.fsum(values)
        fits = abs(total - 1.0) <= _NEAR if whole else total <= 1.0 + _NEAR
        if len(values) != most or not all(0.0 <= value <= 1.0 for value in values) or not fits:
            raise Refused("input.plugin", origin.says(f"{method} is {answer!r}, expected {expected}"))
        return values

    single = PauliErrors(*ask("single", 3, "3 probabilities of X, Y and Z, together at most 1", whole=False))
    double = ask("double", 16, "16 probabilities that add up to 1", whole=True)
    (flip_probability,) = ask("flip_probability", 1, "a probability", whole=False)
    return _Noise(single, double, flip_probability)


class GuardedLink:
    """Stands between a link and a protocol of one's own, as the one's protocol and the other's host.

    Raises: Refused(`input.plugin`) when it cannot be made.
    """

    def __init__(
        self,
        origin: Origin,
        kind: Callable[..., LinkProtocol],
        facts: LinkFacts,
        host: LinkHost,
    ) -> None:
        self._origin = origin
        self._facts = facts
        self._host = host
        self._lent: tuple[dict[int, int], dict[int, int]] = ({}, {})  # memory: raw since, in ps
        self._failed = False
        self._passing: BaseException | None = None
        self._at_ps: int | None = None
        try:
            self._protocol = kind(facts, self, **facts.numbers)
        except Exception as error:
            reason = origin.raised(f"__init__ on link {facts.link}", error)
            raise Refused("input.plugin", reason) from error

    def raw(self, end: int, slot: int) -> None:
        self._lent[end].setdefault(slot, self.now_ps())
        self._run(self._protocol.raw, end, slot)

    def withdraw(self, end: int, slot: int) -> None:
        self._lent[end].pop(slot, None)
        self._run(self._protocol.withdraw, end, slot)

    def now_ps(self) -> int:
        """As the host's, and the same for as long as one call of the plug-in lasts."""
        return self._host.now_ps() if self._at_ps is None else self._at_ps

    def trials(self, probability: float) -> int:
        """As the host's. Raises: ValueError for a probability that is none, or 0."""
        if not 0.0 < probability <= 1.0:
            raise ValueError(f"trials: probability {probability!r}, expected more than 0, at most 1")
        return self._host.trials(probability)

    def chance(self, probability: float) -> bool:
        """As the host's. Raises: ValueError for a probability that is none."""
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"chance: probability {probability!r}, expected a number from 0 to 1")
        return self._host.chance(probability)

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        """As the host's. Raises: TypeError for a time that is no whole number."""
        if not isinstance(due_ps, int) or not callable(handler):
            raise TypeError(f"at_ps: got {due_ps!r}, {handler!r}, expected whole picoseconds and a handler")
        self._host.at_ps(due_ps, self._run, handler, *args)

    def born(self, slots: tuple[int, int], emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        """As the host's. Raises: ValueError for memories that were not lent, or times that cannot be."""
        if self._failed:
            return
        now_ps, (near, far) = self.now_ps(), slots
        if near not in self._lent[0] or far not in self._lent[1]:
            raise ValueError(f"born: memories {slots}, expected one of each end that is raw")
        times = (emitted_ps, *heard_ps)
        if len(times) != 3 or not all(isinstance(time_ps, int) for time_ps in times):
            raise ValueError(f"born: times {times}, expected three of whole picoseconds")
        if emitted_ps > now_ps or min(heard_ps) < now_ps:
            wrong = f"born: emitted at {emitted_ps}, heard at {heard_ps}"
            raise ValueError(f"{wrong}, expected not after and not before now, {now_ps}")
        soonest_ps = max(self._lent[0][near], self._lent[1][far]) - self._facts.photon_ps
        if emitted_ps < soonest_ps:
            raise ValueError(
                f"born: emitted at {emitted_ps}, expected {soonest_ps} or later, for raw memories"
            )
        del self._lent[0][near], self._lent[1][far]
        try:
            self._host.born(slots, emitted_ps, heard_ps)
        except Exception as error:
            self._passing = error  # of who was told of the pair, not of the plug-in
            raise

    def _run(self, handler: Callable[..., None], *args: Any) -> None:
        """Run code of the plug-in. What it raises ends the link, and nothing else."""
        if self._failed:
            return
        outer_ps, self._at_ps = self._at_ps, self.now_ps()
        try:
            handler(*args)
        except Exception as error:
            if error is self._passing:
                raise
            self._fail(getattr(handler, "__name__", repr(handler)), error)
        finally:
            self._at_ps = outer_ps

    def _fail(self, method: str, error: Exception) -> None:
        self._failed = True
        reason = self._origin.raised(f"{method} on link {self._facts.link}", error)
        _log.error("plugin.failed", plugin=self._origin.name, link=self._facts.link, reason=reason)
        if not isinstance(self._host, Link):
            raise Faulty("plugin.failed", reason) from error
        self._host.fail(reason)


def _is_sound(said: Noun) -> bool:
    """Whether each text is a text and each number is one, from 0 on."""
    for field in msgspec.structs.fields(said):
        value, kind = getattr(said, field.name), float | int if field.type is float else field.type
        if not isinstance(value, kind) or (field.type is not str and not value >= 0):
            return False
    return True


class GuardedGeneration:
    """A repeater generation whose answers are checked. Raises: Faulty(`plugin.failed`) from both methods."""

    def __init__(self, origin: Origin, made_from: Callable[[], RepeaterGeneration]) -> None:
        self._origin, self._made_from = origin, made_from

    @property
    def name(self) -> str:
        return self._origin.name

    def attainable(
        self, hops: Sequence[HopFacts], station: StationFacts, most_error_rate: float
    ) -> GenerationFigures | None:
        figures = self._asked("attainable", hops, station, most_error_rate)
        if figures is None:
            return None
        if not isinstance(figures, GenerationFigures) or not _is_sound(figures):
            raise self._wrong("attainable", figures, "None or GenerationFigures of numbers from 0 and texts")
        if figures.logical_error_rate > 1.0:
            raise self._wrong("attainable", figures, "a logical_error_rate of at most 1")
        return figures

    def signalling(
        self, hops: Sequence[HopFacts], station: StationFacts, figures: GenerationFigures
    ) -> Signalling:
        said = self._asked("signalling", hops, station, figures)
        if not isinstance(said, Signalling) or not _is_sound(said):
            raise self._wrong("signalling", said, "Signalling of numbers from 0 and a text")
        return said

    def _asked(self, method: str, *given: object) -> object:
        try:
            return getattr(self._made_from(), method)(*given)
        except Exception as error:
            raise Faulty("plugin.failed", self._origin.raised(f"{method}()", error)) from error

    def _wrong(self, method: str, found: object, expected: str) -> Faulty:
        return Faulty("plugin.failed", self._origin.says(f"{method}(): got {found!r}, expected {expected}"))
