"""What repeaters say to one another about pairs (service `pairs`), and what a part of a job wants done.

Messages pass between neighbours on the path of a circuit. A pair is named by its number on its link, which
the devices at both ends tell: so both assign it to the same circuit without a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Final, NamedTuple

import msgspec

from multiplane.api.fabric_units import HeldState, StateLost
from multiplane.api.instructions import CoreInstruction, Report
from multiplane.api.states import TraceRow
from multiplane.fabric.resource.quality import Gates, Leg, Pair, PairWords, Resting
from multiplane.kernel.nouns import Noun

UP: Final = 0
"""Towards the first end of the path."""
DOWN: Final = 1
FRAME_GATES: Final = ("", "z", "x", "y")
"""The gate that takes a frame out: 1 phase, 2 parity, 3 both."""
BASES: Final = ("x", "y", "z")


Bit = Annotated[int, msgspec.Meta(ge=0, le=1)]
Frame = Annotated[int, msgspec.Meta(ge=0, le=3)]
"""Pauli operator on one half: phase + 2 parity."""


class ErrorCode(IntEnum):
    """Of the link layer (EGP, Dahlberg et al. 2019): why a wish for pairs ended, or a pair did."""

    UNSUPP = 40
    NOTIME = 41
    NORES = 42
    TIMEOUT = 43
    REJECTED = 44
    OTHER = 45
    EXPIRE = 46
    CREATE = 47


CODES: Final = {
    "instruction.fidelity": ErrorCode.UNSUPP,
    "instruction.deadline": ErrorCode.NOTIME,
    "instruction.queue_full": ErrorCode.NORES,
    "instruction.memory_full": ErrorCode.NORES,
    "instruction.nobody": ErrorCode.REJECTED,
    "instruction.unknown_link": ErrorCode.REJECTED,
    "instruction.value": ErrorCode.CREATE,
    "instruction.expired": ErrorCode.EXPIRE,
}
"""What a device's refusal is in the words of the link layer; anything else is OTHER."""


