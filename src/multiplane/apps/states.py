"""Drives a unit through its states: asks, waits until all ends hold the next state, acts on it, lets go."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from multiplane.api.states import Operated, Step
from multiplane.api.units import Answer, UnitEvent, Verdict, Wish
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused
from multiplane.kernel.quantity import NS_PER_S

T = TypeVar("T")
MOST_OF_A_UNIT: Final = 500
"""States: a memory keeps them for seconds, and a unit lives no longer."""
_BEGIN_WITHIN_S: Final = 60.0
_IDLE: Final = 3
"""Units in a row that may give no state: a busy machine may be late for those that live for a moment."""
_GONE: Final = ("lost", "expired")
_AT_ONCE: Final = 8
_PATIENCE_S: Final = 5.0
_SILENCE_S: Final = 10.0
_SHORTEST_PAUSE_S: Final = 0.01
_TOO_LATE: Final = ("unit.expired", "unit.address")
_ENDS: Final = ("released", "refused", "expired")


class UnitClient(Protocol):
    """What an application needs of the SDK's client of its own site."""

    async def request(self, wish: Wish) -> Answer:
        """Wish for a unit."""
        ...

    def events(self, unit: str, after: int = 0) -> AsyncGenerator[UnitEvent, None]:
        """What happens to it, from the event after `after` on."""
        ...

    async def operate(self, unit: str, *steps: Step) -> Operated:
        """Use states at this end."""
        ...

    async def release(self, unit: str) -> None:
        """Let go of it."""
        ...


class Party(NamedTuple):
    """One end: its name, as the others may call it in a wish, and its client."""

    name: str
    client: UnitClient


