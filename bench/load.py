"""The load: workers that ask for a key as master and collect it as slave, in a process of its own.

Reads a plan as JSON from standard input and prints what it saw as JSON:

    {"urls": [MASTER_KME, SLAVE_KME], "ca": PATH, "master": [ALIAS, CERT, KEY], "slave": [ALIAS, CERT, KEY],
     "workers": 8, "warm_s": 0.5, "run_s": 3.0, "pids": [SERVER, ...], "unique": true}

CPU of the servers is read at the two ends of the measured window, after the warm-up.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from tests.scenes.tools.client014 import tls_context
from tests.scenes.tools.wire import Answer, Connection, connect, encode_request

from bench.processes import LOAD_CORES, PINNED, cpu_s, spent_s

ENC_BODY = b'{"number":1,"size":256}'


class Load:
    """Counts and latencies of the window that is measured."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.measuring = False
        self.enc_ms: list[float] = []
        self.dec_ms: list[float] = []
        self.busy = 0
        self.wrong = 0
        self.seen: set[str] = set()
        self.failures: dict[str, int] = {}
        self.stop = False

    async def worker(self) -> None:
        """Pairs of requests until told to stop."""
        contexts = [tls_context(self.plan["ca"], *self.plan[role][1:]) for role in ("master", "slave")]
        ends = [await connect(url, context) for url, context in zip(self.plan["urls"], contexts, strict=True)]
        try:
            while not self.stop:
                await self._pair(*ends)
        finally:
            for end in ends:
                await end.close()

    async def _pair(self, master: Connection, slave: Connection) -> None:
        slave_name, master_name = self.plan["slave"][0], self.plan["master"][0]
        asked_s = time.perf_counter()
        target = f"/api/v1/keys/{slave_name}/enc_keys"
        answer = await master.exchange(encode_request("POST", target, master.host, ENC_BODY))
        if answer.status == 503:
            self.busy += self.measuring
            await asyncio.sleep(0.05)
            return
        key = self._key(answer)
        if key is None:
            return
        given_s = time.perf_counter()
        body = b'{"key_IDs":[{"key_ID":"' + key["key_ID"].encode() + b'"}]}'
        target = f"/api/v1/keys/{master_name}/dec_keys"
        answer = await slave.exchange(encode_request("POST", target, slave.host, body))
        if self._key(answer) != key:
            self.wrong += 1
        if self.measuring:
            self.enc_ms.append((given_s - asked_s) * 1e3)
            self.dec_ms.append((time.perf_counter() - given_s) * 1e3)
        if self.plan["unique"] and key["key_ID"] in self.seen:
            self.wrong += 1
        self.seen.add(key["key_ID"])

    def _key(self, answer: Answer) -> dict[str, str] | None:
        if answer.status != 200:
            reason = f"{answer.status} {answer.body[:120]!r}"
            self.failures[reason] = self.failures.get(reason, 0) + 1
            return None
        key: dict[str, str] = json.loads(answer.body)["keys"][0]
        return key

    async def run(self) -> dict[str, Any]:
        """Warm up, measure, stop."""
        workers = [asyncio.create_task(self.worker()) for _ in range(self.plan["workers"])]
        await asyncio.sleep(self.plan["warm_s"])
        before = {pid: cpu_s(pid) for pid in self.plan["pids"]}
        own_s, began_s = spent_s(), time.perf_counter()
        self.measuring = True
        await asyncio.sleep(self.plan["run_s"])
        self.measuring = False
        took_s = time.perf_counter() - began_s
        cpu = {str(pid): cpu_s(pid) - before[pid] for pid in self.plan["pids"]}
        own_s = spent_s() - own_s
        self.stop = True
        await asyncio.gather(*workers)
        return {
            "pairs": len(self.enc_ms),
            "took_s": took_s,
            "cpu_s": cpu,
            "load_cpu_s": own_s,
            "enc_ms": self.enc_ms,
            "dec_ms": self.dec_ms,
            "busy": self.busy,
            "wrong": self.wrong,
            "failures": self.failures,
        }


if __name__ == "__main__":
    if PINNED:
        os.sched_setaffinity(0, LOAD_CORES)
    json.dump(asyncio.run(Load(json.load(sys.stdin)).run()), sys.stdout)
