"""The client for units against the real server over memory: wishes, events that resume, states, errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.units import BEST, MemoryUnits
from tests.support.web import ALICE, BOB, CAROL, Authority, Credential, Served, serving

from multiplane.api.states import Step
from multiplane.api.units import UnitEvent, Units
from multiplane.kernel.errors import Busy, Refused, Unknown
from multiplane.runtime.doors import strict
from multiplane.runtime.http_limits import Limits
from multiplane.sdk import units as sdk
from multiplane.sdk.units import UnitClient
from multiplane.sdk.wishes import bell, ghz, graph, key, pack
from multiplane.standards import units

ALIASES = {"alice": ALICE, "bob": BOB, "carol": CAROL}


class Cast:
    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        self.kme = authority.issue("kme", uris=["urn:qkd:test:left:kme"])
        self.alice, self.bob, self.carol = (authority.application(urn) for urn in (ALICE, BOB, CAROL))
        self.mallory = authority.application("urn:qkd:test:left:mallory")


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast(tmp_path_factory.mktemp("pki"))


class Play:
    def __init__(self, served: Served, door: MemoryUnits) -> None:
        self.served, self.door = served, door

    def client(self, who: Credential) -> UnitClient:
        return UnitClient(self.served.url, who.ca, who.cert, who.key, timeout_s=5.0)

    def cut(self) -> None:
        """Break every connection, as a failing network does."""
        for connection in list(self.served.server._listener.connections):
            connection.cut()


def run(cast: Cast, main: Callable[[Play], Awaitable[None]], limits: Limits | None = None) -> None:
    async def bounded() -> None:
        door = MemoryUnits(ALIASES)
        table = units.routes(strict(Units, door), lambda wait_ns: wait_ns / 1e9)
        async with asyncio.timeout(20.0), serving(cast.kme, routes=table, limits=limits) as served:
            await main(Play(served, door))

    asyncio.run(bounded())


def test_ends_share_states_and_use_them(cast: Cast) -> None:
    async def main(play: Play) -> None:
        async with (
            play.client(cast.alice) as alice,
            play.client(cast.bob) as bob,
            play.client(cast.carol) as carol,
        ):
            answer = await alice.request(ghz(["bob", "carol"], size=3, min_fidelity=0.9, valid_s=10.0))
            assert (answer.verdict, len(answer.urns), answer.from_stock) == ("accepted", 4, False)
            waiting = [asyncio.create_task(one.delivered(answer.unit, 3)) for one in (alice, bob, carol)]
            await asyncio.sleep(0.05)
            play.door.deliver(answer.unit, 3)
            outcomes = []
            for one, task in zip((alice, bob, carol), waiting, strict=True):
                events = await task
                assert [event.index for event in events] == [0, 1, 2]
                steps = [Step(do="measure", on=event.addresses) for event in events]
                outcomes.append((await one.operate(answer.unit, *steps)).bits)
            assert outcomes[0] == outcomes[1]
            (view,) = await bob.units()
            assert view == await bob.unit(answer.unit)
            assert (view.consumed, view.state) == (3, "delivered")
            trace = await carol.trace(answer.unit)
            assert trace.states[2].rows[0].what == "pair"
            await bob.release(answer.unit)
            assert await alice.units() == ()

    run(cast, main)


def test_counter_offers_and_refusals_are_answers_and_errors_keep_their_codes(cast: Cast) -> None:
    async def main(play: Play) -> None:
        async with play.client(cast.alice) as alice, play.client(cast.mallory) as mallory:
            countered = await alice.request(bell("bob", min_fidelity=0.98))
            assert (countered.verdict, countered.offer.fidelity) == ("counter-offer", BEST)
            refused = await alice.request(bell("bob", min_fidelity=0.999))
            assert (refused.verdict, refused.code) == ("refused", "unit.fidelity")
            assert refused.offer.fidelity == BEST
            for wish, code in (
                (bell("bob", size=0), "unit.size"),
                (bell("nobody"), "north.unknown_application"),
                (graph(["bob"], [(0, 1)]), "unit.kind"),
                (ghz(["bob", "bob"]), "unit.parties"),
            ):
                with pytest.raises(Refused) as caught:
                    await alice.request(wish)
                assert caught.value.code == code
            with pytest.raises(Refused) as caught:
                await mallory.request(bell("bob"))
            assert caught.value.code == "http.unauthorised"
            with pytest.raises(Refused) as caught:
                await alice.unit("0" * 64)
            assert caught.value.code == "unit.unknown"
            play.door.fails_with = Busy("unit.full", "units: full", retry_after_ns=5 * 10**9)
            with pytest.raises(Busy) as busy:
                await alice.request(bell("bob"))
            assert busy.value.retry_after_ns == 5 * 10**9

    run(cast, main)


def test_keys_come_once_and_are_the_same(cast: Cast) -> None:
    async def main(play: Play) -> None:
        async with play.client(cast.alice) as alice, play.client(cast.bob) as bob:
            unit = (await alice.request(key("bob", size=2, size_bit=512))).unit
            mine, theirs = await alice.keys(unit), await bob.keys(unit)
            assert mine == theirs
            assert [len(one.key) for one in mine] == [64, 64]
            with pytest.raises(Refused) as caught:
                await bob.keys(unit)
            assert caught.value.code == "unit.consumed"

    run(cast, main)


def test_broken_streams_go_on_where_they_broke(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "AGAIN_S", (0.01, 0.05))

    async def main(play: Play) -> None:
        async with play.client(cast.bob) as bob, play.client(cast.alice) as alice:
            unit = (await alice.request(bell("bob", size=6))).unit
            heard: list[UnitEvent] = []
            more = asyncio.Event()

            async def listen() -> None:
                async for event in bob.events(unit):
                    heard.append(event)
                    if event.what == "delivered":
                        more.set()

            listening = asyncio.create_task(listen())
            for _ in range(6):
                play.door.deliver(unit)
                await more.wait()
                more.clear()
                play.cut()
            play.door.expire(unit)
            await listening
            assert [event.seq for event in heard] == list(range(1, 11))
            assert [event.what for event in heard[-2:]] == ["delivered", "expired"]
            assert [event async for event in bob.events(unit, 10)] == []
            assert [event.seq async for event in bob.events(unit, 8)] == [9, 10]

    run(cast, main)


def test_an_iterator_that_is_left_leaves_no_listener(cast: Cast) -> None:
    async def main(play: Play) -> None:
        async with play.client(cast.bob) as bob, play.client(cast.alice) as alice:
            unit = (await alice.request(bell("bob"))).unit
            async with aclosing(bob.events(unit)) as events:
                assert (await anext(events)).what == "proposed"
                assert play.door.listeners(unit) == 1
            for _ in range(200):
                if not play.door.listeners(unit):
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("it still listens")

    run(cast, main)


def test_patience_with_a_dead_server_ends(cast: Cast) -> None:
    async def main(play: Play) -> None:
        async with play.client(cast.alice) as alice:
            unit = (await alice.request(bell("bob"))).unit
            await play.served.server.stop(1.0)
            with pytest.raises((Busy, Unknown)):
                async for _ in alice.events(unit, 3, retry_for_s=0.3):
                    pass

    run(cast, main)


def test_wishes_say_what_their_names_say() -> None:
    pair, state = bell("bob", size=2), ghz(["bob"], min_fidelity=0.9)
    both = pack(pair, state, valid_s=5.0, request="r")
    assert (both.request, both.parties, both.valid_s) == ("r", ("bob",), 5.0)
    assert [part.kind for part in both.parts] == ["bell", "ghz"]
    assert pair.request != state.request
    assert graph(["b", "c"], [(0, 1), (1, 2)]).parts[0].edges == ((0, 1), (1, 2))
    assert key(["b", "c"]).parties == ("b", "c")
    for wrong in ((), (bell("b"), bell("c"))):
        with pytest.raises(ValueError, match="pack"):
            pack(*wrong)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(pair) | {"parts": 7}, type(pair))


@contextmanager
def in_a_thread(cast: Cast) -> Iterator[Play]:
    """A server on a loop of its own."""
    ready, done, found = threading.Event(), threading.Event(), []

    async def main(play: Play) -> None:
        found.append(play)
        ready.set()
        await asyncio.to_thread(done.wait, 10)

    thread = threading.Thread(target=run, args=(cast, main))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        done.set()
        thread.join(10)


def test_synchronous_face(cast: Cast) -> None:
    with in_a_thread(cast) as play:
        play.door.warm = True

        def client(who: Credential) -> Any:
            return UnitClient.sync(play.served.url, who.ca, who.cert, who.key)

        with client(cast.alice) as alice, client(cast.bob) as bob:
            answer = alice.request(bell("bob", size=2))
            assert answer.from_stock
            (first, second) = bob.delivered(answer.unit, 2)
            assert bob.operate(answer.unit, Step(do="measure", on=first.addresses)).bits
            assert bob.unit(answer.unit).consumed == 1
            assert second.index == 1
            alice.release(answer.unit)
            assert [event.what for event in bob.events(answer.unit)][-1] == "released"
            unit = alice.request(key("bob")).unit
            assert alice.keys(unit) == bob.keys(unit)
            assert alice.trace(unit).unit == unit
