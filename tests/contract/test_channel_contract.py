"""What every driver of the Channels port must keep: in process (virtual time) and mutual TLS (loopback)."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable

import pytest
from cryptography import x509

from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel, Channels, Timeline
from multiplane.runtime.channel_local import LocalChannels
from multiplane.runtime.channel_stream import frame
from multiplane.runtime.channel_tls import MOST_STRANGERS, TlsChannels
from multiplane.runtime.clocks import JumpClock, PacedClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher

A, B, C = (element_urn("d", site) for site in ("a", "b", "c"))
CALLER = Caller(principal=A, domain="d")


Contexts = Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]


def identify(der: bytes) -> Caller:
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    (urn,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return Caller(principal=urn, domain=urn.split(":")[2])


class Reached:
    """A Faults driver that notes what was reached and fails where it is told to."""

    def __init__(self) -> None:
        self.points: list[str] = []
        self.fail_at = ""

    def reach(self, point: str) -> None:
        self.points.append(point)
        if point == self.fail_at:
            raise Faulty("fault.injected", point)


class World:
    """Two elements: `opener` is A, `acceptor` is B."""

    def __init__(self, opener: Channels, acceptor: Channels, timeline: Timeline) -> None:
        self.opener = opener
        self.acceptor = acceptor
        self.timeline = timeline
        self.faults = Reached()
        self.port = 0

    async def pair(self, delay_ns: int = 0) -> tuple[Channel, Channel]:
        """Both ends of a new channel from A to B."""
        accepted: list[Channel] = []
        self.acceptor.accept(B, "relay", accepted.append)
        near = await self.opener.open(CALLER, B, "relay", delay_ns)
        await eventually(lambda: bool(accepted))
        return near, accepted[0]


async def eventually(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 (the condition has no event of its own)
            await asyncio.sleep(0.002)


def fill(channel: Channel, message: bytes) -> int:
    """Send until the channel is full; how many it took, at most 400."""
    for sent in range(400):
        try:
            channel.send(message)
        except Busy:
            with pytest.raises(Busy, match=r"channel\.full"):
                channel.send(message)
            return sent
    return 400


Main = Callable[[World], Awaitable[None]]
Run = Callable[[Main], None]


def run_local(main: Main) -> None:
    async def body(clock: JumpClock) -> None:
        dispatcher = Dispatcher(clock)
        task = asyncio.create_task(dispatcher.run())
        channels = LocalChannels(dispatcher)
        await main(World(channels, channels, dispatcher))
        task.cancel()

    run_virtual(body, 0)


Tls = Callable[..., None]


@pytest.fixture
def tls(contexts: Contexts) -> Tls:
    def run(
        main: Main,
        *,
        names: tuple[str, str] = (A, B),
        wall_ns: Callable[[], int] = time.time_ns,
        hello_s: float = 30.0,
    ) -> None:
        async def body() -> None:
            dispatcher = Dispatcher(PacedClock(0, 1.0))
            task = asyncio.create_task(dispatcher.run())
            world = World(None, None, dispatcher)  # type: ignore[arg-type]
            one, two = (
                TlsChannels(
                    dispatcher,
                    *contexts(name),
                    identify=identify,
                    resolve=lambda _: ("127.0.0.1", world.port),
                    faults=world.faults,
                    hello_s=hello_s,
                    wall_ns=wall_ns,
                )
                for name in names
            )
            world.opener, world.acceptor = one, two
            world.port = await two.listen("127.0.0.1", 0)
            try:
                await main(world)
            finally:
                await one.close()
                await two.close()
                task.cancel()

        asyncio.run(body())

    return run


@pytest.fixture(params=["local", "tls"])
def run(request: pytest.FixtureRequest, tls: Tls) -> Run:
    return run_local if request.param == "local" else tls


class TestChannel:
    def test_order_is_kept_both_ways(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair(delay_ns=100_000)
            seen: dict[str, list[bytes]] = {"near": [], "far": []}
            near.listen(seen["near"].append, lambda _: None)
            far.listen(seen["far"].append, lambda _: None)
            sent = [index.to_bytes(2, "big") * (index % 7) for index in range(1_000)]
            for message in sent:
                near.send(message)
                far.send(message)
            await eventually(lambda: len(seen["near"]) == len(seen["far"]) == len(sent))
            assert seen == {"near": sent, "far": sent}

        run(main)

    def test_each_end_knows_the_other(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair()
            assert near.peer == Caller(principal=B, domain="d")
            assert far.peer == CALLER

        run(main)

    def test_what_came_before_listening_is_handed_over_first(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair()
            seen: list[bytes] = []
            near.send(b"1")
            near.send(b"2")
            await asyncio.sleep(0.05)
            far.listen(seen.append, lambda _: None)
            assert seen == [b"1", b"2"]
            near.send(b"3")
            await eventually(lambda: len(seen) == 3)
            assert seen == [b"1", b"2", b"3"]

        run(main)

    def test_nothing_arrives_before_the_delay(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair(delay_ns=20_000_000)
            seen_ps: list[int] = []
            far.listen(lambda _: seen_ps.append(world.timeline.now_ps()), lambda _: None)
            sent_ps = world.timeline.now_ps()
            near.send(b"x")
            await eventually(lambda: bool(seen_ps))
            assert 20 * 10**9 <= seen_ps[0] - sent_ps < 2 * 10**12

        run(main)

    @pytest.mark.parametrize("delay_ns", [0, 5_000_000])
    def test_close_tells_the_other_end_once_after_all_messages(self, run: Run, delay_ns: int) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair(delay_ns)
            events: list[str] = []
            near.listen(lambda _: events.append("near message"), lambda _: events.append("near lost"))
            far.listen(lambda message: events.append(message.decode()), events.append)
            near.send(b"last words")
            near.close("path cut")
            near.close("again")
            with pytest.raises(Faulty, match=r"channel\.closed"):
                near.send(b"x")
            await eventually(lambda: len(events) == 2)
            await asyncio.sleep(0.02)
            with pytest.raises(Faulty, match=r"channel\.closed"):
                far.send(b"x")
            far.close("mine too")
            await asyncio.sleep(0.02)
            assert events == ["last words", "path cut"]

        run(main)

    def test_a_loss_before_listening_is_told_after_the_messages(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair()
            near.send(b"m")
            near.close("early")
            await asyncio.sleep(0.05)
            events: list[str] = []
            far.listen(lambda message: events.append(message.decode()), events.append)
            assert events == ["m", "early"]

        run(main)

    def test_the_queue_is_bounded(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair(delay_ns=1_000_000)
            sent = fill(near, bytes(512 * 1024))
            assert 16 <= sent <= 40
            far.listen(lambda _: None, lambda _: None)

        run(main)

    def test_a_reader_that_is_not_there_holds_the_writer(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair()
            sent = 0
            while (more := fill(near, bytes(256 * 1024))) and sent < 400:
                sent += more
                await asyncio.sleep(0.2)
            assert 64 <= sent < 400
            seen: list[bytes] = []
            far.listen(seen.append, lambda _: None)
            await eventually(lambda: len(seen) == sent)
            near.send(b"room again")
            await eventually(lambda: len(seen) == sent + 1)

        run(main)

    def test_size_of_a_message_is_bounded(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair()
            seen: list[int] = []
            far.listen(lambda message: seen.append(len(message)), lambda _: None)
            with pytest.raises(Refused, match=r"channel\.message_too_large"):
                near.send(bytes(1024 * 1024 + 1))
            near.send(bytes(1024 * 1024))
            near.send(b"")
            await eventually(lambda: len(seen) == 2)
            assert seen == [1024 * 1024, 0]

        run(main)

    def test_nobody_there_is_busy(self, run: Run) -> None:
        async def main(world: World) -> None:
            world.acceptor.accept(B, "kme", lambda _: None)
            with pytest.raises(Busy, match=r"channel\.unreachable"):
                await world.opener.open(CALLER, B, "relay", 0)

        run(main)

    def test_an_acceptor_that_fails_ends_the_channel(self, run: Run) -> None:
        async def main(world: World) -> None:
            def fail(_: Channel) -> None:
                raise ValueError("the text stays here")

            world.acceptor.accept(B, "relay", fail)
            near = await world.opener.open(CALLER, B, "relay", 0)
            lost: list[str] = []
            near.listen(lambda _: None, lost.append)
            await eventually(lambda: bool(lost))
            assert lost == ["acceptor failed: ValueError"]

        run(main)

    def test_a_handler_that_fails_ends_the_channel(self, run: Run) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair()
            lost: list[str] = []

            def fail(_: bytes) -> None:
                raise ValueError("the text stays here")

            near.listen(lambda _: None, lost.append)
            far.listen(fail, lost.append)
            near.send(b"x")
            near.send(b"y")
            await eventually(lambda: len(lost) == 2)
            assert lost == ["message handler failed: ValueError"] * 2

        run(main)


class TestTls:
    """What mutual TLS adds: identity, expiry, and strangers that behave badly."""

    def test_a_server_that_is_somebody_else_is_refused(self, tls: Tls) -> None:
        async def main(world: World) -> None:
            world.acceptor.accept(B, "relay", lambda _: pytest.fail("must not be reached"))
            with pytest.raises(Refused, match=r"channel\.identity.*:c:kme"):
                await world.opener.open(CALLER, B, "relay", 0)

        tls(main, names=(A, C))

    def test_the_acceptor_believes_the_certificate_not_the_caller(self, tls: Tls) -> None:
        async def main(world: World) -> None:
            accepted: list[Channel] = []
            world.acceptor.accept(B, "relay", accepted.append)
            with pytest.raises(Refused, match=r"channel\.identity"):
                await world.opener.open(CALLER, B, "relay", 0)
            assert [channel.peer.principal for channel in accepted] == [C]

        tls(main, names=(C, B))

    def test_nobody_listens(self, tls: Tls) -> None:
        async def main(world: World) -> None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                world.port = free.getsockname()[1]
                with pytest.raises(Busy, match=r"channel\.unreachable"):
                    await world.opener.open(CALLER, B, "relay", 0)

        tls(main)

    def test_a_broken_connection_is_lost(self, tls: Tls) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair()
            lost: list[str] = []
            near.listen(lambda _: None, lost.append)
            far.listen(lambda _: None, lost.append)
            near.transport.abort()  # type: ignore[attr-defined]
            await eventually(lambda: len(lost) == 2)
            assert all(why.startswith("connection lost") for why in lost)

        tls(main)

    def test_an_expired_certificate_ends_the_channel(self, tls: Tls) -> None:
        late_ns = 0

        async def main(world: World) -> None:
            nonlocal late_ns
            near, far = await world.pair()
            lost: list[str] = []
            seen: list[bytes] = []
            near.listen(seen.append, lost.append)
            far.listen(seen.append, lost.append)
            near.send(b"in time")
            await eventually(lambda: seen == [b"in time"])
            late_ns = 2 * 3_600 * 10**9
            with pytest.raises(Faulty, match=r"channel\.closed"):
                near.send(b"late")
            await eventually(lambda: len(lost) == 2)
            assert lost == ["certificate expired"] * 2
            assert seen == [b"in time"]

        tls(main, wall_ns=lambda: time.time_ns() + late_ns)

    def test_fault_points_stand_before_and_after_each_send(self, tls: Tls) -> None:
        async def main(world: World) -> None:
            near, far = await world.pair()
            seen: list[bytes] = []
            far.listen(seen.append, lambda _: None)
            near.send(b"one")
            assert world.faults.points == ["channel.before_send", "channel.after_send"]
            world.faults.fail_at = "channel.before_send"
            with pytest.raises(Faulty, match=r"fault\.injected"):
                near.send(b"two")
            world.faults.fail_at = "channel.after_send"
            with pytest.raises(Faulty, match=r"fault\.injected"):
                near.send(b"three")
            await eventually(lambda: len(seen) == 2)
            assert seen == [b"one", b"three"]

        tls(main)

    def test_small_messages_are_not_held_back(self, tls: Tls) -> None:
        async def main(world: World) -> None:
            for channel in await world.pair():
                raw = channel.transport.get_extra_info("socket")  # type: ignore[attr-defined]
                assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

        tls(main)

    def test_contexts_must_demand_certificates(self, contexts: Contexts) -> None:
        server, client = contexts(A)
        server.verify_mode = ssl.CERT_OPTIONAL
        with pytest.raises(Refused, match=r"channel\.context"):
            TlsChannels(
                Dispatcher(PacedClock(0, 1.0)),
                server,
                client,
                identify=identify,
                resolve=lambda _: ("", 0),
                faults=Reached(),
            )

    def test_a_client_without_certificate_gets_nothing(self, tls: Tls, contexts: Contexts) -> None:
        async def main(world: World) -> None:
            bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            bare.check_hostname = False
            bare.verify_mode = ssl.CERT_NONE
            assert await _answer(world, b"", bare) == b""

        tls(main)

    @pytest.mark.parametrize(
        "said",
        [
            b"\xff\xff\xff\xff",
            bytes(4),
            frame(b"m", b"a message before the hello"),
            frame(b"g", b"\xc1"),
            frame(b"?", b""),
            frame(b"g", b"\x83\xa7service\xa5relay\xa7element\xa1x\xa8delay_ns\xff"),
        ],
        ids=["oversize", "empty", "message", "garbage", "kind", "delay"],
    )
    def test_bad_hellos_are_turned_away(self, tls: Tls, contexts: Contexts, said: bytes) -> None:
        async def main(world: World) -> None:
            world.acceptor.accept(B, "relay", lambda _: pytest.fail("must not be reached"))
            answer = await _answer(world, said, contexts(A)[1])
            assert answer[4:5] in (b"c", b"")
            near, _ = await world.pair()
            near.send(b"the listener lives on")

        tls(main)

    def test_a_slow_hello_is_turned_away(self, tls: Tls, contexts: Contexts) -> None:
        async def main(world: World) -> None:
            assert (await _answer(world, b"", contexts(A)[1]))[4:5] in (b"c", b"")

        tls(main, hello_s=0.2)

    def test_plain_bytes_instead_of_tls_are_turned_away(self, tls: Tls) -> None:
        async def main(world: World) -> None:
            assert b"relay" not in await _answer(world, b"GET / HTTP/1.1\r\n\r\n" * 20, None)
            await world.pair()

        tls(main)

    def test_strangers_are_bounded_and_the_oldest_goes(self, tls: Tls) -> None:
        async def main(world: World) -> None:
            first, first_writer = await asyncio.open_connection("127.0.0.1", world.port)
            await asyncio.sleep(0.01)
            rest = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(MOST_STRANGERS)]
            # A slow hello has half a minute here: only the number of strangers can have cost it its place.
            async with asyncio.timeout(15):
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await first.readexactly(1)
            near, _ = await world.pair()
            near.send(b"a friend still comes in")
            for _, writer in [(first, first_writer), *rest]:
                writer.transport.abort()
            await asyncio.sleep(0.01)

        tls(main)


async def _answer(world: World, said: bytes, context: ssl.SSLContext | None) -> bytes:
    """What the listener answers a stranger until it hangs up."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=context)
    except OSError:
        return b""
    writer.write(said)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""
    finally:
        writer.transport.abort()
        await asyncio.sleep(0.01)
