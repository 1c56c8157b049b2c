"""No bytes break a parser: heads of requests, JSON bodies and key ids, in process, by the million.

`MULTIPLANE_FULL=1` takes 1,050,000 inputs; otherwise a sample of the same stream.
"""

from __future__ import annotations

import gc
import os
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from tests.support.mutants import BODIES, KEY_IDS, REQUESTS, mutants
from tests.support.web import ALICE, MemoryNorth

from multiplane.api.wire.web import Reply, Request
from multiplane.kernel.nouns import Caller
from multiplane.runtime.http_limits import Limits
from multiplane.runtime.http_reading import RequestReader
from multiplane.runtime.http_routing import Router
from multiplane.security.keyid import Place, mint, open_id
from multiplane.standards import etsi014

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FULL = os.environ.get("MULTIPLANE_FULL", "") not in ("", "0")
EACH = 350_000 if FULL else 12_000
LIMITS = Limits(header_byte=2048, target_byte=512, body_byte=4096)
STATUSES = {400, 414, 417, 431, 501, 505}
CALLER = Caller(principal=ALICE, domain="test")


class Face:
    """The whole way of a request without transport: reader, router, handler."""

    def __init__(self) -> None:
        self.north = MemoryNorth()
        routes = etsi014.routes(self.north, lambda _: 1.0)
        self.router = Router(routes)
        self.posts = {row.path.rpartition("/")[2]: row for row in routes if row.verbs == ("POST",)}
        self.seen: Counter[str] = Counter()

    def read(self, data: bytes, cut: int) -> None:
        """Bytes of a connection in two segments."""
        reader = RequestReader(LIMITS)
        reader.feed(data[:cut])
        reader.feed(data[cut:])
        for request in reader.requests:
            assert sum(map(len, request.parts)) <= LIMITS.body_byte
            if request.refusal is not None:
                assert request.refusal.status in STATUSES
                check_failure(request.refusal)
                self.seen[f"refused {request.refusal.status}"] += 1
                continue
            try:
                match = self.router.find(request.target)
                self.seen["no path" if match is None else "path"] += 1
                if match is not None and match.row(request.verb) is not None:
                    params, query = match.params(request.verb), match.query()
                    assert all(isinstance(value, str) for value in params.values())
                    assert all(isinstance(value, str) for pair in query for value in pair)
            except ValueError:
                self.seen["escapes"] += 1

    def post(self, name: str, body: bytes) -> None:
        """A body to one of the methods."""
        row, self.north.stock = self.posts[name], 100
        values = {"slave_SAE_ID": "bob", "master_SAE_ID": "bob"}
        reply = run(row.handler, Request(caller=CALLER, params=values, body=body))
        self.seen[f"{name} {reply.status}"] += 1
        if reply.status != 200:
            assert reply.status in (400, 401, 503), reply.status
            check_failure(reply)
        self.north.issued.clear()
        self.north.calls.clear()


def run(handler: Callable[[Request], object], request: Request) -> Reply:
    """A handler that never waits, run to its end."""
    work = handler(request)
    try:
        work.send(None)  # type: ignore[attr-defined]
    except StopIteration as end:
        reply: Reply = end.value
        return reply
    raise AssertionError("it waits")


def check_failure(reply: Reply) -> None:
    told = msgspec.json.decode(reply.body)
    assert told["message"]
    assert told["details"]
    assert len(reply.body) < 4096


def test_no_bytes_break_the_reader_of_requests() -> None:
    face, chance = Face(), random.Random(1)
    for data in mutants(1, REQUESTS, EACH):
        face.read(data, chance.randrange(len(data) + 1))
    for wanted in ("path", "no path", "escapes", "refused 400", "refused 501", "refused 505", "refused 417"):
        assert face.seen[wanted] > 0, face.seen


def test_no_body_breaks_a_method() -> None:
    face = Face()
    for number, data in enumerate(mutants(2, BODIES, EACH)):
        face.post("dec_keys" if number % 2 else "enc_keys", data)
    for wanted in ("enc_keys 200", "enc_keys 400", "dec_keys 400"):
        assert face.seen[wanted] > EACH // 1000, face.seen


