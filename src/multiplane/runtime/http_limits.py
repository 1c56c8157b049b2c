"""What a server takes from strangers, and what it counted."""

from __future__ import annotations

import math

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one listener. *Half-open* is a connection that has not yet sent a whole request head.

    Args:
        body_byte: largest request body.
        header_byte: all header names and values of one request.
        target_byte: the request target, with its escapes.
        handshake_s: TLS handshake.
        head_s: from the connection, or the first byte of a later request, to the end of the request head.
        body_s: from the end of the head to the end of the body; also for a client that does not read answers.
        keep_alive_s: silence between two requests.
        half_open: so many at once; one more pushes out the oldest of the address that has the most.
        connections: so many at once, half-open ones counted in; one more pushes out one of who has the most.
        caller_connections: of one caller; one more closes its own oldest idle one, itself when none is idle.
        caller_requests: of one caller in work at once; more of its own wait.
        caller_turn: requests that one caller begins in one turn of the event loop.
        caller_wait_s: after so long a wait behind its own requests a caller is answered 503.
        caller_streams: answers of one caller that go on as things happen, at once; one more is answered 503.
        stream_idle_s: silence after which such an answer shows that it is alive, and looks whether its caller
            is still let in.
        stream_byte: so much of it may wait for a client that does not read; with more it is cut off.
        linger_s, linger_byte: how long and how much of an unwanted body is thrown away before the connection
            is closed, so that a client that is still sending can read the answer.

    Raises: ValueError on a bound that is not above 0 and finite.
    """

    body_byte: int = 64 * 1024
    header_byte: int = 16 * 1024
    target_byte: int = 8 * 1024
    handshake_s: float = 5.0
    head_s: float = 10.0
    body_s: float = 10.0
    keep_alive_s: float = 75.0
    half_open: int = 200
    connections: int = 1000
    caller_connections: int = 128
    caller_requests: int = 64
    caller_turn: int = 8
    caller_wait_s: float = 2.0
    caller_streams: int = 32
    stream_idle_s: float = 15.0
    stream_byte: int = 256 * 1024
    linger_s: float = 1.0
    linger_byte: int = 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")


class Statistics(msgspec.Struct, kw_only=True):
    """Counts of one listener since it started; `open_connections`, `half_open` and `streams` are of now.

    `dropped` counts connections that were pushed out or turned away because the listener was full,
    `crowded_out` those that went because their caller had too many.
    """

    requests: dict[int, int] = {}
    open_connections: int = 0
    half_open: int = 0
    streams: int = 0
    dropped: int = 0
    crowded_out: int = 0
    failed_handshakes: int = 0
