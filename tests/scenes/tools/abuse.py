"""Abusers as a process of their own: `python -m tests.scenes.tools.abuse < plan` until standard input ends.

The plan is one line of JSON: {"url", "ca", "greedy": SAE, "crowd": SAE, "guess": SAE, "peer": ID}, each SAE
{"cert", "key"}. On the way out it prints what it did, one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections import Counter
from typing import Any

from tests.scenes.tools.client014 import tls_context
from tests.scenes.tools.wire import Connection, Gone, Violation, connect, encode_request

GREEDY_CONNECTIONS = 16
GUESS_CONNECTIONS = 8
CROWD = 1000


class Abusers:
    """Three callers that take what they can."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.counts: Counter[str] = Counter()
        self.held: list[Connection] = []

    def _context(self, name: str) -> Any:
        return tls_context(self.plan["ca"], self.plan[name]["cert"], self.plan[name]["key"])

    async def _connect(self, name: str, context: Any) -> Connection:
        while True:
            try:
                return await connect(self.plan["url"], context)
            except Gone:
                self.counts[f"{name} turned away"] += 1
                await asyncio.sleep(0.05)

    async def hammer(self, name: str) -> None:
        """Ask again as soon as there is an answer."""
        context, peer = self._context(name), self.plan["peer"]
        connection = await self._connect(name, context)
        while True:
            if name == "greedy":
                request = encode_request("GET", f"/api/v1/keys/{peer}/enc_keys", "k", None)
            else:
                target = f"/api/v1/keys/{peer}/dec_keys?key_ID={uuid.uuid4()}"
                request = encode_request("GET", target, "k", None)
            try:
                answer = await connection.exchange(request)
                self.counts[f"{name} {answer.status}"] += 1
            except (Gone, Violation):
                self.counts[f"{name} lost"] += 1
                connection = await self._connect(name, context)

    async def crowd(self) -> None:
        """Open a thousand connections, ask once on each, keep them."""
        context, peer = self._context("crowd"), self.plan["peer"]
        request = encode_request("GET", f"/api/v1/keys/{peer}/status", "k", None)

        async def one() -> None:
            connection = await self._connect("crowd", context)
            self.held.append(connection)
            with contextlib.suppress(Gone, Violation):
                self.counts[f"crowd {(await connection.exchange(request)).status}"] += 1

        for _ in range(CROWD // 20):
            await asyncio.gather(*(one() for _ in range(20)))
        self.counts["crowd open"] = sum(connection.open for connection in self.held)


async def main() -> None:
    """Abuse until standard input ends."""
    plan = json.loads(sys.stdin.readline())
    abusers = Abusers(plan)
    tasks = [asyncio.create_task(abusers.hammer("greedy")) for _ in range(GREEDY_CONNECTIONS)]
    tasks += [asyncio.create_task(abusers.hammer("guess")) for _ in range(GUESS_CONNECTIONS)]
    tasks.append(asyncio.create_task(abusers.crowd()))
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(abusers.counts), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
