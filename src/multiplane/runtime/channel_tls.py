"""Channels over mutual TLS between processes. A peer is who its certificate says, nobody else."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Final, cast

import msgspec
import structlog
from cryptography import x509

from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel, Faults, Timeline
from multiplane.runtime.channel_stream import LONGEST_FLUSH_S, StreamChannel
from multiplane.runtime.tls_buffer import use_small_buffers

MOST_STRANGERS: Final = 200
LONGEST_DELAY_NS: Final = 60_000_000_000
_log: Final = structlog.get_logger("multiplane.runtime.channel")


class _Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What the opener wants: a service of an element, over a path of that delay."""

    service: str
    element: str
    delay_ns: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_hello: Final = msgspec.msgpack.Decoder(_Hello).decode


class TlsChannel(StreamChannel):
    """A channel whose peer has proved its certificate, and whose certificate must stay in date."""

    def __init__(self, timeline: Timeline, delay_ns: int, faults: Faults, wall_ns: Callable[[], int]) -> None:
        super().__init__(timeline, delay_ns)
        self._faults = faults
        self._wall_ns = wall_ns
        self._not_after_ns = 0

    def admit(self, identify: Callable[[bytes], Caller]) -> Caller:
        """Learn from the certificate who the peer is. Raises whatever `identify` raises."""
        transport = self.transport
        secure = transport.get_extra_info("ssl_object") if transport is not None else None
        der = secure.getpeercert(binary_form=True) if secure is not None else None
        if der is None:
            raise Refused("channel.identity", "peer: expected a certificate, got none")
        self.peer = identify(der)
        not_after = x509.load_der_x509_certificate(der).not_valid_after_utc
        self._not_after_ns = int(not_after.timestamp()) * 1_000_000_000
        return self.peer

    def send(self, message: bytes) -> None:
        if self._expired():
            raise Faulty("channel.closed", f"the certificate of {self.peer.principal} has expired")
        self._faults.reach("channel.before_send")
        super().send(message)
        self._faults.reach("channel.after_send")

    def _hold(self, message: bytes) -> None:
        if not self._expired():
            super()._hold(message)

    def _expired(self) -> bool:
        if self._wall_ns() <= self._not_after_ns:
            return False
        self.fail("certificate expired")
        return True


