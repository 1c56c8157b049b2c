"""How the ends of a unit agree on each of its states. Pure: two state machines, no time and no messages.

The fabric hands a state over at each end by itself; one end may hold a part whose others were lost. So each
end says *ready* to the agent of whoever asked for the unit, the decider, and that one gives the verdict: all
ends have it (with its index), or nobody has. A state is delivered only when all ends have claimed it to this
incarnation of the decider, and the verdict is durable before anybody is told. Refusals are not kept: what was
never decided is not delivered (presumed abort). An end that said ready decides nothing by itself: it asks.

Why no two verdicts are ever opposite: a refusal is final in the decider's memory; when that is lost with
the process, its next incarnation counts only claims made to itself, and an end that was told *refused* makes
none. An end that died may have lost what it claimed: claims of an earlier incarnation of an end are void.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from multiplane.service.planes.units import Claim, Decision, Ready, Verdicts

FOR_EVER_NS: Final = 2**62


class Terms(NamedTuple):
    """What a decider works by.

    Args:
        unit: digest; ends: sites of all its ends; sizes: states of each part, 0 = as many as come.
        whole: a pack, delivered when all parts are complete, or not at all.
        until_ns: nothing is decided for delivery after it.
        slack_ns: that a state must live on when it is decided upon.
        outlive_ns: a state that ends before it is of no use, 0 = does not apply.
    """

    unit: str
    ends: tuple[str, ...]
    sizes: tuple[int, ...]
    whole: bool
    until_ns: int
    slack_ns: int = 0
    outlive_ns: int = 0


_State = tuple[int, str]


class Decider:
    """The side that decides, at the agent of whoever asked.

    Args:
        boot: its incarnation.
        delivered: what was decided before this start and is durable.
    """

    def __init__(self, terms: Terms, boot: int, delivered: Iterable[Decision] = ()) -> None:
        self.terms, self.boot = terms, boot
        self.closed = False
        self.state = self.reason = ""
        self._claims: dict[_State, dict[str, int]] = {}
        self._decided: dict[_State, Decision] = {(one.part, one.state): one for one in delivered}
        self._pending: dict[_State, Decision] = {}
        self._next = [0] * len(terms.sizes)
        self._incarnations: dict[str, int] = {}
        self._sure: set[_State] = set()
        for one in self._decided.values():
            self._next[one.part] = max(self._next[one.part], one.index + 1)

    def hear(self, site: str, ready: Ready) -> None:
        """An end's claims and what it holds no more; said to or by an earlier incarnation they are void."""
        known = self._incarnations.get(site, 0)
        if site not in self.terms.ends or ready.incarnation < known:
            return
        if ready.incarnation > known:
            self._incarnations[site] = ready.incarnation
            for key, claims in self._claims.items():
                if site in claims and key not in self._sure:
                    claims[site] = 0
        if ready.boot != self.boot:
            return
        for claim in ready.claims:
            key = claim.part, claim.state
            judged = key in self._decided or key in self._pending
            if not judged and 0 <= claim.part < len(self._next):
                self._claims.setdefault(key, {})[site] = claim.expires_ns
        for name in ready.gone:
            for key in [key for key in self._claims if key[1] == name]:
                self._claims[key][site] = 0

    def hear_all(self, claims: Collection[Claim]) -> None:
        """All ends have these, whoever dies: keys that were issued."""
        self._sure |= {(claim.part, claim.state) for claim in claims}
        for claim in claims:
            self._claims[claim.part, claim.state] = dict.fromkeys(self.terms.ends, claim.expires_ns)

    def fail(self, lasting: Iterable[Decision]) -> list[Decision]:
        """A commit failed: of what was pending only `lasting` turned out to be durable. The others are
        refused."""
        self.settle(lasting)
        return [self._refuse(key) for key in [*self._pending] if self._pending.pop(key)]

    def decide(self, now_ns: int) -> list[Decision]:
        """Verdicts that are due: refusals hold at once, deliveries once `settle` says they are durable."""
        refused = [self._refuse(key) for key in list(self._claims) if self._hopeless(key, now_ns)]
        if self.closed:
            return refused
        ready = [key for key, claims in self._claims.items() if len(claims) == len(self.terms.ends)]
        if self.terms.whole and not self._complete(ready):
            return refused
        delivered = []
        for part, name in ready:
            if self.missing(part):
                delivered.append(Decision(part=part, state=name, index=self._next[part]))
                self._next[part] += 1
                self._pending[part, name] = delivered[-1]
                del self._claims[part, name]
        full = [key for key in list(self._claims) if not self.missing(key[0])]
        return [*refused, *delivered, *map(self._refuse, full)]

    def settle(self, decisions: Iterable[Decision]) -> None:
        """These deliveries are durable."""
        for one in decisions:
            if self._pending.pop((one.part, one.state), None) is not None:
                self._decided[one.part, one.state] = one

    def close(self, state: str, reason: str) -> list[Decision]:
        """No more is delivered: refusals for all that was claimed in vain. What is pending stays so."""
        if not self.closed:
            self.closed, self.state, self.reason = True, state, reason
        return [self._refuse(key) for key in list(self._claims)]

    def answer(self, ready: Ready) -> Verdicts:
        """What is known of the states that an end names, of all that were delivered if it asks for them.

        A closed unit knows of each state that is named: those that it never heard of are refused.
        """
        named = [(claim.part, claim.state) for claim in ready.claims]
        over = self.closed and not self._pending
        if over:
            for key in named:
                if key not in self._decided:
                    self._refuse(key)
        told = tuple(self._decided[key] for key in dict.fromkeys(named) if key in self._decided)
        if ready.recall:
            told += tuple(one for key, one in self._decided.items() if one.delivered and key not in named)
        return Verdicts(
            unit=self.terms.unit,
            boot=self.boot,
            decisions=told,
            recalled=ready.recall,
            closed=over,
            state=self.state if over else "",
            reason=self.reason if over else "",
        )

    def claimants(self) -> set[str]:
        """Sites that wait for a verdict."""
        return {site for claims in self._claims.values() for site in claims}

    def missing(self, part: int) -> int:
        """States that a part still lacks; for a part without end always 1."""
        size = self.terms.sizes[part]
        return size - self._next[part] if size else 1

    @property
    def complete(self) -> bool:
        """Whether all that was wished for is delivered and durable."""
        return not self._pending and all(
            size and not self.missing(part) for part, size in enumerate(self.terms.sizes)
        )

    def next_due_ns(self) -> int:
        """When to look again though nobody says anything: the first claimed state that ends."""
        ends = (min(claims.values()) for claims in self._claims.values())
        return min((end_ns - self.terms.slack_ns for end_ns in ends), default=FOR_EVER_NS)

    def _hopeless(self, key: _State, now_ns: int) -> bool:
        least_ns = min(self._claims[key].values())
        if self.closed or now_ns >= self.terms.until_ns:
            return True
        return least_ns - self.terms.slack_ns <= now_ns or least_ns < self.terms.outlive_ns

    def _complete(self, ready: Sequence[_State]) -> bool:
        """Whether a pack can be delivered now, whole."""
        counts = [0] * len(self.terms.sizes)
        for part, _ in ready:
            counts[part] += 1
        return all(count >= self.missing(part) for part, count in enumerate(counts))

    def _refuse(self, key: _State) -> Decision:
        self._claims.pop(key, None)
        self._decided[key] = Decision(part=key[0], state=key[1], index=-1)
        return self._decided[key]


