"""Clients under load: workers that get keys as master, collect them as slave, and keep the book."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Sequence

from tests.scenes.tools.accounts import Book, Entry
from tests.scenes.tools.client014 import Client014, Gone, Key, Said
from tests.scenes.tools.network import Failed, Network
from tests.scenes.tools.wire import MIDDLE

LONGEST_WAIT_S = 2.0
BATCH = 16

Pair = tuple[str, str]


class Traffic:
    """Workers over pairs of applications; each worker holds one connection for each application it plays.

    Args:
        network: a running network; it may lose and regain sites meanwhile.
        book: where everything is written down.
        pairs: (master, slave) aliases, walked in turn by all workers.
        workers: how many requests are open at most.
        keep: share of the keys that are left uncollected for later, in [0, 1].
        number: keys asked for at once.
        pause_s: how long each worker rests after each pair of requests.
    """

    def __init__(
        self,
        network: Network,
        book: Book,
        pairs: Sequence[Pair],
        *,
        workers: int = 8,
        keep: float = 0.0,
        number: int = 1,
        pause_s: float = 0.0,
    ) -> None:
        self.network = network
        self.book = book
        self.pairs = list(pairs)
        self.keep = keep
        self.number = number
        self.pause_s = pause_s
        self.answered: Counter[Pair] = Counter()
        self.last_reason: dict[Pair, str] = {}
        self.longest_wait_s = 0
        self._saes = network.saes
        self._random = random.Random(14)
        self._done_s: deque[float] = deque(maxlen=100_000)
        self._turn = 0
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(workers)]

    # --- life ---------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End all workers; requests that are open come to their end. Raises what a worker raised."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def check(self) -> None:
        """Raise at once what a worker raised."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def reaches(self, what: str, keys: int, timeout_s: float, pair: Pair | None = None) -> None:
        """Wait until `keys` more keys have been answered (to `pair`). Raises Failed."""
        count = self._count(pair) + keys
        deadline_s = time.monotonic() + timeout_s
        while self._count(pair) < count:
            self.check()
            if time.monotonic() > deadline_s:
                missing = count - self._count(pair)
                raise Failed(
                    f"{what}: {missing} of {keys} keys missing after {timeout_s:g} s; {self.book.summary()}; "
                    f"last reasons {self.last_reason}\n{self.network.tail()}"
                )
            await asyncio.sleep(0.02)

    def _count(self, pair: Pair | None) -> int:
        return self.answered.total() if pair is None else self.answered[pair]

    def rate_per_s(self, window_s: float) -> float:
        """Requests answered in the last `window_s` seconds, per second."""
        start_s = time.monotonic() - window_s
        return sum(1 for at_s in reversed(self._done_s) if at_s >= start_s) / window_s

    # --- workers ------------------------------------------------------------------------------

    async def _work(self) -> None:
        clients: dict[str, Client014] = {}
        try:
            while not self._stop.is_set():
                self._turn += 1
                master, slave = self.pairs[self._turn % len(self.pairs)]
                keys = await self._enc(clients, master, slave)
                if keys and self._random.random() >= self.keep:
                    await self._dec(clients, master, slave, [key.key_id for key in keys])
                if self.pause_s:
                    await self._pause(self.pause_s)
        finally:
            for client in clients.values():
                await client.close()

    def _client(self, clients: dict[str, Client014], sae: str) -> Client014:
        if sae not in clients:
            clients[sae] = self.network.client(sae)
        return clients[sae]

    def _spelling(self, sae: str) -> str:
        """Plain alias and URN in turn: both are accepted in a path."""
        return sae if self._turn % 2 else self._saes[sae].urn

    async def _enc(self, clients: dict[str, Client014], master: str, slave: str) -> list[Key]:
        client = self._client(clients, master)
        try:
            await client.connection()
            with self.book.open_request(self._saes[master].kme):
                keys = await client.enc(self._spelling(slave), self.number)
        except Gone as gone:
            self.book.counts["enc lost"] += 1
            self.book.counts["enc cut short"] += MIDDLE in str(gone)
            await self._pause(0.05)
            return []
        except Said as said:
            self._note(said, (master, slave))
            await self._pause(min(said.retry_after_s, LONGEST_WAIT_S) if said.status == 503 else 0.1)
            return []
        self.book.issued(master, slave, keys)
        self.answered[master, slave] += len(keys)
        self._done_s.append(time.monotonic())
        return keys

    def _note(self, said: Said, pair: Pair) -> None:
        self.book.counts["enc faulty" if said.faulty else f"enc {said.status}"] += 1
        self.last_reason[pair] = said.message
        self.longest_wait_s = max(self.longest_wait_s, said.retry_after_s)
        if said.status != 503:
            self.book.problem(f"enc_keys of {pair} was refused: {said}")

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay_s)

    async def _dec(
        self, clients: dict[str, Client014], master: str, slave: str, key_ids: Sequence[str]
    ) -> None:
        client = self._client(clients, slave)
        if await collect(self.book, client, self._saes[slave].kme, self._spelling(master), key_ids):
            self._done_s.append(time.monotonic())

    # --- the end ------------------------------------------------------------------------------

    async def settle(self, timeout_s: float) -> None:
        """Collect every key that is left; keys in doubt one by one. Raises Failed when time is up."""
        await settle(self.network, self.book, timeout_s)


