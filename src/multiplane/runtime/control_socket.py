"""The operator's way in: a unix-domain socket in the directory of a running network.

The file's mode (0600) is the whole authentication: who may open it is the operator.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from multiplane.kernel.errors import Refused
from multiplane.kernel.names import controller_urn, operator_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel
from multiplane.runtime.channel_stream import LONGEST_FLUSH_S, StreamChannel

LONGEST_PATH_BYTE: Final = 107
HELLO_S: Final = 5.0


class ControlServer:
    """A listening control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._channels: set[StreamChannel] = set()
        self.server: asyncio.Server | None = None

    def keep(self, channel: StreamChannel) -> None:
        """Remember a channel for as long as it lives."""
        self._channels.add(channel)
        channel.gone.add_done_callback(lambda _: self._channels.discard(channel))

    async def close(self) -> None:
        """Stop listening, remove the file, close all channels."""
        if self.server is not None:
            self.server.close()
        self._path.unlink(missing_ok=True)
        channels = list(self._channels)
        for channel in channels:
            channel.close("the network stops")
        if channels:
            await asyncio.wait([channel.gone for channel in channels], timeout=LONGEST_FLUSH_S + 1)


class _Served(StreamChannel):
    """The network's end: says at once which domain it is."""

    def __init__(self, server: ControlServer, accept: Callable[[Channel], None], domain: str) -> None:
        super().__init__()
        self.peer = Caller(principal=operator_urn(domain), domain=domain)
        self.greeting.set_result(b"")
        self._server = server
        self._accept = accept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.keep(self)
        self.greet(self.peer.domain.encode())
        self._accept(self)


async def serve_control(path: Path, accept: Callable[[Channel], None], domain: str) -> ControlServer:
    """Listen at `path` and call `accept` with each channel; its peer is the operator of `domain`.

    A socket file that nobody answers at is replaced.

    Raises: Refused(`control.path_too_long`, `control.already_running`, `control.not_a_socket`).
    """
    _check_length(path)
    _clear(path)
    server = ControlServer(path)
    listener = _bind(path)
    try:
        server.server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Served(server, accept, domain), sock=listener
        )
    except BaseException:
        listener.close()
        raise
    return server


async def connect_control(path: Path) -> Channel:
    """Open a channel to the network whose control socket is at `path`; its peer is the domain's controller.

    Raises: Refused(`control.not_running`, `control.path_too_long`).
    """
    _check_length(path)
    channel = StreamChannel()
    try:
        async with asyncio.timeout(HELLO_S):
            await asyncio.get_running_loop().create_unix_connection(lambda: channel, str(path))
            domain = (await channel.greeting).decode(errors="replace")
    except (OSError, TimeoutError) as error:
        if channel.transport is not None:
            channel.transport.abort()
        reason = f"no network answers in {path.parent} ({type(error).__name__}): `multiplane up` starts one"
        raise Refused("control.not_running", reason) from None
    channel.peer = Caller(principal=controller_urn(domain), domain=domain)
    return channel


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Set before bind, so that the file never exists with another mode.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        path.chmod(0o600)
    except BaseException:
        listener.close()
        raise
    return listener


def _check_length(path: Path) -> None:
    length_byte = len(os.fsencode(path))
    if length_byte > LONGEST_PATH_BYTE:
        raise Refused(
            "control.path_too_long",
            f"path: a unix socket takes at most {LONGEST_PATH_BYTE} bytes, {path} has {length_byte}; "
            "choose a state directory with a shorter path",
        )


def _clear(path: Path) -> None:
    """Remove a socket file left behind by a network that is gone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Refused("control.not_a_socket", f"path: {path} exists and is not a socket; it is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(HELLO_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # Somebody holds it but is too busy to answer: that is an answer.
    raise Refused("control.already_running", f"a network already runs in {path.parent}")
