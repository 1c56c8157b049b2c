"""Links that a backend answers ahead: born when due, late ones counted, faults survived."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from multiplane.api import backend as door
from multiplane.api.backend import LinkJob, LinkOutcome
from multiplane.api.policy import LinkFacts
from multiplane.assembly import backend_links
from multiplane.assembly.backend_links import Ahead, ahead, job_for
from multiplane.kernel.errors import Faulty, Refused

FACTS = LinkFacts(
    link="a--b",
    sites=("a", "b"),
    success_probability=0.5 * 10**-0.4,
    delay_ps=10**8,
    photon_ps=5 * 10**7,
    herald_ps=(5 * 10**7, 5 * 10**7),
    reset_ps=0,
    memories=2,
)
WAIT_PS, AGE_PS = 400, 100


class Host:
    """Time by hand."""

    def __init__(self) -> None:
        self.now = 0
        self.planned: list[tuple[int, Callable[..., None], Any]] = []
        self.pairs: list[tuple[tuple[int, int], int, tuple[int, int]]] = []

    def now_ps(self) -> int:
        return self.now

    def at_ps(self, due_ps: int, handler: Callable[..., None], *args: Any) -> None:
        self.planned.append((due_ps, handler, args))

    def trials(self, probability: float) -> int:
        raise AssertionError("chance is the backend's")

    def chance(self, probability: float) -> bool:
        raise AssertionError("chance is the backend's")

    def born(self, slots: tuple[int, int], emitted_ps: int, heard_ps: tuple[int, int]) -> None:
        assert emitted_ps <= self.now <= min(heard_ps)
        self.pairs.append((slots, emitted_ps, heard_ps))

    def pass_until(self, now_ps: int) -> None:
        for due_ps, handler, args in sorted(self.planned, key=lambda item: item[0]):
            if due_ps <= now_ps:
                self.planned.remove((due_ps, handler, args))
                self.now = max(self.now, due_ps)
                handler(*args)
        self.now = now_ps


class Fake:
    """Answers when allowed to; fails first as often as told."""

    def __init__(self, fails: int = 0) -> None:
        self.seeds: list[int] = []
        self.fails = fails
        self.allowed = asyncio.Event()
        self.allowed.set()

    async def describe(self) -> door.Facts:
        raise NotImplementedError

    async def run(self, job: door.AnyJob, timeout_s: float) -> door.AnyOutcome:
        await self.allowed.wait()
        assert isinstance(job, LinkJob)
        self.seeds.append(job.seed)
        if self.fails:
            self.fails -= 1
            raise Faulty("backend.gone", "backend fake: it ended")
        count = job.pairs
        return LinkOutcome(
            waits_ps=tuple(WAIT_PS + index for index in range(count)),
            ages_ps=(AGE_PS,) * count,
            weights=((1.0, 0.0, 0.0, 0.0),) * count,
        )

    async def close(self) -> None:
        pass


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_pairs_are_born_when_due_and_never_before() -> None:
    async def play() -> None:
        host, backend = Host(), Fake()
        link = Ahead(FACTS, host, backend, 7)
        link.raw(0, 0)
        link.raw(0, 0)
        host.now = 50
        link.raw(1, 1)
        await settle()
        host.pass_until(50 + WAIT_PS - 1)
        assert not host.pairs
        host.pass_until(50 + WAIT_PS)
        due_ps = 50 + WAIT_PS
        assert host.pairs == [((0, 1), due_ps - AGE_PS, (due_ps, due_ps))]
        assert (link.made, link.late) == (1, 0)

    asyncio.run(play())


def test_a_wait_computed_after_its_due_time_is_late_and_still_served() -> None:
    async def play() -> None:
        host, backend = Host(), Fake()
        backend.allowed.clear()
        link = Ahead(FACTS, host, backend, 7)
        link.raw(0, 0)
        link.raw(1, 0)
        host.pass_until(10 * WAIT_PS)
        backend.allowed.set()
        await settle()
        host.pass_until(host.now)
        assert host.pairs == [((0, 0), WAIT_PS - AGE_PS, (10 * WAIT_PS, 10 * WAIT_PS))]
        assert (link.made, link.late) == (1, 1)

    asyncio.run(play())


def test_a_withdrawn_memory_makes_nothing_and_its_partner_tries_with_another() -> None:
    async def play() -> None:
        host, backend = Host(), Fake()
        link = Ahead(FACTS, host, backend, 7)
        link.raw(0, 0)
        link.raw(1, 0)
        await settle()
        link.withdraw(1, 0)
        host.now = 10
        link.raw(1, 1)
        host.pass_until(10_000)
        assert [slots for slots, *_ in host.pairs] == [(0, 1)]
        link.withdraw(0, 0)
        link.raw(0, 0)
        link.withdraw(0, 0)
        link.raw(1, 1)
        host.pass_until(20_000)
        assert len(host.pairs) == 1

    asyncio.run(play())


def test_the_stock_is_asked_for_ahead_with_a_new_seed_each_time() -> None:
    async def play() -> None:
        host, backend = Host(), Fake()
        link = Ahead(FACTS, host, backend, 7)
        for _ in range(600):
            link.raw(0, 0)
            link.raw(1, 0)
            await settle()
            host.pass_until(host.now + 2 * WAIT_PS)
        assert (link.made, link.late) == (600, 0)
        assert backend.seeds == [7, 8, 9]

    asyncio.run(play())


def test_a_backend_that_fails_is_asked_again_and_the_link_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_links, "AGAIN_S", 0.01)

    async def play() -> None:
        host, backend = Host(), Fake(fails=2)
        link = Ahead(FACTS, host, backend, 7)
        link.raw(0, 0)
        link.raw(1, 0)
        await settle()
        assert link.stock.fault == "backend fake: it ended"
        await asyncio.sleep(0.1)
        assert not link.stock.fault
        host.pass_until(WAIT_PS)
        assert link.made == 1
        await link.stock.close()

    asyncio.run(play())


def test_the_job_is_that_of_the_link() -> None:
    job = job_for(FACTS, 3)
    assert job.length_km == pytest.approx(20.0)
    assert job.loss_db_per_km == pytest.approx(0.2)
    assert not door.problem(job)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"success_probability": 0.6}, "success_probability 0.6"),
        ({"photon_ps": 10**8}, "halfway"),
        ({"herald_ps": (10**7, 9 * 10**7)}, "halfway"),
    ],
)
def test_links_that_the_backend_does_not_know_are_refused(change: dict[str, Any], said: str) -> None:
    facts = LinkFacts(**{name: getattr(FACTS, name) for name in FACTS.__struct_fields__} | change)
    opened: list[Ahead] = []
    with pytest.raises(Refused, match=said):
        ahead(Fake(), 1, opened.append)(facts, Host())
    assert not opened