class Shared:
    """One state that all ends hold.

    Args:
        parties: in order, the first asked; unit; index: of the state.
        events: its delivery at each end, in the same order.
    """

    def __init__(self, parties: Sequence[Party], unit: str, index: int, events: Sequence[UnitEvent]) -> None:
        self.parties, self.unit, self.index, self.events = parties, unit, index, events

    def address(self, party: int) -> str:
        """Where the qubit of a party lies."""
        return self.events[party].addresses[0]

    def fresh(self, name: str) -> str:
        """A name for a fresh qubit that no other state of the unit uses."""
        return f"{name}{self.index}"

    async def operate(self, party: int, steps: Sequence[Step]) -> tuple[int, ...]:
        """Steps at one end; the bits that it measured. Waits for a while where no memory is free."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _PATIENCE_S
        while True:
            try:
                return (await self.parties[party].client.operate(self.unit, *steps)).bits
            except Busy as busy:
                pause_s = max(busy.retry_after_ns / NS_PER_S, _SHORTEST_PAUSE_S)
                if loop.time() + pause_s > due_s:
                    raise
            await asyncio.sleep(pause_s)

    async def measure(self, steps_of: Sequence[Sequence[Step]]) -> list[int]:
        """Steps that end in one measurement at each end, side by side; the bits in order of the parties."""
        both = await asyncio.gather(*(self.operate(party, steps) for party, steps in enumerate(steps_of)))
        return [bits[-1] for bits in both]


class Used(NamedTuple, Generic[T]):
    """What became of states: what acting on each gave, promised fidelities, how many did not come."""

    results: list[T]
    fidelities: list[float]
    lost: int

    @property
    def fidelity(self) -> float:
        """Mean promise."""
        return sum(self.fidelities) / len(self.fidelities)


async def use(parties: Sequence[Party], wish: Wish, act: Callable[[Shared], Awaitable[T]]) -> Used[T]:
    """Ask for states as the first party, act on each as soon as all hold it, and let go of what is left.

    Many states are asked for in several units, one after the other, and so are those that did not come, until
    three units give none or one is not granted, or a minute is over.

    Args: wish: of one part; `parties` in it are overwritten; act: on a state, on several side by side.
    Raises: Refused with the code of the answer when not even the first is accepted; Faulty(`app.no_states`)
        when no state came at all; what `act` raises.
    """
    (part,) = wish.parts
    used = Used[T]([], [], part.size)
    loop = asyncio.get_running_loop()
    due_s, idle = loop.time() + _BEGIN_WITHIN_S, 0
    for unit in itertools.count():
        one = replace(
            wish,
            request=f"{wish.request}-{unit}",
            parties=tuple(party.name for party in parties[1:]),
            parts=(replace(part, size=math.ceil(used.lost / math.ceil(used.lost / MOST_OF_A_UNIT))),),
        )
        try:
            found = await _use_unit(parties, one, act)
        except (Refused, Busy):
            if not used.results:
                raise
            break
        used = Used(
            used.results + found.results, used.fidelities + found.fidelities, used.lost - len(found.results)
        )
        idle = 0 if found.results else idle + 1
        if idle == _IDLE or not used.lost or loop.time() > due_s:
            break
    if not used.results:
        raise Faulty("app.no_states", f"request {wish.request}: none of {used.lost} states came")
    return used


async def _use_unit(parties: Sequence[Party], wish: Wish, act: Callable[[Shared], Awaitable[T]]) -> Used[T]:
    answer = await parties[0].client.request(wish)
    if answer.verdict != Verdict.ACCEPTED.value:
        raise _refused(answer)
    try:
        return await _all_states(parties, answer.unit, wish.parts[0].size, act)
    finally:
        await asyncio.gather(
            *(party.client.release(answer.unit) for party in parties), return_exceptions=True
        )


class _Gathering:
    """Deliveries and losses at all ends, until each state is whole or gone."""

    def __init__(self, ends: int, size: int) -> None:
        self.held: dict[int, dict[int, UnitEvent]] = {}
        self._ready: asyncio.Queue[tuple[int, list[UnitEvent]] | MultiplaneError | None] = asyncio.Queue()
        self.ends, self._left = ends, set(range(size))
        self.deaf = 0  # ends whose events are over

    async def next(self, patience_s: float | None) -> tuple[int, list[UnitEvent]] | MultiplaneError | None:
        """The next state that all hold; None when there are no more, or after so long a silence."""
        try:
            return await asyncio.wait_for(self._ready.get(), patience_s)
        except TimeoutError:
            return None

    def say(self, what: MultiplaneError | None) -> None:
        """Say that there are no more, or what went wrong."""
        self._ready.put_nowait(what)

    def hear(self, end: int, event: UnitEvent) -> bool:
        """Take an event of one end; whether there is nothing more to wait for."""
        if event.what == "delivered" and event.index in self._left:
            self.held.setdefault(event.index, {})[end] = event
            if len(self.held[event.index]) == self.ends:
                self._left.discard(event.index)
                held = self.held.pop(event.index)
                self._ready.put_nowait((event.index, [held[place] for place in range(self.ends)]))
        elif event.what in _GONE and event.index >= 0:
            self._left.discard(event.index)
        return not self._left or (event.index < 0 and event.what in _ENDS)


async def _all_states(
    parties: Sequence[Party], unit: str, size: int, act: Callable[[Shared], Awaitable[T]]
) -> Used[T]:
    gathering = _Gathering(len(parties), size)
    used, slots = Used[T]([], [], 0), asyncio.Semaphore(_AT_ONCE)
    acting: list[asyncio.Task[None]] = []

    async def one(state: Shared) -> None:
        try:
            used.results.append(await act(state))
        except Refused as refused:
            if refused.code not in _TOO_LATE:
                raise
        else:
            used.fidelities.append(min(event.fidelity for event in state.events))
        finally:
            slots.release()

    async with AsyncExitStack() as stack:
        for end, party in enumerate(parties):
            stack.push_async_callback(_stopped, asyncio.create_task(_listen(party, unit, end, gathering)))
        while isinstance(whole := await gathering.next(_SILENCE_S if acting else None), tuple):
            await slots.acquire()
            if any(task.done() and task.exception() for task in acting):
                break
            acting.append(asyncio.create_task(one(Shared(parties, unit, *whole))))
            stack.push_async_callback(_stopped, acting[-1])
        await asyncio.gather(*acting)
    if isinstance(whole, MultiplaneError):
        raise whole
    return used._replace(lost=size - len(used.results))


async def _listen(party: Party, unit: str, end: int, gathering: _Gathering) -> None:
    """An end's events, until there is nothing more to wait for; then that, or what went wrong, is said."""
    try:
        async with aclosing(party.client.events(unit)) as events:
            async for event in events:
                if gathering.hear(end, event):
                    gathering.say(None)
                    return
    except MultiplaneError as error:
        gathering.say(error)
        return
    gathering.deaf += 1
    if gathering.deaf == gathering.ends:
        gathering.say(None)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()  # it was raised already, or another one was before it


def _refused(answer: Answer) -> Refused:
    best = f"best: fidelity {answer.offer.fidelity:.4f}, {answer.offer.rate_per_s:.4g} states/s"
    return Refused(answer.code or "app.refused", f"{answer.verdict}: {answer.reason or 'no reason'} ({best})")
