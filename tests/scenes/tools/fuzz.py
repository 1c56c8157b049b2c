"""Nonsense over real connections, as a process of its own: `python -m tests.scenes.tools.fuzz < plan`.

The plan is one line of JSON: {"url", "ca", "cert", "key", "count", "rate_per_s", "seed"}. A fifth of the
inputs are nonsense instead of TLS, the rest nonsense instead of HTTP, one connection each, begun at a fixed
rate. It prints one line of JSON: statuses counted, what was no HTTP, how many connections stayed open long.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import sys
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from tests.scenes.tools.client014 import tls_context
from tests.support.mutants import BODIES, KEY_IDS, REQUESTS, mutant

STAYS_S = 3.0
HELLO = bytes.fromhex("160301020001000001fc0303") + bytes(range(32)) + bytes.fromhex("20") + bytes(64)
STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [^\r\n]*\r\n")


class Fuzz:
    """Sends mutants and counts what comes back."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(plan["seed"])
        self._context = tls_context(plan["ca"], plan["cert"], plan["key"])
        parts = urlsplit(plan["url"])
        self._place = (parts.hostname, parts.port)

    def _input(self) -> tuple[bytes, bool]:
        """Bytes, and whether they go through TLS."""
        if self._chance.random() < 0.2:
            return mutant(self._chance, (HELLO, REQUESTS[0])), False
        if self._chance.random() < 0.5:
            return mutant(self._chance, REQUESTS), True
        name, seeds = (b"dec_keys", KEY_IDS) if self._chance.random() < 0.3 else (b"enc_keys", BODIES)
        body = mutant(self._chance, seeds)
        if name == b"dec_keys":
            body = b'{"key_IDs":[{"key_ID":"' + body + b'"}]}'
        head = b"POST /api/v1/keys/bob-1/%s HTTP/1.1\r\nHost: k\r\nContent-Length: %d\r\n\r\n" % (
            name,
            len(body),
        )
        return head + body, True

    async def one(self) -> None:
        """One connection."""
        data, with_tls = self._input()
        try:
            async with asyncio.timeout(10.0):
                reader, writer = await asyncio.open_connection(
                    *self._place, ssl=self._context if with_tls else None
                )
        except (OSError, TimeoutError) as error:
            self.counts[f"not connected: {type(error).__name__}"] += 1
            return
        got = b""
        try:
            writer.write(data)
            async with asyncio.timeout(STAYS_S):
                await writer.drain()
                while part := await reader.read(65536):
                    got += part
        except TimeoutError:
            self.counts["stayed open"] += 1  # a request that may still go on, or keep-alive
        except (OSError, ssl.SSLError):
            self.counts["reset"] += 1
        writer.transport.abort()
        self._note(got, with_tls)

    def _note(self, got: bytes, with_tls: bool) -> None:
        self.counts["inputs"] += 1
        if not with_tls:
            self.counts["TLS garbage"] += 1
            return
        found = STATUS.findall(got)
        if got and not got.startswith(b"HTTP/1.1 "):
            self.counts["no HTTP"] += 1
        for status in found:
            self.counts[status.decode()] += 1
            if status[:1] == b"5" and status not in (b"501", b"503", b"505"):
                self.counts["bad 5xx"] += 1
        if b"internal fault" in got:
            self.counts["internal fault"] += 1

    async def run(self) -> None:
        """All of them, begun at the rate of the plan."""
        loop, running = asyncio.get_running_loop(), set()
        begun_s = loop.time()
        for number in range(self.plan["count"]):
            due_s = begun_s + number / self.plan["rate_per_s"]
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            task = asyncio.create_task(self.one())
            running.add(task)
            task.add_done_callback(running.discard)
        self.counts["took s"] = round(loop.time() - begun_s)
        await asyncio.gather(*running)


if __name__ == "__main__":
    fuzz = Fuzz(json.loads(sys.stdin.readline()))
    asyncio.run(fuzz.run())
    print(json.dumps(fuzz.counts), flush=True)  # noqa: T201
