"""Byte strings that are nearly right, for parsers and servers. Seeded, hence repeatable."""

from __future__ import annotations

import random
from collections.abc import Iterator

TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"/",
    b"?",
    b"%",
    b"%00",
    b"%ff",
    b"%2F",
    b"#",
    b"\xff",
    b"\x80",
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Upgrade: h2c\r\n",
    b"Host: a\r\n",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"GET ",
    b"POST ",
    b"0\r\n\r\n",
    b"ffffffff\r\n",
    b"\r\n\r\n",
    b"a" * 300,
    b'"',
    b"{",
    b"[",
    b"}",
    b"]",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"2147483648",
    b"9" * 40,
    b'"size":257',
    b'"number":0',
    b'"key_IDs":',
    b'"extension_mandatory":[{"a":1}]',
)

ENC = b"/api/v1/keys/bob/enc_keys"
REQUESTS = (
    b"GET /api/v1/keys/bob/status HTTP/1.1\r\nHost: k\r\n\r\n",
    b"GET " + ENC + b"?number=2&size=256 HTTP/1.1\r\nHost: k\r\nAccept: application/json\r\n\r\n",
    b"GET " + ENC + b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST " + ENC + b' HTTP/1.1\r\nHost: k\r\nContent-Length: 12\r\n\r\n{"number":2}',
    b"POST "
    + ENC
    + b' HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{"number":2}\r\n0\r\n\r\n',
    b"GET /api/v1/keys/bob/dec_keys?key_ID=1b4e28ba-2fa1-41d2-883f-0016d3cca427 HTTP/1.1\r\nHost: k\r\n\r\n",
)
BODIES = (
    b'{"number":2,"size":256}',
    b'{"key_IDs":[{"key_ID":"1b4e28ba-2fa1-41d2-883f-0016d3cca427"},{"key_ID":"x","key_ID_extension":{}}]}',
    b'{"additional_slave_SAE_IDs":["a","b"],"extension_optional":[{"x":[1,{"y":null}]}]}',
)
KEY_IDS = (b"1b4e28ba-2fa1-41d2-883f-0016d3cca427", b"1B4E28BA-2FA1-41D2-883F-0016D3CCA427")


def mutant(chance: random.Random, seeds: tuple[bytes, ...]) -> bytes:
    """One seed with a few changes; now and then noise alone."""
    if chance.random() < 0.05:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 2:
            del data[at : at + chance.randrange(1, 12)]
        elif kind == 3:
            data[at:at] = data[chance.randrange(len(data) + 1) :][: chance.randrange(1, 60)]
        elif kind == 4 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        else:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other)) :]
    return bytes(data)


def mutants(seed: int, seeds: tuple[bytes, ...], count: int) -> Iterator[bytes]:
    """So many of them, always the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        yield mutant(chance, seeds)
