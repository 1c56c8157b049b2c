"""Links whose waits come from a backend: asked for ahead, born when due, flagged when computed late."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from multiplane.api.backend import Backend, LinkJob, LinkOutcome
from multiplane.api.policy import LinkFacts, LinkHost, LinkProtocol, MakeLinkProtocol
from multiplane.kernel.errors import MultiplaneError, Refused

BATCH: Final = 256
TIMEOUT_S: Final = 60.0
AGAIN_S: Final = 5.0
_LIGHT_KM_PER_S: Final = 2e5
_BEST_PROBABILITY: Final = 0.5
_PS_PER_S: Final = 1e12


def job_for(facts: LinkFacts, seed: int) -> LinkJob:
    """The job that makes pairs as this link does: same delay, same probability of an attempt.

    Raises: Refused(`backend.link`) for a link without a middle station of linear optics halfway.
    """
    half_ps = facts.delay_ps / 2
    if (
        any(abs(leg_ps - half_ps) > 1 for leg_ps in (facts.photon_ps, *facts.herald_ps))
        or facts.delay_ps < 10
    ):
        raise Refused("backend.link", f"link {facts.link}: expected a station halfway, as the backend has")
    if not 0 < facts.success_probability <= _BEST_PROBABILITY:
        reason = f"success_probability {facts.success_probability:g}, expected at most {_BEST_PROBABILITY:g}"
        raise Refused("backend.link", f"link {facts.link}: {reason}, of linear optics")
    length_km = facts.delay_ps / _PS_PER_S * _LIGHT_KM_PER_S
    loss_db = 10.0 * math.log10(_BEST_PROBABILITY / facts.success_probability)
    # Losses of fibre, memories and detectors come to the same here.
    return LinkJob(length_km=length_km, loss_db_per_km=loss_db / length_km, pairs=BATCH, seed=seed)


class Stock:
    """Waits of one link, at least half a batch of them asked for before they are needed.

    Args: arrived: called whenever there are more.
    `fault` says why the last question failed; it is asked again every `AGAIN_S`.
    """

    def __init__(self, backend: Backend, facts: LinkFacts, seed: int, arrived: Callable[[], None]) -> None:
        self._backend = backend
        self._facts = facts
        self._seed = seed
        self._arrived = arrived
        self._waits: deque[tuple[int, int]] = deque()
        self._asking: asyncio.Task[None] | None = None
        self.fault = ""
        job_for(facts, seed)

    def take(self) -> tuple[int, int] | None:
        """(wait, age) of the next pair in picoseconds, or None until some arrive."""
        found = self._waits.popleft() if self._waits else None
        self.ask()
        return found

    def ask(self) -> None:
        """Ask for more unless enough are there or on their way."""
        if self._asking is None and len(self._waits) < BATCH // 2:
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask(self) -> None:
        while True:
            try:
                outcome = await self._backend.run(job_for(self._facts, self._seed), TIMEOUT_S)
                break
            except MultiplaneError as error:
                self.fault = error.reason
                await asyncio.sleep(AGAIN_S)
        assert isinstance(outcome, LinkOutcome)
        self._seed += 1
        self._waits.extend(zip(outcome.waits_ps, outcome.ages_ps, strict=True))
        self._asking, self.fault = None, ""
        self._arrived()


class Ahead:
    """A link protocol that draws nothing itself: a pair of free memories takes the next wait of its stock.

    Attributes: made: pairs born; late: those whose due time had passed when their wait was computed.
    """

    def __init__(self, facts: LinkFacts, host: LinkHost, backend: Backend, seed: int) -> None:
        self.made = 0
        self.late = 0
        self.stock = Stock(backend, facts, seed, self._serve)
        self._host = host
        self._free: tuple[deque[int], deque[int]] = (deque(), deque())
        self._begun: dict[tuple[int, int], int] = {}
        self._waiting: deque[tuple[int, int]] = deque()

    def raw(self, end: int, slot: int) -> None:
        if slot in self._free[end] or any(pair[end] == slot for pair in self._begun):
            return
        self._free[end].append(slot)
        self._join()

    def withdraw(self, end: int, slot: int) -> None:
        if slot in self._free[end]:
            self._free[end].remove(slot)
            return
        pair = next((pair for pair in self._begun if pair[end] == slot), None)
        if pair is not None:
            del self._begun[pair]
            if pair in self._waiting:
                self._waiting.remove(pair)
            self._free[1 - end].appendleft(pair[1 - end])
            self._join()

    def _join(self) -> None:
        """Memories that are free at both ends try together from now on, the first freed first."""
        near, far = self._free
        while near and far:
            pair = near.popleft(), far.popleft()
            self._begun[pair] = self._host.now_ps()
            self._waiting.append(pair)
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            found = self.stock.take()
            if found is None:
                return
            pair = self._waiting.popleft()
            begun_ps = self._begun[pair]
            due_ps, age_ps = begun_ps + found[0], found[1]
            late = due_ps < self._host.now_ps()
            self._host.at_ps(due_ps, self._born, pair, begun_ps, due_ps, age_ps, late)

    def _born(self, pair: tuple[int, int], begun_ps: int, due_ps: int, age_ps: int, late: bool) -> None:
        if self._begun.get(pair) != begun_ps:
            return
        del self._begun[pair]
        self.made += 1
        self.late += late
        heard_ps = max(due_ps, self._host.now_ps())
        self._host.born(pair, due_ps - age_ps, (heard_ps, heard_ps))


def ahead(backend: Backend, seed: int, opened: Callable[[Ahead], None]) -> MakeLinkProtocol:
    """A maker of such protocols over one backend, for `Policies.handshakes[NAME]["jump"]`.

    Args: seed: of the first link, later ones are apart from it; opened: told of each, to close its stock.
    The maker raises: Refused(`backend.link`) for a link that the backend cannot be asked about.
    """
    number = 0

    def make(facts: LinkFacts, host: LinkHost) -> LinkProtocol:
        nonlocal number
        protocol = Ahead(facts, host, backend, seed + number * 2**32)
        number += 1
        opened(protocol)
        return protocol

    return make