def _tag(class_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", class_name).lower()


class Message(Noun, frozen=True, kw_only=True, tag_field="is", tag=_tag):
    """Base: about one circuit of one binding of an order."""

    order_id: str
    binding: int
    circuit: str


class Create(Message, frozen=True, kw_only=True):
    """CREATE, and how far: the lower end of a link wishes for pairs of it, `held` of which it still has.

    Sent when it takes the job on, and each time a memory of it is free again. Among reordered ones the
    highest `seq` counts.

    Args:
        heard: highest number of a pair that it has heard of.
        full: no memory is free for the next pair: the service holds what was handed over.
    """

    seq: int
    held: tuple[int, ...] = ()
    heard: int = 0
    full: bool = False


class Error(Message, frozen=True, kw_only=True):
    """ERR: the upper end cannot serve the wish. Args: code: value of `ErrorCode`."""

    code: int
    reason: str


class Expire(Message, frozen=True, kw_only=True):
    """What pair `number` of the link between us was to be is broken. It goes on to whoever holds the rest."""

    number: int


class Track(Message, frozen=True, kw_only=True):
    """Follows a half from where it is held through all swaps, and gathers what became of it.

    Args:
        number: of the pair on the link that the message crosses.
        origin: place of the sender on the path; first: number of the pair it started with.
        frame: of all so far; pair: without the rest of the origin's half, which is `resting` since
            `known_ns`; made_ns: of the oldest qubit; rows: what went into it.
        elapsed_ps: `tags.onward` of all inner sites so far; None: some device tells no times.
        gates: of the origin.
    """

    number: int
    origin: int
    first: int
    frame: Frame
    pair: PairWords
    resting: Resting
    known_ns: int
    made_ns: int
    rows: tuple[TraceRow, ...]
    gates: Gates
    elapsed_ps: int | None = None


class Distil(Message, frozen=True, kw_only=True):
    """The end that leads has done its part of a purification with these pairs and read `bit`.

    Args: far: between the ends of the circuit, not of one link; kept, sacrificed: numbers on that link,
        or on the first link of the path.
    """

    kept: int
    sacrificed: int
    bit: Bit
    at_ns: int
    far: bool = False


class Distilled(Message, frozen=True, kw_only=True):
    """The other end's bit; -1: it had lost one of the two."""

    kept: int
    sacrificed: int
    bit: int
    far: bool = False


class Want(Message, frozen=True, kw_only=True):
    """Whether the first end wants more pairs. The highest `seq` counts."""

    seq: int
    more: bool


class Outcome(Message, frozen=True, kw_only=True):
    """The bit of a site of a sacrificed state, on its way to whoever counts errors."""

    state: str
    site: str
    bit: Bit


class Grown(Message, frozen=True, kw_only=True):
    """The half with number `first` at the far end is joined there to all that is beyond it.

    Args:
        frame: what the outcomes there add to that of the pair; pair: what the joining left of it.
        rests: whether that half is still there, as a party's qubit.
        legs: of all circuits beyond, by name; rows: what went into them; made_ns: of the oldest qubit.
    """

    first: int
    frame: Frame
    pair: PairWords
    rests: bool
    legs: dict[str, Leg]
    made_ns: int
    rows: tuple[TraceRow, ...]


class Joined(Message, frozen=True, kw_only=True):
    """The pair that started with `first` at the far end is now a part of `state`.

    Args:
        frame: what the far end has to take out.
        legs: of all circuits of the job, in order; rows: what went into it.
    """

    first: int
    frame: Frame
    state: str
    legs: tuple[Leg, ...]
    made_ns: int
    rows: tuple[TraceRow, ...] = ()


PairMessage = Create | Error | Expire | Track | Distil | Distilled | Want | Outcome | Grown | Joined


@dataclass(slots=True, eq=False)
class Half:
    """One half of a pair at this site.

    Args:
        link: the link that it came from; number: of its pair there.
        seen_ps: when the device here says that it came, Unix picoseconds; None: it tells no times.
        since_ns: in memory since; known_ns: when this site heard of it, or of its last purification.
        pair: at `known_ns`, in `frame`.
        shared: the number by which both ends of the circuit know it: that on the first link.
        level: rounds of purification that it has behind it.
        extended: all swaps that this site waits for are done on its side.
    """

    handle: int
    link: str
    side: int
    number: int
    since_ns: int
    known_ns: int
    frame: int
    pair: Pair
    row: TraceRow
    shared: int = 0
    level: int = 0
    extended: bool = False
    busy: bool = False
    gone: bool = False
    seen_ps: int | None = None
    rows: list[TraceRow] = field(default_factory=list)


# What a part of a job wants done, in this order.


class Submit(msgspec.Struct, frozen=True):
    """Ask the devices here."""

    instruction: CoreInstruction


class Tell(msgspec.Struct, frozen=True):
    """Send a message to a neighbour."""

    peer: str
    message: PairMessage


class Wake(msgspec.Struct, frozen=True):
    """Call `then` at `at_ns`, unless the part has been closed."""

    at_ns: int
    then: Callable[[int], None]


class Held(msgspec.Struct, frozen=True):
    """Hand a state over; handle 0: it was measured."""

    state: HeldState
    handle: int
    rows: tuple[TraceRow, ...]


class Lost(msgspec.Struct, frozen=True):
    """A state that was handed over is worth nothing."""

    lost: StateLost


class Changed(msgspec.Struct, frozen=True):
    """How far the part is has changed."""


Action = Submit | Tell | Wake | Held | Lost | Changed


class Key(NamedTuple):
    """To which part of which job a request belongs; `circuit` is empty for what is done at this site only."""

    order_id: str
    binding: int
    circuit: str


def request_id(number: str, key: Key) -> str:
    """A request that says at both ends of a link whom it is for. Args: number: unique at this site."""
    return f"{number}|{key.binding}|{len(key.order_id)}|{key.order_id}{key.circuit}"


def key_of(request: str) -> Key | None:
    """Whom a request is for; None when no repeater has asked."""
    parts = request.split("|", 3)
    if len(parts) != 4 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    size, rest = int(parts[2]), parts[3]
    return Key(rest[:size], int(parts[1]), rest[size:])


class Around(NamedTuple):
    """What a part is told of its site.

    Args: full: whether all memories of a link hold something; slack_ns: by how much software is late here,
        for which no half is given up: 0 in virtual time.
    """

    full: Callable[[str], bool]
    slack_ns: Callable[[], int]


class Desk:
    """Where the machines of a part put what they want done; results find their way back from here.

    Args:
        numbers: of requests, shared by all parts of this site; now_ns: when what is handled now happened.
        around: what else is known at the site.
    """

    def __init__(self, order_id: str, binding: int, numbers: Iterator[str], around: Around) -> None:
        self.order_id = order_id
        self.binding = binding
        self.now_ns = 0
        self.full, self.slack_ns = around.full, around.slack_ns
        self._numbers = numbers
        self._actions: list[Action] = []
        self._then: dict[str, Callable[[Report], None]] = {}

    def request(self, circuit: str = "") -> str:
        """A new id."""
        return request_id(next(self._numbers), Key(self.order_id, self.binding, circuit))

    def ask(self, instruction: CoreInstruction, then: Callable[[Report], None] | None = None) -> None:
        """Submit; `then` hears the result, good or bad."""
        if then is not None:
            self._then[instruction.request] = then
        self._actions.append(Submit(instruction))

    def put(self, action: Action) -> None:
        """Let this be done after what was put before."""
        self._actions.append(action)

    def wake(self, delay_ns: int, then: Callable[[int], None]) -> None:
        """Call `then` after `delay_ns`."""
        self._actions.append(Wake(self.now_ns + delay_ns, then))

    def answered(self, report: Report) -> bool:
        """Hand a result over to who asked; False if nobody waits for it."""
        then = self._then.pop(report.request, None)
        if then is None:
            return False
        then(report)
        return True

    def drop(self, request: str) -> None:
        """All that was asked for is there, or it is not wanted any more: nothing is to be heard of it."""
        self._then.pop(request, None)

    @property
    def waiting(self) -> int:
        """Results that are still to come."""
        return len(self._then)

    def take(self) -> list[Action]:
        """What is to be done now."""
        actions, self._actions = self._actions, []
        return actions

    def forget(self) -> None:
        """Nobody waits any more."""
        self._then.clear()
