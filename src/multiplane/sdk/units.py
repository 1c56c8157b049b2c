"""Client for units of any kind: `UnitClient` for asyncio, `UnitClient.sync` for everyone else.

async with UnitClient(url, ca, cert, key) as alice:
    answer = await alice.request(ghz(["bob", "carol"], min_fidelity=0.9))
    async for event in alice.events(answer.unit):
        if event.what == "delivered":
            bits = (await alice.operate(answer.unit, Step(do="measure", on=event.addresses))).bits
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from multiplane.api.north import Key
from multiplane.api.states import Operated, Step
from multiplane.api.units import Answer, UnitEvent, UnitTrace, UnitView, Wish
from multiplane.api.wire.etsi014 import KeyContainer
from multiplane.api.wire.units import Released, Steps, UnitList, WireStep
from multiplane.kernel.errors import Busy, Faulty, Unknown
from multiplane.kernel.quantity import NS_PER_S
from multiplane.sdk.wire import OverWire, Wire, decoded_answer, error_of

LOST: Final = "look with `units` before asking again; a wish said twice with one id counts once"
SILENCE_S: Final = 60.0
"""A stream of events shows every few seconds that it is alive; after so long it is taken for lost."""
AGAIN_S: Final = (0.2, 5.0)
"""The shortest and the longest pause before a lost stream is asked for again."""
ENDED: Final = frozenset({"expired", "released", "refused"})


class UnitClient(OverWire):
    """An application at its site, as an asynchronous context manager.

    Args:
        url: base of the site's server (`https://127.0.0.1:9443`), the same as for keys.
        ca: PEM file of the authority that signed the server's certificate.
        cert, key: PEM files of the application's own certificate and private key; they say who it is.
        timeout_s: bound of one request, > 0; a wish is answered once all ends have agreed.

    Every method raises Refused (with the code of `docs/formats/units.md`; `http.unauthorised` for 401), Busy
    (`retry_after_ns` in wall nanoseconds), Faulty, or Unknown when the connection broke after the request
    was sent. Times and validities are of the network's clock.

    Raises: Refused(`client.credentials`) when a file is missing or is not what it should be.
    """

    def __init__(
        self, url: str, ca: str | Path, cert: str | Path, key: str | Path, *, timeout_s: float = 60.0
    ) -> None:
        base = url.rstrip("/") + "/units/v1"
        self._wire = Wire(base, ca, cert, key, timeout_s=timeout_s, lost=LOST)

    @staticmethod
    def sync(
        url: str, ca: str | Path, cert: str | Path, key: str | Path, *, timeout_s: float = 60.0
    ) -> SyncUnitClient:
        """The same client without asyncio: `with UnitClient.sync(...) as client`."""
        return SyncUnitClient(UnitClient(url, ca, cert, key, timeout_s=timeout_s))

    async def request(self, wish: Wish, *, retry_for_s: float = 0.0) -> Answer:
        """What becomes of a wish (`sdk.wishes` makes them); waits Busy out for `retry_for_s`.

        An answer may be a counter-offer or a refusal with the best attainable values: look at its `verdict`.
        What can never be granted, such as an unknown kind, is raised as Refused.
        """
        body = await self._wire.patient("POST", "units", wish, retry_for_s, (200, 201, 409))
        try:
            return decoded_answer(body, Answer)
        except Faulty:
            raise error_of(409, "", body) from None

    async def units(self) -> tuple[UnitView, ...]:
        """The application's live units, oldest first, whoever asked for them."""
        return decoded_answer(await self._wire.exchange("GET", "units"), UnitList).units

    async def unit(self, unit: str) -> UnitView:
        """One unit as this end sees it."""
        return decoded_answer(await self._wire.exchange("GET", f"units/{unit}"), UnitView)

    async def events(
        self, unit: str, after: int = 0, *, retry_for_s: float = 60.0
    ) -> AsyncGenerator[UnitEvent, None]:
        """What happens to a unit from the event after number `after` on, each once, up to its end.

        A stream that breaks is asked for again and goes on where it broke, for at most `retry_for_s` without
        an answer; then its error is raised.
        """
        loop = asyncio.get_running_loop()
        pause_s, due_s = AGAIN_S[0], loop.time() + retry_for_s
        while True:
            try:
                async with aclosing(self._stream(unit, after)) as stream:
                    async for event in stream:
                        pause_s, due_s = AGAIN_S[0], loop.time() + retry_for_s
                        if event.seq <= after:
                            continue
                        after = event.seq
                        yield event
                        if event.what in ENDED and event.index < 0:
                            return
                view = await self.unit(unit)
                if view.state in ENDED and view.last_seq <= after:
                    return
            except (Busy, Unknown) as error:
                pause_s = max(pause_s, error.retry_after_ns / NS_PER_S)
                if loop.time() + pause_s > due_s:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_S[1])

    async def _stream(self, unit: str, after: int) -> AsyncGenerator[UnitEvent, None]:
        fields = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        lines = self._wire.lines(f"units/{unit}/events", fields, SILENCE_S)
        async with aclosing(lines):
            async for line in lines:
                if line.startswith(b"data: "):
                    yield decoded_answer(line[6:], UnitEvent)

    async def delivered(self, unit: str, count: int = 1, after: int = 0) -> tuple[UnitEvent, ...]:
        """Wait until `count` states have been delivered here, and return those events.

        Fewer when the unit ends before.
        """
        found: list[UnitEvent] = []
        async with aclosing(self.events(unit, after)) as events:
            async for event in events:
                if event.what == "delivered":
                    found.append(event)
                    if len(found) == count:
                        break
        return tuple(found)

    async def operate(self, unit: str, *steps: Step) -> Operated:
        """Use states at this end, one step after the other."""
        asked = Steps(steps=tuple(msgspec.convert(step, WireStep, from_attributes=True) for step in steps))
        return decoded_answer(await self._wire.exchange("POST", f"units/{unit}/operate", asked), Operated)

    async def keys(self, unit: str, *, retry_for_s: float = 0.0) -> tuple[Key, ...]:
        """The keys of a unit of kind `key`, once at each end; waits Busy out for `retry_for_s`."""
        body = await self._wire.patient("POST", f"units/{unit}/keys", None, retry_for_s)
        return tuple(Key(key_id=one.key_id, key=one.key) for one in decoded_answer(body, KeyContainer).keys)

    async def release(self, unit: str) -> None:
        """Let go of a unit; what was not consumed here is discarded."""
        decoded_answer(await self._wire.exchange("DELETE", f"units/{unit}"), Released)

    async def trace(self, unit: str) -> UnitTrace:
        """What its states were made from."""
        return decoded_answer(await self._wire.exchange("GET", f"units/{unit}/trace"), UnitTrace)


