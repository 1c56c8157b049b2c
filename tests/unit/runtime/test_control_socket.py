"""The operator's socket: private, replaced only when dead, and clear about what is wrong."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.ports import Channel
from multiplane.runtime.control_socket import LONGEST_PATH_BYTE, connect_control, serve_control
from multiplane.runtime.session import Session


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c") / "control.sock"


async def echo(payload: bytes) -> bytes:
    return payload


def test_operator_and_network_speak_and_know_each_other(path: Path) -> None:
    peers: list[str] = []

    def accept(channel: Channel) -> None:
        peers.append(channel.peer.principal)
        Session(channel).on_call("echo", echo)

    async def main() -> None:
        server = await serve_control(path, accept, "madqci")
        channel = await connect_control(path)
        session = Session(channel)
        assert channel.peer.principal == "urn:qkd:madqci:controller"
        assert await session.call("echo", b"report") == b"report"
        lost: list[str] = []
        session.on_closed(lost.append)
        await server.close()
        await asyncio.sleep(0.02)
        assert lost == ["the network stops"]

    asyncio.run(main())
    assert not path.exists()
    assert peers == ["urn:qkd:madqci:operator"]


def test_only_the_owner_may_open_it(path: Path) -> None:
    modes: list[int] = []

    def mode() -> int:
        return stat.S_IMODE(path.stat().st_mode)

    async def main() -> None:
        before = os.umask(0)
        try:
            server = await serve_control(path, lambda _: None, "d")
        finally:
            os.umask(before)
        modes.append(mode())
        await server.close()

    asyncio.run(main())
    assert modes == [0o600]


def test_a_stale_file_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def main() -> None:
        with pytest.raises(Refused, match=r"control\.not_running"):
            await connect_control(path)
        server = await serve_control(path, lambda _: None, "d")
        (await connect_control(path)).close("done")
        await server.close()

    asyncio.run(main())


def test_a_living_one_is_not_replaced(path: Path) -> None:
    async def main() -> None:
        server = await serve_control(path, lambda _: None, "d")
        with pytest.raises(Refused, match=r"control\.already_running"):
            await serve_control(path, lambda _: None, "d")
        (await connect_control(path)).close("still there")
        await server.close()

    asyncio.run(main())


def test_another_file_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(Refused, match=r"control\.not_a_socket"):
        asyncio.run(serve_control(path, lambda _: None, "d"))
    assert path.read_text() == "precious"


@pytest.mark.parametrize("action", ["serve", "connect"])
def test_a_path_too_long_says_the_limit(tmp_path: Path, action: str) -> None:
    path = tmp_path / ("x" * 100) / "control.sock"
    coroutine = serve_control(path, lambda _: None, "d") if action == "serve" else connect_control(path)
    with pytest.raises(Refused, match=rf"control\.path_too_long.*{LONGEST_PATH_BYTE} bytes.*shorter"):
        asyncio.run(coroutine)


def test_not_running_names_the_directory_and_the_command(path: Path) -> None:
    with pytest.raises(Refused, match=rf"control\.not_running.*{path.parent}.*`multiplane up`"):
        asyncio.run(connect_control(path))


def test_garbage_from_the_operator_ends_only_that_channel(path: Path) -> None:
    lost: list[str] = []

    async def main() -> None:
        server = await serve_control(path, lambda channel: channel.listen(lambda _: None, lost.append), "d")
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"\xff" * 10)
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()
        await writer.wait_closed()
        channel = await connect_control(path)
        channel.send(b"fine")
        channel.close("done")
        with pytest.raises(Faulty):
            channel.send(b"late")
        await server.close()

    asyncio.run(main())
    assert lost[0].startswith("length: expected")