async def collect(book: Book, client: Client014, site: str, master: str, key_ids: Sequence[str]) -> bool:
    """One `dec_keys`, written into the book whatever happens; whether it was answered with keys."""
    try:
        await client.connection()
    except Gone:
        return False
    book.collecting(key_ids)
    try:
        with book.open_request(site):
            keys = await client.dec(master, key_ids)
    except Gone as gone:
        (book.collect_lost if gone.sent else book.collect_not_sent)(key_ids)
    except Said as said:
        book.collect_refused(key_ids, said)
    else:
        book.collected(keys)
        return True
    return False


async def settle(network: Network, book: Book, timeout_s: float) -> None:
    """Collect every outstanding key of `book`. Raises Failed when some stay out of reach."""
    clients = {name: network.client(name) for name in network.saes}
    deadline_s = time.monotonic() + timeout_s
    try:
        while left := book.outstanding():
            if time.monotonic() > deadline_s:
                raise Failed(
                    f"{len(left)} keys out of reach after {timeout_s:g} s: {left[:3]}; {book.summary()}\n"
                    f"{network.tail()}"
                )
            for batch in _batches(left):
                master, slave = batch[0].master, batch[0].slave
                key_ids = [entry.key_id for entry in batch]
                site = network.saes[slave].kme
                if not await collect(book, clients[slave], site, master, key_ids):
                    await asyncio.sleep(0.02 if batch[0].burnt else 0.2)
    finally:
        for client in clients.values():
            await client.close()


def _batches(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Keys of one pair together, keys in doubt alone (one that is gone would refuse the whole request)."""
    batches = [[entry] for entry in entries if entry.in_doubt]
    sure: dict[Pair, list[Entry]] = {}
    for entry in entries:
        if not entry.in_doubt:
            sure.setdefault((entry.master, entry.slave), []).append(entry)
    for same in sure.values():
        batches += [same[start : start + BATCH] for start in range(0, len(same), BATCH)]
    return batches


async def replay(network: Network, book: Book, sample: int) -> int:
    """Ask again for keys that were collected: each must be refused. How many were tried."""
    collected = [entry for entry in book.entries.values() if entry.collected == 1]
    chosen = random.Random(20).sample(collected, min(sample, len(collected)))
    clients = {name: network.client(name) for name in network.saes}
    try:
        for entry in chosen:
            if await collect(
                book, clients[entry.slave], network.saes[entry.slave].kme, entry.master, [entry.key_id]
            ):
                book.problem(f"replayed: {entry}")
            entry.burnt = False
    finally:
        for client in clients.values():
            await client.close()
    return len(chosen)
