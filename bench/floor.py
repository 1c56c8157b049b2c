"""The floor: mutual TLS on a bare asyncio protocol that answers every request with one fixed key.

No JSON, no policy, no store, no key: what the transport alone costs in Python. It is the reference of the
same run for everything that answers ETSI GS QKD 014.

    python -m bench.floor CA CERT KEY        prints its port, serves until it is told to end
"""

from __future__ import annotations

import asyncio
import ssl
import sys

ANSWER_BODY = (
    b'{"keys":[{"key_ID":"5f0c9a3e-7d41-4b6f-9c1e-0123456789ab",'
    b'"key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}]}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    + str(len(ANSWER_BODY)).encode()
    + b"\r\n\r\n"
    + ANSWER_BODY
)


class Floor(asyncio.Protocol):
    """Waits for a whole request, answers, looks at nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + size:
                return
            self._buffer = self._buffer[end + 4 + size :]
            self._transport.write(ANSWER)


async def serve(ca: str, cert: str, key: str) -> None:
    """Serve on a free port of the loopback, for ever."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:4]))
