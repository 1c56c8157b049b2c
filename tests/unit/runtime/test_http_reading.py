"""Requests out of bytes: the same however they are cut, bounded, strict."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.runtime.http_limits import Limits
from multiplane.runtime.http_reading import Incoming, RequestReader

LIMITS = Limits(header_byte=400, target_byte=300, body_byte=50)


def read(*segments: bytes) -> tuple[RequestReader, list[Incoming]]:
    reader = RequestReader(LIMITS)
    for segment in segments:
        reader.feed(segment)
    return reader, list(reader.requests)


def shown(request: Incoming) -> tuple[object, ...]:
    body = b"".join(request.parts) if request.size_byte <= LIMITS.body_byte else None
    refused = request.refusal and request.refusal.status
    return request.verb, request.target, body, request.keep_alive, request.whole, request.spoilt, refused


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """One request and its body."""
    body = draw(st.binary(max_size=80))
    lines = [b"POST /%d HTTP/1.1" % draw(st.integers(0, 99)), b"Host: k"]
    lines += draw(st.lists(st.sampled_from([b"X: y", b"Empty:", b"Accept: a, b"]), max_size=3))
    if draw(st.booleans()):
        sizes = draw(st.lists(st.integers(1, 30), max_size=3))
        chunks, rest = [], body
        for size in [*sizes, 80]:
            piece, rest = rest[:size], rest[size:]
            chunks.append(b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b"")
        end = b"0\r\n" + draw(st.sampled_from([b"", b"Host: trailer\r\n", b"Expect: 1\r\n"])) + b"\r\n"
        data = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""]) + b"".join(chunks) + end
    else:
        data = b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""]) + body
    return data, body


@given(sent=st.lists(requests(), min_size=1, max_size=4), cuts=st.lists(st.integers(0, 600), max_size=12))
def test_requests_are_the_same_however_they_are_cut(sent: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    data = b"".join(whole for whole, _ in sent)
    edges = [0, *sorted(cuts), len(data)]
    _, found = read(*(data[start:end] for start, end in pairwise(edges)))
    _, at_once = read(data)
    _, by_byte = read(*(data[at : at + 1] for at in range(len(data))))
    assert [shown(one) for one in found] == [shown(one) for one in at_once] == [shown(one) for one in by_byte]
    assert [one.size_byte for one in found] == [len(body) for _, body in sent]
    assert all(one.whole and one.keep_alive and one.fields[b"host"] == b"k" for one in found)
    for one, (_, body) in zip(found, sent, strict=True):
        assert sum(map(len, one.parts)) <= LIMITS.body_byte
        if len(body) <= LIMITS.body_byte:
            assert b"".join(one.parts) == body


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_no_bytes_break_it_or_get_a_second_chance(data: bytes, cut: int) -> None:
    reader, found = read(data[:cut], data[cut:])
    before = [shown(one) for one in found]
    if before and before[-1][-1] is not None:
        reader.feed(b"GET / HTTP/1.1\r\nHost: k\r\n\r\n")
        assert [shown(one) for one in reader.requests] == before


REFUSED = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "0.9": (b"GET /\r\n\r\n", 505),
    "2.0": (b"GET / HTTP/2.0\r\nHost: k\r\n\r\n", 505),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: k\r\n\r\n", 501),
    "unmet expectation": (b"GET / HTTP/1.1\r\nHost: k\r\nExpect: rain\r\n\r\n", 417),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: k\n\n", 400),
    "folded": (b"GET / HTTP/1.1\r\nHost: k\r\nX: a\r\n b\r\n\r\n", 400),
    "upgrade with a body": (
        b"POST / HTTP/1.1\r\nHost: k\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
        400,
    ),
    "endless value": (b"GET / HTTP/1.1\r\nHost: k\r\nX: " + b"a" * 401, 431),
    "long target": (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: k\r\n\r\n", 414),
    "many fields": (b"GET / HTTP/1.1\r\nHost: k\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
}


@pytest.mark.parametrize("name", REFUSED)
def test_heads_that_are_refused(name: str) -> None:
    data, status = REFUSED[name]
    for segments in ([data], [data[at : at + 7] for at in range(0, len(data), 7)]):
        _, (request,) = read(*segments)
        assert request.refusal is not None
        assert request.refusal.status == status
        assert not request.keep_alive


def test_good_requests_before_bad_bytes_are_kept() -> None:
    good = b"GET /1 HTTP/1.1\r\nHost: k\r\n\r\n"
    _, found = read(good + b"\x00\x01\r\n\r\n" + good)
    assert [(one.target, one.refusal and one.refusal.status) for one in found] == [("/1", None), ("-", 400)]


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"]
)
def test_nothing_is_read_after_the_last_request(head: bytes) -> None:
    for segments in ([head + head], [head, head]):
        _, (request,) = read(*segments)
        assert request.whole
        assert not request.keep_alive
        assert request.refusal is None


@pytest.mark.parametrize("bad", [b"zz\r\n", b"2\r\nabc\r\n", b"0\r\nX: " + b"a" * 500 + b"\r\n\r\n"])
def test_bad_bodies_are_spoilt(bad: bytes) -> None:
    _, (request,) = read(b"POST / HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n", bad)
    assert request.spoilt
    assert not request.whole


def test_chunks_to_an_old_client_end_the_connection() -> None:
    lines = b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    _, (request,) = read(lines)
    assert request.whole
    assert not request.keep_alive
