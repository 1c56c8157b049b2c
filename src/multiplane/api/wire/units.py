"""Messages of units over HTTPS: the words of `api.units` as JSON, read strictly. Version 1.

A wish with a member that nobody knows is refused: a misspelt floor must not pass for none. The bounds here
keep messages small; what makes sense is for the service to say.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from multiplane.api.states import Step
from multiplane.api.units import Answer, Part, UnitView, Wish
from multiplane.kernel.nouns import Noun

EVENTS_TYPE: Final = "text/event-stream"
MOST_PARTIES: Final = 64
MOST_PARTS: Final = 64
MOST_EDGES: Final = 2016
MOST_STEPS: Final = 256
MOST_OPTIONS: Final = 32
MOST_SITES: Final = 256

Word = Annotated[str, Meta(max_length=64)]
Name = Annotated[str, Meta(max_length=1024)]
Whole = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Real = Annotated[float, Meta(ge=-1e15, le=1e15)]
Sites = Annotated[tuple[Name, ...], Meta(max_length=MOST_SITES)]


class WirePart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`api.units.Part`."""

    kind: Word
    size: Whole = 1
    min_fidelity: Real = 0.0
    size_bit: Whole = 0
    edges: Annotated[tuple[tuple[Whole, Whole], ...], Meta(max_length=MOST_EDGES)] = ()
    options: Annotated[tuple[tuple[Word, Name], ...], Meta(max_length=MOST_OPTIONS)] = ()
    max_logical_error_rate: Real = 0.0


class WireWish(Wish, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`api.units.Wish`."""

    request: Annotated[str, Meta(min_length=1, max_length=128)]
    parties: Annotated[tuple[Name, ...], Meta(max_length=MOST_PARTIES)]
    parts: Annotated[tuple[WirePart, ...], Meta(max_length=MOST_PARTS)]
    valid_s: Real = 0.0
    rate_per_s: Real = 0.0
    consumption: Word = "reactive"
    at_ns: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    via: Sites = ()
    avoid: Sites = ()


class Declined(Answer, frozen=True, kw_only=True):
    """An answer that refuses: the answer, and what every error says."""

    message: str
    details: list[dict[str, Any]]


class WireStep(Step, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`api.states.Step`."""

    do: Word
    on: Annotated[tuple[Name, ...], Meta(max_length=16)]
    gate: Word = ""
    basis: Word = "z"
    state: Word = "0"


class Steps(Noun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done at one end, one step after the other."""

    steps: Annotated[tuple[WireStep, ...], Meta(min_length=1, max_length=MOST_STEPS)]


class UnitList(Noun, frozen=True, kw_only=True):
    """The caller's live units, oldest first."""

    units: tuple[UnitView, ...]


class Released(Noun, frozen=True, kw_only=True):
    """The unit that was let go of."""

    unit: str
