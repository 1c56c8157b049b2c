"""Two agents greet: proven with a common reserve, unproven without, refused when forged or replayed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from multiplane.assembly.study import Study, run_study
from multiplane.fabric.greeting import RESERVE_KIND, Greeting, Hello, Proof, ReservePorts, Reserves
from multiplane.kernel.errors import Faulty
from multiplane.kernel.nouns import Caller
from multiplane.runtime.entropy import SeededEntropy
from multiplane.runtime.faults import NoFaults, ScriptedFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.security.sealing import Vault
from multiplane.service.planes import KeyRules
from multiplane.twin.scenario import load_shipped

LINK = "a--b"
RESERVE = hashlib.shake_128(b"reserve").digest(4096)


class Wire:
    """One end of a channel that a test carries by hand."""

    def __init__(self) -> None:
        self.peer = Caller(principal="urn:qkd:lab:x:kme", domain="lab")
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def listen(self, message: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        raise NotImplementedError

    def close(self, reason: str) -> None:
        raise NotImplementedError


class End:
    """One site: its store outlives `restart`."""

    def __init__(self, site: str, peer: str) -> None:
        self.site, self.peer = site, peer
        self.store = MemoryStore(NoFaults())
        self.boot = 0
        self.restart()

    def restart(self) -> None:
        self.boot += 1
        entropy = SeededEntropy(bytes(32), self.site, self.boot)
        ports = ReservePorts(store=self.store, vault=Vault(bytes(32)), entropy=entropy)
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.reserves = Reserves(ports, f"urn:qkd:lab:{self.site}:kme", self.tasks.append)

    async def settle(self) -> None:
        while self.tasks:
            await self.tasks.pop(0)

    async def fill(self, epoch: int, key: bytes = RESERVE) -> None:
        self.reserves.filled(LINK, self.reserves.of(LINK, self.site, self.peer), epoch, key)
        await self.settle()

    def greet(self) -> Greeting:
        self.wire, self.said = Wire(), list[object]()
        return Greeting(
            self.reserves,
            self.wire,
            link=LINK,
            site=self.site,
            peer=self.peer,
            done=self.said.append,
            refused=self.said.append,
        )


Change = Callable[[str, bytes], bytes]


async def greet(a: End, b: End, change: Change = lambda site, message: message) -> list[object]:
    """Carry one greeting to its end; `change` may alter what a site sent."""
    greetings = {a.site: a.greet(), b.site: b.greet()}
    for _ in range(2):
        for sender, receiver in ((a, b), (b, a)):
            await sender.settle()
            message = change(sender.site, sender.wire.sent.pop(0))
            assert greetings[receiver.site].heard(message)
            await receiver.settle()
    assert not greetings[a.site].heard(b"a parcel")
    return [*a.said, *b.said]


def run(body: Callable[[End, End], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(body(End("a", "b"), End("b", "a")))


def test_strangers_greet_unproven_and_acquaintances_proven_after_any_restart() -> None:
    async def body(a: End, b: End) -> None:
        assert await greet(a, b) == [False, False]
        await a.fill(1)
        await b.fill(1)
        for restarts in ((), (a,), (b,), (a, b)):
            for end in restarts:
                end.restart()
            assert await greet(a, b) == [True, True]
        assert a.reserves.of(LINK, "a", "b").offer() == ((1, 4, 4),)
        await a.fill(2)
        assert await greet(a, b) == [True, True], "the older one is common still"

    run(body)


@pytest.mark.parametrize("what", ["hello", "proof"])
def test_a_forged_greeting_is_refused(what: str) -> None:
    async def body(a: End, b: End) -> None:
        await a.fill(1)
        await b.fill(1)

        def forge(site: str, message: bytes) -> bytes:
            if site == "a" and what == "hello" and b"a--b" in message:
                hello = msgspec.msgpack.decode(message, type=Hello)
                return msgspec.msgpack.encode(msgspec.structs.replace(hello, nonce="00" * 16))
            if site == "a" and what == "proof" and b"a--b" not in message:
                return msgspec.msgpack.encode(Proof("00" * 16))
            return message

        said = await greet(a, b, forge)
        assert isinstance(said[-1], str)
        assert "does not fit" in said[-1]
        assert True not in said[-1:]
        assert await greet(a, b) == [True, True], "the next greeting uses the next cells"

    run(body)


def test_ends_with_different_bytes_under_one_epoch_refuse_each_other() -> None:
    async def body(a: End, b: End) -> None:
        await a.fill(1)
        await b.fill(1, RESERVE[::-1])
        assert [type(word) for word in await greet(a, b)] == [str, str]

    run(body)


def test_an_old_greeting_played_again_is_refused() -> None:
    async def body(a: End, b: End) -> None:
        await a.fill(1)
        await b.fill(1)
        tape: list[bytes] = []

        def record(site: str, message: bytes) -> bytes:
            if site == "a":
                tape.append(message)
            return message

        assert await greet(a, b, record) == [True, True]
        b.restart()
        again = b.greet()
        for message in tape:
            assert again.heard(message)
            await b.settle()
        assert [type(word) for word in b.said] == [str]

    run(body)


def test_what_is_no_greeting_is_refused() -> None:
    async def body(a: End, b: End) -> None:
        for junk in (b"", b"\xff", msgspec.msgpack.encode(Hello("a--c", "b", "", ()))):
            greeting = a.greet()
            assert greeting.heard(junk)
            await a.settle()
            assert [type(word) for word in a.said] == [str]

    run(body)


def test_a_cell_that_could_not_be_written_down_is_not_used() -> None:
    async def body(a: End, b: End) -> None:
        await a.fill(1)
        await b.fill(1)
        a.store._faults = ScriptedFaults("fail@commit.before:1")
        said = await greet(a, b)
        assert said == [True, False], "b hears no proof; a hears b's"

    run(body)


def test_a_row_that_does_not_open_counts_as_lost() -> None:
    async def body(a: End, b: End) -> None:
        await a.fill(1)
        await b.fill(1)
        ((key, row),) = a.store.scan("urn:qkd:lab:a:kme", RESERVE_KIND)
        assert key == LINK
        assert RESERVE[:32] not in row
        with pytest.raises(Faulty):
            Vault(bytes(32)).open(row, b"elsewhere")
        a.reserves._ports.vault = Vault(bytes(31) + b"\1")
        a.reserves._reserves.clear()
        a.reserves._rows = {LINK: row}
        assert await greet(a, b) == [False, False]

    run(body)


def test_a_network_that_starts_again_knows_its_neighbours() -> None:
    store = MemoryStore(NoFaults())

    async def workload(study: Study) -> dict[str, int]:
        agent = study.sites["relay"].agent
        await study.sites["alice"].kme.near("bob")._step()
        await asyncio.sleep(10)
        for ledger in agent.ledgers().values():
            assert ledger.closes
            assert ledger.reserved_bit > 8 * 4096
        counted = [agent._relay.counters(peer) for peer in ("alice", "bob")]
        return {name: sum(c.get(name, 0) for c in counted) for name in ("greeted", "greeted_unproven")}

    world = load_shipped("lab3")
    first = run_study(world, 1, workload, store=store, rules=KeyRules())
    assert first == {"greeted": 0, "greeted_unproven": 2}
    assert run_study(world, 1, workload, store=store) == {"greeted": 2, "greeted_unproven": 0}
