"""No two ends ever hold opposite verdicts: state machines on a network that loses, repeats and reorders."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from multiplane.service.planes.units import Claim, Decision, Ready, Verdicts
from multiplane.service.resource.verdicts import Decider, End, Terms

LEASE = 100
UNTIL = 2_000
HEAL = 3_000
"""From then on nothing is lost and nobody dies: what is promised of a bounded time is counted from here."""
DELAY = (1, 60)


@dataclass
class Site:
    """An end; the first one decides too. What is durable outlives `up`."""

    name: str
    up: bool = True
    boot: int = 1
    end: End | None = None
    decider: Decider | None = None
    parts: dict[str, Claim] = field(default_factory=dict)
    rows: dict[str, Decision] = field(default_factory=dict)
    stored: int = 0
    """When the store has done what it was asked for: it keeps the order."""


class Net:
    """Sites, a clock, messages that arrive late, twice, in another order, or never."""

    def __init__(self, seed: int, sites: int, sizes: tuple[int, ...], whole: bool) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.sites = [Site(f"s{place}") for place in range(sites)]
        self.terms = Terms("u", tuple(site.name for site in self.sites), sizes, whole, UNTIL)
        self.loss = self.random.choice((0.0, 0.1, 0.5))
        self.told: dict[str, set[int]] = {}
        self.sure: dict[tuple[str, str], int] = {}
        for site in self.sites:
            self.rise(site)

    def at(self, due: int, do: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (due, next(self._number), do))

    def run(self, until: int) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _, do = heapq.heappop(self._queue)
            do()
        self.now = until

    def send(self, to: Site, do: Callable[[], None]) -> None:
        """A message: lost while the network ails or nobody is there."""
        for _ in range(self.random.choice((1, 1, 1, 2))):
            if self.now >= HEAL or self.random.random() >= self.loss:
                self.at(self.now + self.random.randint(*DELAY), lambda: do() if to.up else None)

    # --- sites ---------------------------------------------------------------------------------------------

    def rise(self, site: Site) -> None:
        """Begin from what is durable."""
        site.up = True
        first = site is self.sites[0]
        delivered = [row for row in site.rows.values() if row.delivered]
        if first:
            site.decider = Decider(self.terms, site.boot, delivered)
            if self.now >= UNTIL:
                self.tell(site, site.decider.close("expired", ""))
        again = not first and site.boot > 1
        site.end = End("u", site.boot if first else 1, site.boot, site.rows.values(), recall=again)
        for claim in list(site.parts.values()):
            self.claim(site, claim)
        if again:
            self.ask(site)

    def fall(self, site: Site) -> None:
        """Die: memory of the process is gone, and of the qubits perhaps."""
        site.up, site.end, site.decider = False, None, None
        site.boot += 1
        if self.random.random() < 0.5:
            site.parts.clear()
        at = max(self.now + 1, min(HEAL, self.now + self.random.randint(1, 600)))
        self.at(at, lambda: self.rise(site))

    # --- messages ------------------------------------------------------------------------------------------

    def hand_over(self, site: Site, claim: Claim) -> None:
        site.parts[claim.state] = claim
        if site.up:
            self.claim(site, claim)

    def claim(self, site: Site, claim: Claim) -> None:
        assert site.end is not None
        if not site.end.held(claim):
            site.parts.pop(claim.state, None)
            return
        ready = site.end.ready((claim,))
        self.to_decider(site, ready)
        boot = site.boot
        self.at(self.now + LEASE, lambda: self.lease(site, boot))

    def lose(self, site: Site, state: str) -> None:
        if site.parts.pop(state, None) and site.up and site.end is not None:
            self.to_decider(site, site.end.ready((), (state,)))

    def lease(self, site: Site, boot: int) -> None:
        if site.up and site.boot == boot and site.end is not None and site.end.must_ask:
            self.ask(site)

    def ask(self, site: Site) -> None:
        assert site.end is not None
        ready, decider = site.end.question(), self.sites[0]
        boot = site.boot
        self.at(self.now + LEASE, lambda: self.lease(site, boot))

        def asked() -> None:
            assert decider.decider is not None
            self.hear(decider, site.name, ready)
            if decider.decider is None:  # it died of what it heard
                return
            answer = decider.decider.answer(ready)
            self.send(site, lambda: self.heard(site, answer))

        if site is decider:
            asked()
        else:
            self.send(decider, asked)

    def to_decider(self, site: Site, ready: Ready) -> None:
        decider = self.sites[0]
        if site is decider:
            self.hear(decider, site.name, ready)
        else:
            self.send(decider, lambda: self.hear(decider, site.name, ready))

    def hear(self, decider: Site, name: str, ready: Ready) -> None:
        assert decider.decider is not None
        decider.decider.hear(name, ready)
        self.tell(decider, decider.decider.decide(self.now))

    def tell(self, decider: Site, decisions: list[Decision]) -> None:
        """Refusals at once; deliveries once they are durable, which takes a while."""
        delivered = [one for one in decisions if one.delivered]
        self.say(decider, [one for one in decisions if not one.delivered])
        if delivered:
            boot = decider.boot
            decider.stored = max(decider.stored, self.now + self.random.choice((0, 0, 5, 40)))
            self.at(decider.stored, lambda: self.durable(decider, boot, delivered))

    def durable(self, decider: Site, boot: int, delivered: list[Decision]) -> None:
        """A death before that leaves nothing, a death after it leaves the row."""
        if decider.boot != boot or decider.decider is None:
            return
        dies = self.now < HEAL and self.random.random() < 0.1
        if not dies or self.random.random() < 0.5:
            decider.rows.update({one.state: one for one in delivered})
        if dies:
            self.fall(decider)
            return
        decider.decider.settle(delivered)
        self.say(decider, delivered)

    def say(self, decider: Site, decisions: list[Decision]) -> None:
        if decisions:
            word = Verdicts(unit="u", boot=decider.boot, decisions=tuple(decisions))
            self.heard(decider, word)
            for site in self.sites[1:]:
                self.send(site, lambda site=site: self.heard(site, word))  # type: ignore[misc]

    def heard(self, site: Site, verdicts: Verdicts) -> None:
        assert site.end is not None
        again = site.end.outdated(verdicts)
        for one in site.end.heard(verdicts):
            site.rows[one.state] = one
            self.told.setdefault(one.state, set()).add(one.index)
            self.sure[site.name, one.state] = self.now
            if not one.delivered:
                site.parts.pop(one.state, None)
        if again and site.end.doubts:
            self.ask(site)

    def expire(self) -> None:
        decider = self.sites[0]
        if decider.decider is not None:
            self.tell(decider, decider.decider.close("expired", ""))
        for site in self.sites:
            site.parts.clear()


def scene(seed: int) -> Net:
    """A unit of one to three parts among two to four ends, states that come, go and are lost on the way."""
    draw = random.Random(-seed)
    sizes = draw.choice(((1,), (3,), (2, 1), (0,)))
    whole = len(sizes) > 1
    net = Net(seed, draw.randint(2, 4), sizes, whole)
    number = itertools.count()
    for part, size in enumerate(sizes):
        for _ in range(size + draw.randint(0, 3)):
            name, made = f"{part}-{next(number)}", draw.randint(1, UNTIL)
            expires = min(UNTIL, made + draw.randint(50, 1500))
            claim = Claim(part=part, state=name, expires_ns=expires)
            for site in net.sites:
                if draw.random() < 0.93:
                    net.at(made + draw.randint(0, 20), lambda s=site, c=claim: net.hand_over(s, c))  # type: ignore[misc]
                if draw.random() < 0.1:
                    net.at(draw.randint(made, expires), lambda s=site, n=name: net.lose(s, n))  # type: ignore[misc]
    for _ in range(draw.randint(0, 4)):
        site = draw.choice(net.sites)
        net.at(draw.randint(1, HEAL - 1), lambda s=site: net.fall(s) if s.up else None)  # type: ignore[misc]
    net.at(UNTIL, net.expire)
    return net


def check(net: Net) -> None:
    """What must hold at the end of each scene."""
    for state, verdicts in net.told.items():
        assert len(verdicts) == 1, f"{state}: opposite verdicts {verdicts}"
    rows = [site.rows for site in net.sites]
    for state in {name for row in rows for name in row}:
        assert len({row[state].index for row in rows if state in row}) == 1, state
    delivered = {name: row[name] for row in rows for name in row if row[name].delivered}
    per_part = Counter(one.part for one in delivered.values())
    for part, size in enumerate(net.terms.sizes):
        assert not size or per_part[part] <= size
        indices = sorted(one.index for one in delivered.values() if one.part == part)
        assert indices == list(range(len(indices))), "an index is given once, without gaps"
    if net.terms.whole and delivered:
        assert [per_part[part] for part in range(len(net.terms.sizes))] == list(net.terms.sizes)
    for site in net.sites:
        assert site.end is not None
        assert not site.end.doubts, "an end has no verdict one lease after all is well again"
        assert not site.parts or all(name in site.rows for name in site.parts)
        for name in delivered:
            assert name in site.rows, "an end does not know what was delivered"


@pytest.mark.parametrize("block", range(10))
def test_no_opposite_verdicts_and_one_verdict_in_time_in_3000_interleavings(block: int) -> None:
    delivered = refused = 0
    for seed in range(300 * block, 300 * (block + 1)):
        net = scene(seed)
        net.run(HEAL + LEASE + 4 * DELAY[1])
        check(net)
        delivered += sum(row.delivered for row in net.sites[0].rows.values())
        refused += sum(not row.delivered for row in net.sites[0].rows.values())
    assert delivered > 100, "the scenes are so cruel that nothing is ever delivered"
    assert refused > 100, "the scenes are so kind that nothing is ever refused"