class SyncUnitClient:
    """`UnitClient` for code without an event loop; not for use inside one, nor from two threads."""

    def __init__(self, client: UnitClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._client.__aexit__(kind, error, trace))
        finally:
            self._runner.close()

    def request(self, wish: Wish, *, retry_for_s: float = 0.0) -> Answer:
        """As `UnitClient.request`."""
        return self._runner.run(self._client.request(wish, retry_for_s=retry_for_s))

    def units(self) -> tuple[UnitView, ...]:
        """As `UnitClient.units`."""
        return self._runner.run(self._client.units())

    def unit(self, unit: str) -> UnitView:
        """As `UnitClient.unit`."""
        return self._runner.run(self._client.unit(unit))

    def events(self, unit: str, after: int = 0, *, retry_for_s: float = 60.0) -> Iterator[UnitEvent]:
        """As `UnitClient.events`."""
        events = self._client.events(unit, after, retry_for_s=retry_for_s)

        async def following() -> UnitEvent | None:
            return await anext(events, None)

        try:
            while (event := self._runner.run(following())) is not None:
                yield event
        finally:
            self._runner.run(events.aclose())

    def delivered(self, unit: str, count: int = 1, after: int = 0) -> tuple[UnitEvent, ...]:
        """As `UnitClient.delivered`."""
        return self._runner.run(self._client.delivered(unit, count, after))

    def operate(self, unit: str, *steps: Step) -> Operated:
        """As `UnitClient.operate`."""
        return self._runner.run(self._client.operate(unit, *steps))

    def keys(self, unit: str, *, retry_for_s: float = 0.0) -> tuple[Key, ...]:
        """As `UnitClient.keys`."""
        return self._runner.run(self._client.keys(unit, retry_for_s=retry_for_s))

    def release(self, unit: str) -> None:
        """As `UnitClient.release`."""
        self._runner.run(self._client.release(unit))

    def trace(self, unit: str) -> UnitTrace:
        """As `UnitClient.trace`."""
        return self._runner.run(self._client.trace(unit))
