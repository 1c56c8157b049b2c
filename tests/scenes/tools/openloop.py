"""A client that asks at a fixed rate, whether or not it is answered: what a busy server does to others."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from tests.scenes.tools.network import Network
from tests.scenes.tools.wire import Connection, Gone, Violation, connect, encode_request

ANSWER_S = 5.0


class OpenLoop:
    """Offers requests of one application at `rate_per_s` over as many connections as it takes.

    `chance`: draws random times; None = they are equal, the first is the beginning.
    `refused_s`: of the first request that was answered 503 after one had been granted, the seconds from the
    beginning to when it was due.
    """

    def __init__(
        self, network: Network, sae: str, peer: str, rate_per_s: float = 100.0, *, number: int = 1
    ) -> None:
        self._url = network.url(network.saes[sae].kme)
        self._context = network.context(sae)
        self._target = f"/api/v1/keys/{peer}/enc_keys?number={number}"
        self._begun_s = 0.0
        self._rate_per_s = rate_per_s
        self.chance: random.Random | None = None
        self._free: list[Connection] = []
        self.counts: Counter[str] = Counter()
        self.took_s: list[float] = []
        self.refused_s: float | None = None

    async def offer(self, for_s: float) -> None:
        """Offer for a while; every request begins when it is due and counts from then."""
        loop, asked = asyncio.get_running_loop(), []
        begun_s = self._begun_s = loop.time()
        due_s = begun_s if self.chance is None else begun_s + self._gap_s()
        while due_s < begun_s + for_s:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            asked.append(asyncio.create_task(self._ask(due_s)))
            due_s += self._gap_s()
        await asyncio.gather(*asked)

    def _gap_s(self) -> float:
        return 1.0 / self._rate_per_s if self.chance is None else self.chance.expovariate(self._rate_per_s)

    async def _ask(self, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        while self._free and not self._free[-1].open:
            self._free.pop()
        try:
            connection = self._free.pop() if self._free else await connect(self._url, self._context)
            request = encode_request("GET", self._target, connection.host, None)
            answer = await connection.exchange(request, ANSWER_S)
        except (Gone, Violation) as error:
            self.counts[type(error).__name__] += 1
            return
        self._free.append(connection)
        self.counts[str(answer.status)] += 1
        if answer.status == 200:
            self.took_s.append(loop.time() - due_s)
        elif answer.status == 503 and self.refused_s is None and self.took_s:
            self.refused_s = due_s - self._begun_s

    def forget(self) -> None:
        """Count from now on; connections stay open."""
        self.counts, self.took_s, self.refused_s = Counter(), [], None

    def p_ms(self, share: float) -> float:
        """The quantile of the times of answers, milliseconds."""
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3 if ordered else float("inf")

    def shown(self) -> str:
        """Counts and times in one line."""
        return f"{dict(self.counts)} p50 {self.p_ms(0.5):.1f} p99 {self.p_ms(0.99):.1f} ms"

    async def close(self) -> None:
        """Hang up."""
        for connection in self._free:
            await connection.close()