class End:
    """One end's side: what it waits to hear of, and what it has heard.

    Args:
        boot: of the decider, as it was proposed; incarnation: of this end.
        final: verdicts that were durable here before this start.
        recall: whether there was such a start: verdicts may have come while nobody listened.
    """

    def __init__(
        self, unit: str, boot: int, incarnation: int, final: Iterable[Decision] = (), *, recall: bool = False
    ) -> None:
        self.unit, self.boot, self.incarnation = unit, boot, incarnation
        self.closed = False
        self._recall = recall
        self._doubts: dict[str, Claim] = {}
        self._final = {one.state: one for one in final}

    @property
    def final(self) -> dict[str, Decision]:
        """Verdicts by name of state."""
        return self._final

    @property
    def doubts(self) -> tuple[Claim, ...]:
        """States that this end said ready for and has no verdict on."""
        return tuple(self._doubts.values())

    @property
    def must_ask(self) -> bool:
        """Whether a lease after the last word it has to ask."""
        return self._recall or bool(self._doubts)

    def held(self, claim: Claim) -> bool:
        """The fabric has handed a part over: whether to say ready. One that was judged already is not."""
        if claim.state in self._final or self.closed:
            return False
        self._doubts[claim.state] = claim
        return True

    def ready(self, claims: tuple[Claim, ...], gone: tuple[str, ...] = ()) -> Ready:
        """What to tell the decider."""
        return Ready(unit=self.unit, boot=self.boot, incarnation=self.incarnation, claims=claims, gone=gone)

    def question(self) -> Ready:
        """What to ask the decider."""
        return Ready(
            unit=self.unit,
            boot=self.boot,
            incarnation=self.incarnation,
            claims=self.doubts,
            recall=self._recall,
        )

    def heard(self, verdicts: Verdicts) -> list[Decision]:
        """The decider's word: the verdicts that are news here, to be made durable.

        A word of an earlier incarnation still holds: what was told was durable, and refused is refused.
        """
        news = [one for one in verdicts.decisions if one.state not in self._final]
        self.closed = self.closed or verdicts.closed
        self._recall = self._recall and not verdicts.recalled
        for one in news:
            self._final[one.state] = one
            self._doubts.pop(one.state, None)
        return news

    def outdated(self, verdicts: Verdicts) -> bool:
        """Whether the decider is another than the one that was said ready to: all is to be said again."""
        if verdicts.boot <= self.boot:
            return False
        self.boot = verdicts.boot
        return bool(self._doubts)
