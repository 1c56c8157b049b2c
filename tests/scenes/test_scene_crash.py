"""Exactly once, whatever is killed: named crash points, failing commits, SIGKILL at random moments.

MULTIPLANE_FULL=1 runs the full forms: every point five times, 200 random kills.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.ledgers import ledgers_close, pools
from tests.scenes.tools.network import FULL, Network, alive, auntil, command_line, descendants, running
from tests.scenes.tools.traffic import Pair, Traffic, replay, settle

pytestmark = [pytest.mark.scene, pytest.mark.timeout(5400 if FULL else 420)]

Saw = Callable[[str, object], None]

SITES = ("alice", "relay", "bob")
PAIRS: list[Pair] = [
    ("alice-1", "bob-1"),
    ("bob-1", "alice-1"),
    ("alice-1", "bob-1"),
    ("relay-1", "bob-1"),
    ("alice-1", "relay-1"),
]
POINTS = [
    "commit.before",
    "commit.after",
    "channel.before_send",
    "channel.after_send",
    "pool.ack.before",
    "pool.ack.after",
    "reconcile.before",
    "reconcile.after",
    "answer.before",
    "answer.after",
]
VISITS = ((3, 5, 7), (1, 2, 4), (11, 13, 17), (30, 20, 25), (2, 60, 40))
RATE = ("--rate", "10")
SPREAD = ("--spread", "per-node", *RATE)
KILLS = 200 if FULL else 30
ROUNDS = 5 if FULL else 1
SETTLE_TIMEOUT_S = 60.0


async def judge(network: Network, book: Book, at_least: int) -> None:
    """The verdicts of every crash scene, on a network at rest."""
    await settle(network, book, SETTLE_TIMEOUT_S)
    await replay(network, book, 50)
    book.verify(at_least=at_least)
    book.verify_settled()
    report = await ledgers_close(network)
    for (owner, peer, side), ledger in pools(report).items():
        if side != "far":
            continue
        pairs = [pair for pair in set(PAIRS) if _sites(network, pair) == (peer, owner)]
        most_bit = sum(book.delivered_bit(*pair)[1] for pair in pairs)
        assert ledger["delivered_bit"] <= most_bit, f"{owner} delivered more than clients got: {ledger}"


def _sites(network: Network, pair: Pair) -> tuple[str, str]:
    master, slave = pair
    return network.saes[master].kme, network.saes[slave].kme


# --- named points -----------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point(point: str, tmp_path: Path, record_property: Saw) -> None:
    for visits in VISITS[:ROUNDS]:
        nths = (1, 1, 1) if point.startswith("reconcile") else visits
        script = ",".join(f"{site}:kill@{point}:{nth}" for site, nth in zip(SITES, nths, strict=True))
        book = Book()
        asyncio.run(_named_point(point, script, tmp_path / f"visits-{'-'.join(map(str, visits))}", book))
        record_property("saw", f"{script}: {book.summary()}")


async def _named_point(point: str, script: str, folder: Path, book: Book) -> None:
    network = Network("lab3", folder, *SPREAD)
    if point.startswith("reconcile"):
        await _make_something_to_reconcile(network, book)
    network.env = {"MULTIPLANE_FAULTS": script}
    try:
        deaths = await _until_all_died(network, book)
        await judge(network, book, at_least=200)
        assert all(deaths[site] for site in SITES), f"{point} killed only {dict(deaths)}\n{network.tail()}"
    except BaseException as error:
        error.add_note(f"faults: {script}; {book.summary()}\n{network.tail()}")
        network.stop(check=False)
        raise
    network.stop()


async def _make_something_to_reconcile(network: Network, book: Book) -> None:
    """Stock, delivered keys and keys left over, then every process gone at once."""
    network.start()
    traffic = Traffic(network, book, PAIRS, workers=4, keep=0.3)
    await traffic.reaches("keys before the crash", 200, 60.0)
    network.kill_all()
    await traffic.stop()


async def _until_all_died(network: Network, book: Book) -> Counter[str]:
    """Start, load, and wait until each site has died at its point and serves again."""
    deaths = DeathWatch(network)
    network.launch()
    watch = asyncio.create_task(deaths.run())
    try:
        await auntil("every KME serves", network.is_ready, 60.0, network.tail)
        traffic = Traffic(network, book, PAIRS, workers=6, keep=0.3)
        await auntil("each site died at its point", deaths.complete, 60.0, deaths.explain)
        for site in SITES:
            await network.serves_again(site, 0)
        await traffic.reaches("keys after the crashes", 300, 60.0)
        await traffic.stop()
    finally:
        watch.cancel()
    return Counter({site: deaths.deaths(site) for site in SITES})


class DeathWatch:
    """Counts the processes that each site has had and lost, also before ready.json first names one.

    A site's process is a child of `up` that has the site's name among its arguments.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.site_of: dict[int, str] = {}

    async def run(self) -> None:
        """Look every few milliseconds until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(0.01)

    def look(self) -> None:
        """One look at the children of `up`; one that is not yet at its own command is left for later."""
        assert self.network.process is not None
        for pid in descendants(self.network.process.pid):
            if pid not in self.site_of and pid != self.network.process.pid:
                named = [site for site in SITES if site in command_line(pid).split()]
                if named:
                    self.site_of[pid] = named[0]

    def deaths(self, site: str) -> int:
        """How many processes `site` has lost."""
        return sum(1 for pid, name in self.site_of.items() if name == site and not alive(pid))

    def complete(self) -> bool:
        """Whether every site has died at least once."""
        return all(self.deaths(site) for site in SITES)

    def explain(self) -> str:
        """For the message of a failure."""
        return (
            f"processes seen {self.site_of}, deaths {[self.deaths(s) for s in SITES]}\n{self.network.tail()}"
        )


# --- commits that fail ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [
        "alice:fail@commit.before:20x2,bob:fail@commit.before:35x3",
        "alice:fail@commit.after:20x1,bob:fail@commit.after:35x1",
        "*:slow@commit.before:0.05",
    ],
    ids=["failing", "unsure", "slow"],
)
def test_commits_that_fail_or_are_slow(rules: str, tmp_path: Path, record_property: Saw) -> None:
    book = Book(faults_are_doubtful="commit.after" in rules)
    with running("lab3", tmp_path, *SPREAD, env={"MULTIPLANE_FAULTS": rules}) as network:
        asyncio.run(_failing_commits(network, book))
    record_property("saw", book.summary())


async def _failing_commits(network: Network, book: Book) -> None:
    traffic = Traffic(network, book, PAIRS, workers=8, keep=0.2)
    await traffic.reaches("keys over failing commits", 400, 120.0)
    await traffic.stop()
    await judge(network, book, at_least=200)
    assert book.counts["enc lost"] == book.counts["in doubt"] == 0, "a failing commit must not end the site"


# --- random kills -----------------------------------------------------------------------------


def test_random_kills_under_load(tmp_path: Path, record_property: Saw) -> None:
    with running("lab3", tmp_path, *SPREAD) as network:
        kills = RandomKills(network, Book())
        asyncio.run(kills.run())
    record_property("saw", kills.summary())
    assert kills.inside * 2 >= kills.kills, kills.summary()
    assert kills.median_rate_per_s >= 100, kills.summary()


class RandomKills:
    """SIGKILL on one side, on both, on the relay, at random moments under load."""

    def __init__(self, network: Network, book: Book) -> None:
        self.network = network
        self.book = book
        self.random = random.Random(200)
        self.kills = 0
        self.inside = 0
        self.by_victims: Counter[str] = Counter()
        self.rates_per_s: list[float] = []

    async def run(self) -> None:
        """All kills, then the verdicts."""
        traffic = Traffic(self.network, self.book, PAIRS, workers=12, keep=0.15)
        await traffic.reaches("first keys", 100, 60.0)
        while self.kills < KILLS:
            await self._moment(traffic)
            await self._kill(traffic)
        await traffic.reaches("keys after the last kill", 200, 60.0)
        await traffic.stop()
        await judge(self.network, self.book, at_least=KILLS * 10)

    @property
    def median_rate_per_s(self) -> float:
        """Requests answered per second in the half second before a kill under load."""
        return sorted(self.rates_per_s)[len(self.rates_per_s) // 2]

    def summary(self) -> str:
        """One line for the report."""
        return (
            f"{self.kills} SIGKILLs {dict(self.by_victims)}, {self.inside} inside an open request, median "
            f"{self.median_rate_per_s:.0f} requests/s before a kill; {self.book.summary()}"
        )

    async def _moment(self, traffic: Traffic) -> None:
        """Under full load mostly; one kill in six while the sites are still coming back."""
        if self.random.random() < 1 / 6:
            await asyncio.sleep(self.random.uniform(0.0, 1.0))
            return
        await traffic.reaches("load before a kill", 60, 60.0)
        await asyncio.sleep(0.5 + self.random.uniform(0.0, 0.5))
        self.rates_per_s.append(traffic.rate_per_s(0.5))

    async def _kill(self, traffic: Traffic) -> None:
        """Kill one victim set at one moment and wait until all of it serves again."""
        victims = self.random.choice((["alice"], ["bob"], ["relay"], ["alice", "bob"], list(SITES)))
        old_pids = {site: self.network.kill(site) for site in victims}
        self.kills += len(victims)
        self.inside += sum(1 for site in victims if self.book.open_at[site])
        self.by_victims["+".join(victims)] += 1
        for site, pid in old_pids.items():
            await self.network.serves_again(site, pid)
        traffic.check()


# --- restarts ---------------------------------------------------------------------------------


def test_a_restart_with_the_same_seed_issues_nothing_again(tmp_path: Path) -> None:
    network, book = Network("lab3", tmp_path, *RATE, "--seed", "7"), Book()
    try:
        issued = [asyncio.run(_one_run(network, book, hard=run == 1)) for run in range(3)]
    except BaseException as error:
        error.add_note(network.tail())
        network.stop(check=False)
        raise
    assert all(count >= 300 for count in issued), issued
    book.verify(at_least=600)


async def _one_run(network: Network, book: Book, *, hard: bool) -> int:
    """One run on the same state: keys of the run before are collected first, then new ones are made."""
    network.start()
    report = await network.acli_json("status")
    assert report["secret"] is False, "a seeded network must say that it is not secret"
    before, started_s = len(book), time.monotonic()
    await settle(network, book, SETTLE_TIMEOUT_S)
    traffic = Traffic(network, book, PAIRS, workers=6, keep=0.3)
    await traffic.reaches(f"keys of this run ({time.monotonic() - started_s:.0f} s in)", 300, 60.0)
    await traffic.stop()
    if hard:
        network.kill_all()
    else:
        network.stop()
    return len(book) - before


def test_a_link_cut_by_two_relay_kills_in_a_row_heals(tmp_path: Path) -> None:
    with running("lab3", tmp_path, *SPREAD) as network:
        asyncio.run(_two_in_a_row(network))


async def _two_in_a_row(network: Network) -> None:
    book = Book()
    traffic = Traffic(network, book, PAIRS, workers=6, keep=0.1)
    await traffic.reaches("first keys", 100, 60.0)
    for _ in range(2):
        pid = network.kill("relay")
        await network.serves_again("relay", pid)
    await traffic.reaches("keys after it", 500, 60.0)
    await traffic.stop()
    await judge(network, book, at_least=400)