def test_no_text_opens_as_a_key_id() -> None:
    secret = bytes(range(32))
    genuine = mint(secret, Place(7, 70, 4))
    seeds = (*KEY_IDS, genuine.encode())
    opened = 0
    for data in mutants(3, seeds, EACH):
        text = data.decode("utf-8", "replace")
        place = open_id(secret, text)
        if place is not None:
            assert text.lower() == genuine
            opened += 1
    assert opened < EACH // 10


def kept_byte() -> int:
    """What is held when no garbage waits for its collection: that comes by itself, sooner or later."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_memory_is_bounded() -> None:
    face = Face()

    def work(seed: int) -> None:
        for data in mutants(seed, REQUESTS, 1500):
            face.read(data, len(data) // 2)
        for data in mutants(seed, BODIES, 1500):
            face.post("dec_keys", data)

    work(4)
    tracemalloc.start()
    try:
        work(5)
        first_byte = kept_byte()
        work(6)
        second_byte = kept_byte()
        _, peak_byte = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert second_byte - first_byte < 100_000
    assert peak_byte < 2_000_000


def _bodies(size: int) -> dict[str, tuple[str, bytes]]:
    ids = b",".join(b'{"key_ID":"%036d"}' % number for number in range(size // 50))
    return {
        "nested lists": ("enc_keys", b'{"number":' + b"[" * size),
        "nested objects": ("dec_keys", b'{"a":' * (size // 5)),
        "ids": ("dec_keys", b'{"key_IDs":[' + ids + b"]}"),
        "the same member": ("enc_keys", b"{" + b'"number":1,' * (size // 11) + b'"size":8}'),
        "escapes": ("enc_keys", b'{"x":"' + b"\\u0041" * (size // 6) + b'"}'),
        "digits": ("enc_keys", b'{"number":' + b"9" * size + b"}"),
        "not UTF-8": ("enc_keys", b'{"x":"' + b"\xff" * size + b'"}'),
    }


def _heads(size: int) -> dict[str, bytes]:
    start = b"POST " + b"/x HTTP/1.1\r\nHost: k\r\n"
    return {
        "fields": start + b"X: y\r\n" * (size // 6) + b"\r\n",
        "one field": start + b"X: " + b"a" * size + b"\r\n\r\n",
        "target": b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: k\r\n\r\n",
        "chunks": start + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * (size // 6),
        "pipeline": b"GET /x HTTP/1.1\r\nHost: k\r\n\r\n" * (size // 28),
        "blank lines": b"\r\n" * (size // 2),
    }


def _least_s(work: Callable[[], None]) -> float:
    """CPU seconds of the quickest of several runs, without the collector of garbage."""
    best_s = float("inf")
    gc.disable()
    try:
        for _ in range(7):
            begun_s = time.thread_time()
            work()
            best_s = min(best_s, time.thread_time() - begun_s)
    finally:
        gc.enable()
    return best_s


LARGE = Limits(header_byte=1 << 20, target_byte=1 << 20, body_byte=1 << 20)
SIZE = 60_000


@pytest.mark.parametrize("name", _bodies(100))
def test_bodies_take_time_as_they_are_long(name: str) -> None:
    face = Face()

    def work(size: int) -> Callable[[], None]:
        method, body = _bodies(size)[name]
        return lambda: face.post(method, body)

    once_s, twice_s = _least_s(work(SIZE)), _least_s(work(2 * SIZE))
    assert twice_s < 3 * once_s + 0.001, (once_s, twice_s)


@pytest.mark.parametrize("name", _heads(100))
def test_heads_take_time_as_they_are_long(name: str) -> None:
    def work(size: int) -> Callable[[], None]:
        data = _heads(size)[name]
        return lambda: RequestReader(LARGE).feed(data)

    once_s, twice_s = _least_s(work(SIZE)), _least_s(work(2 * SIZE))
    assert twice_s < 3 * once_s + 0.001, (once_s, twice_s)


@pytest.mark.parametrize("name", _heads(100))
def test_trickling_heads_cost_no_more_than_their_segments(name: str) -> None:
    """Byte by byte the C parser appends to what it has; the limits keep that short."""
    data = _heads(SIZE)[name]

    def work() -> None:
        reader = RequestReader(Limits())
        for at in range(len(data)):
            reader.feed(data[at : at + 1])

    assert _least_s(work) / SIZE < 10e-6