class TlsChannels:
    """The Channels port over mutual TLS, with one listener for all elements of this process.

    Args:
        timeline: models the delay of paths.
        server_context, client_context: both must demand a certificate of the peer.
        identify: who a certificate (DER) that the context has verified belongs to.
        resolve: host and port of the process that runs an element; may raise Busy(`channel.unreachable`).
        faults: reached at `channel.before_send` and `channel.after_send`.
        hello_s: seconds that a stranger has to finish its handshake and say what it wants, > 0.
        wall_ns: Unix time in nanoseconds by which certificates are judged.

    Raises: Refused(`channel.context`) when a context does not demand certificates.
    """

    def __init__(
        self,
        timeline: Timeline,
        server_context: ssl.SSLContext,
        client_context: ssl.SSLContext,
        *,
        identify: Callable[[bytes], Caller],
        resolve: Callable[[str], tuple[str, int]],
        faults: Faults,
        hello_s: float = 5.0,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        _check_contexts(server_context, client_context)
        use_small_buffers()
        self._timeline = timeline
        self._server_context = server_context
        self._client_context = client_context
        self._identify = identify
        self._resolve = resolve
        self._faults = faults
        self._hello_s = hello_s
        self._wall_ns = wall_ns
        self._accepting: dict[tuple[str, str], Callable[[Channel], None]] = {}
        self._strangers: dict[asyncio.Task[None], asyncio.Transport] = {}
        self._channels: set[TlsChannel] = set()
        self._server: asyncio.Server | None = None

    def renew(self, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
        """Shake hands by other contexts from now on; channels whose peer `identify` refuses now fail.

        Raises: Refused(`channel.context`) as the constructor.
        """
        _check_contexts(server_context, client_context)
        self._server_context, self._client_context = server_context, client_context
        for channel in list(self._channels):
            try:
                channel.admit(self._identify)
            except Refused as error:
                channel.fail(error.reason)

    async def listen(self, host: str, port: int) -> int:
        """Take connections at `host`; port 0 picks a free one. The answer is the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Arrival(self._welcome), host, port)
        return cast(int, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and close all channels."""
        if self._server is not None:
            self._server.close()
        for task in list(self._strangers):
            self._turn_away(task)
        channels = list(self._channels)
        for channel in channels:
            channel.close("the process stops")
        if channels:
            await asyncio.wait([channel.gone for channel in channels], timeout=LONGEST_FLUSH_S + 1)

    def accept(self, local: str, service: str, handler: Callable[[Channel], None]) -> None:
        """Call `handler` with each channel that a peer opens to element `local`."""
        self._accepting[(local, service)] = handler

    async def open(self, caller: Caller, peer: str, service: str, delay_ns: int) -> Channel:
        """Reach the element with URN `peer`; `delay_ns` is the one-way delay of the path.

        Raises:
            Busy(`channel.unreachable`): nobody answers there now, or it does not accept `service`.
            Refused(`channel.identity`): who answers is not `peer`, or our own certificate is not `caller`'s.
            Refused(`channel.delay`).
        """
        _check_delay(delay_ns)
        host, port = self._resolve(peer)
        channel = TlsChannel(self._timeline, delay_ns, self._faults, self._wall_ns)
        hello = _Hello(service=service, element=peer, delay_ns=delay_ns)
        try:
            async with asyncio.timeout(self._hello_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: channel,
                    host,
                    port,
                    ssl=self._client_context,
                    ssl_shutdown_timeout=LONGEST_FLUSH_S,
                )
                await self._introduce(channel, caller, hello)
        except (OSError, TimeoutError) as error:
            _abort(channel.transport)
            reason = f"peer: {peer} does not answer: {type(error).__name__}"
            raise Busy("channel.unreachable", reason) from None
        except Refused as error:
            _abort(channel.transport)
            if error.code == "identity.revoked":  # it may come back with another certificate
                raise Busy("channel.unreachable", error.reason) from None
            raise
        except BaseException:
            _abort(channel.transport)
            raise
        self._keep(channel)
        return channel

    async def _introduce(self, channel: TlsChannel, caller: Caller, hello: _Hello) -> None:
        found = channel.admit(self._identify).principal
        if found != hello.element:
            raise Refused("channel.identity", f"peer: expected {hello.element}, its certificate says {found}")
        channel.greet(_encode(hello))
        seen = (await channel.greeting).decode(errors="replace")
        if seen != caller.principal:
            raise Refused("channel.identity", f"caller: {caller.principal}, but our certificate says {seen}")

    def _welcome(self, transport: asyncio.Transport) -> None:
        while len(self._strangers) >= MOST_STRANGERS:
            _log.warning("channel.too_many_strangers", dropped="the oldest")
            self._turn_away(next(iter(self._strangers)))
        task = asyncio.get_running_loop().create_task(self._meet(transport))
        self._strangers[task] = transport
        task.add_done_callback(lambda done: self._strangers.pop(done, None))

    def _turn_away(self, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task).abort()
        task.cancel()

    async def _meet(self, transport: asyncio.Transport) -> None:
        """Take a stranger's connection up to the point where it is somebody's channel."""
        channel = TlsChannel(self._timeline, 0, self._faults, self._wall_ns)
        try:
            async with asyncio.timeout(self._hello_s):
                secure = await asyncio.get_running_loop().start_tls(
                    transport,
                    channel,
                    self._server_context,
                    server_side=True,
                    ssl_shutdown_timeout=LONGEST_FLUSH_S,
                )
                if secure is None:
                    raise ConnectionError("closed during the handshake")
                channel.connection_made(secure)
                channel.admit(self._identify)
                hello = _decode_hello(await channel.greeting)
            _check_delay(hello.delay_ns)
        except (OSError, TimeoutError, msgspec.MsgspecError, MultiplaneError) as error:
            _log.warning("channel.turned_away", peer=channel.peer.principal, error=type(error).__name__)
            channel.close(error.reason if isinstance(error, MultiplaneError) else "hello not understood")
            if channel.transport is None:
                transport.abort()
            return
        self._hand_over(channel, hello)

    def _hand_over(self, channel: TlsChannel, hello: _Hello) -> None:
        handler = self._accepting.get((hello.element, hello.service))
        if handler is None:
            channel.fail(f"{hello.element} does not accept {hello.service!r} here"[:200])
            return
        channel.delay_ns = hello.delay_ns
        self._keep(channel)
        channel.greet(channel.peer.principal.encode())
        try:
            handler(channel)
        except Exception as error:
            channel.fail(f"acceptor failed: {type(error).__name__}")

    def _keep(self, channel: TlsChannel) -> None:
        self._channels.add(channel)
        channel.gone.add_done_callback(lambda _: self._channels.discard(channel))


class _Arrival(asyncio.Protocol):
    """A connection before TLS: not read, so that the handshake sees its first byte."""

    def __init__(self, welcome: Callable[[asyncio.Transport], None]) -> None:
        self._welcome = welcome

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        stream.pause_reading()
        self._welcome(stream)


def _abort(transport: asyncio.Transport | None) -> None:
    if transport is not None:
        transport.abort()


def _check_contexts(*contexts: ssl.SSLContext) -> None:
    for context in contexts:
        if context.verify_mode is not ssl.CERT_REQUIRED:
            found = context.verify_mode.name
            raise Refused("channel.context", f"verify_mode: expected CERT_REQUIRED, got {found}")


def _check_delay(delay_ns: int) -> None:
    if not 0 <= delay_ns <= LONGEST_DELAY_NS:
        raise Refused("channel.delay", f"delay_ns: expected 0 to {LONGEST_DELAY_NS}, got {delay_ns}")
