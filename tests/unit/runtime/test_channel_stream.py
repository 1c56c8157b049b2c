"""Framing: however the stream is chopped, the same frames come out."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.errors import Refused
from multiplane.runtime.channel_stream import FrameDecoder, StreamChannel, frame

KIND = st.sampled_from([b"g", b"m", b"c"])


@given(st.lists(st.tuples(KIND, st.binary(max_size=300))), st.data())
def test_any_chunking_gives_the_same_frames(frames: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(kind, body) for kind, body in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    decoder = FrameDecoder()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    assert found == frames


def test_byte_by_byte() -> None:
    decoder = FrameDecoder()
    found = [item for byte in frame(b"m", b"hello") for item in decoder.feed(bytes([byte]))]
    assert found == [(b"m", b"hello")]


@pytest.mark.parametrize("length", [0, 1024 * 1024 + 2, 2**32 - 1])
def test_a_bad_length_is_refused_before_its_body_comes(length: int) -> None:
    with pytest.raises(Refused, match=r"channel\.frame"):
        FrameDecoder().feed(length.to_bytes(4, "big"))


@given(st.binary(max_size=200))
def test_garbage_is_frames_or_a_refusal(garbage: bytes) -> None:
    decoder = FrameDecoder()
    try:
        found = decoder.feed(garbage)
    except Refused:
        return
    assert sum(5 + len(body) for _, body in found) <= len(garbage)


def test_a_lost_connection_is_let_go() -> None:
    """Under TLS a transport has a quarter of a megabyte of buffers; a kept channel must not keep it."""

    async def lose() -> StreamChannel:
        ours, theirs = socket.socketpair()
        _, channel = await asyncio.get_running_loop().create_connection(StreamChannel, sock=ours)
        assert channel.transport is not None
        theirs.close()
        await channel.gone
        return channel

    assert asyncio.run(lose()).transport is None
