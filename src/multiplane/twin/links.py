"""Life of one quantum link, pure: (life, event) -> (life, actions). Who holds it performs the actions.

    dark --Connected--> provisioning --Elapsed, both ends want key--> calibrating --Elapsed--> up
    up --an end stops--> draining --Elapsed--> dark (still lit: starts again without provisioning)
    any --Disconnected--> dark      any --Failed--> faulted --Connected--> provisioning
    up --Changed, a flaw--> faulted --Changed, no flaw--> calibrating (while lit and wanted, else dark)

Every wait belongs to a generation; when the life takes another turn the generation rises, and the timer of an
older one does nothing.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from multiplane.api.device import LinkState


class Action(Enum):
    """What follows from a step. The four waits end with `Elapsed` of the new generation."""

    TELL = "tell both ends"
    PROVISION = "wait until light arrives"
    CALIBRATE = "wait until both modules agree"
    PRODUCE = "make key until told otherwise"
    DRAIN = "wait until the current block is finished"


class Connected(msgspec.Struct, frozen=True):
    """A quantum path is being switched to the link; `flaw` says why no key can be made on it, if so."""

    flaw: str = ""


class Disconnected(msgspec.Struct, frozen=True):
    """The path was taken away on purpose."""

    reason: str


class Failed(msgspec.Struct, frozen=True):
    """The path was lost."""

    reason: str


class Changed(msgspec.Struct, frozen=True):
    """The path or a module is not what it was; `flaw` says why no key can be made now, empty when it can."""

    flaw: str


class Wanted(msgspec.Struct, frozen=True):
    """End 0 or 1 asks to make key, or to stop."""

    end: int
    on: bool


class Elapsed(msgspec.Struct, frozen=True):
    """The wait of a generation is over."""

    generation: int


Event = Connected | Disconnected | Failed | Changed | Wanted | Elapsed


class Life(msgspec.Struct, frozen=True):
    """Where a link is in its life.

    Args:
        lit: light arrives at both modules.
        flaw: why the path, though lit, yields no key; empty when it does.
        wanted: which ends ask for key.
        generation: rises with each turn of the life.
        reason: why it is dark or faulted.
    """

    state: LinkState = LinkState.DARK
    lit: bool = False
    flaw: str = ""
    wanted: tuple[bool, bool] = (False, False)
    generation: int = 0
    reason: str = "no path"


Step = tuple[Life, tuple[Action, ...]]


def step(life: Life, event: Event) -> Step:
    """The next life and what to do about it."""
    match event:
        case Connected(flaw):
            lost = msgspec.structs.replace(life, lit=False, flaw=flaw)
            return _turn(lost, LinkState.PROVISIONING, Action.PROVISION)
        case Disconnected(reason):
            return _turn(msgspec.structs.replace(life, lit=False), LinkState.DARK, reason=reason)
        case Failed(reason):
            return _turn(msgspec.structs.replace(life, lit=False), LinkState.FAULTED, reason=reason)
        case Changed(flaw):
            return _changed(msgspec.structs.replace(life, flaw=flaw))
        case Wanted(end, on):
            return _wanted(life, end, on)
        case Elapsed(generation):
            return _elapsed(life) if generation == life.generation else (life, ())


def _wanted(life: Life, end: int, on: bool) -> Step:
    wanted = (on, life.wanted[1]) if end == 0 else (life.wanted[0], on)
    life = msgspec.structs.replace(life, wanted=wanted)
    if all(wanted):
        return _calibrate_if_ready(life)
    if life.state is LinkState.UP:
        return _turn(life, LinkState.DRAINING, Action.DRAIN)
    if life.state is LinkState.CALIBRATING:
        return _turn(life, LinkState.DARK, reason="stopped")
    return life, ()


def _changed(life: Life) -> Step:
    if life.flaw and life.state in (LinkState.UP, LinkState.DRAINING):
        return _turn(life, LinkState.FAULTED, reason=life.flaw)
    if not life.flaw and life.lit and life.state is LinkState.FAULTED:
        dark, told = _turn(life, LinkState.DARK, reason="stopped")
        again, more = _calibrate_if_ready(dark)
        return again, more or told
    return life, ()


def _elapsed(life: Life) -> Step:
    match life.state:
        case LinkState.PROVISIONING:
            return _calibrate_if_ready(msgspec.structs.replace(life, lit=True))
        case LinkState.CALIBRATING if life.flaw:
            return _turn(life, LinkState.FAULTED, reason=life.flaw)
        case LinkState.CALIBRATING:
            return _turn(life, LinkState.UP, Action.PRODUCE)
        case LinkState.DRAINING:
            dark, told = _turn(life, LinkState.DARK, reason="stopped")
            again, more = _calibrate_if_ready(dark)
            return again, more or told
        case _:
            return life, ()


def _calibrate_if_ready(life: Life) -> Step:
    waiting = life.state in (LinkState.DARK, LinkState.PROVISIONING)
    if life.lit and all(life.wanted) and waiting:
        return _turn(life, LinkState.CALIBRATING, Action.CALIBRATE)
    return life, ()


def _turn(life: Life, state: LinkState, *actions: Action, reason: str = "") -> Step:
    turned = msgspec.structs.replace(life, state=state, generation=life.generation + 1, reason=reason)
    return turned, (Action.TELL, *actions)
