"""What if: copies of a running network under the jump clock, changed, with demands on them.

A copy is a study: the same strata, the same twin, virtual time. The running network is only asked.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from multiplane.api.north import KeyRequest
from multiplane.assembly.fork_demand import KEY_BIT, Demand, Drawn, Issue, draw
from multiplane.assembly.fork_state import Moment, begin, break_links, rules_of, surplus_bit, world_of
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Ends, Noun
from multiplane.kernel.quantity import s_from_ns
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World

LEAST_USE_BIT_PER_S: Final = 1.0
"""Measured use below it is no demand."""
_LOOK_S: Final = 1.0
_OPENING_TRIES: Final = 5


class WhatIf(Noun, frozen=True, kw_only=True):
    """The question.

    Args:
        without_links: spans that are cut at the beginning.
        without_sites: sites all of whose spans are cut, and that nobody asks for key.
        demands: on top of what is measured.
        measured: whether the use that was measured goes on.
        poisson: whether requests come at random times; otherwise at equal ones.
        for_s: how long to look ahead, > 0.
        seed: of the first copy, and of its random times; each further copy has the next one.
        copies: how many futures are lived, >= 1: where chance plays a part, they tell its spread.
    """

    without_links: tuple[Ends, ...] = ()
    without_sites: tuple[str, ...] = ()
    demands: tuple[Demand, ...] = ()
    measured: bool = True
    poisson: bool = False
    for_s: float = 7200.0
    seed: int = 1
    copies: int = 1


class PairForecast(Noun, frozen=True, kw_only=True):
    """One stock from `owner` to `peer` over the time that was looked ahead; means over all copies.

    Args:
        dry_after_s: when its first request was refused after one that was granted, on average over the copies
            in which one was; None = in no copy.
        dry_sd_s: standard deviation of `dry_after_s` from copy to copy, which is that of a single future;
            None when fewer than two copies ran dry.
        dry_copies: how many copies ran dry.
        refill_bit_per_s: key that came into it, on average.
        refused: requests answered 503; reason: the last such code.
    """

    owner: str
    peer: str
    demand_bit_per_s: float
    stock_bit: int
    stock_end_bit: int
    dry_after_s: float | None
    dry_sd_s: float | None = None
    dry_copies: int
    refill_bit_per_s: float
    served_bit: int
    refused: int
    reason: str = ""


class Forecast(Noun, frozen=True, kw_only=True):
    """The answer of `copies`. Each ends early when every demand has run dry, the last after `looked_s`."""

    scenario: str
    at_ns: int
    looked_s: float
    copies: int = 1
    pairs: tuple[PairForecast, ...]


def fork(moment: Moment, question: WhatIf, policies: Policies = POLICIES) -> Forecast:
    """Copy, change, run ahead; one copy after the other.

    Args: policies: what names in its scenario stand for.
    Raises: Refused(`scenario.unknown_link`, `input.site`, `input.demand`).
    """
    world = world_of(moment, policies)
    _check(world, question)
    demands = _demands(moment, question)

    def copy(seed: int) -> Forecast:
        async def workload(study: Study) -> Forecast:
            await begin(study, moment)
            return await _ahead(study, moment, question, demands, seed)

        return run_study(world, seed, workload, rules=rules_of(moment), epoch_ns=moment.at_ns)

    return _together([copy(question.seed + number) for number in range(question.copies)])


def _check(world: World, question: WhatIf) -> None:
    links, sites = {span.id for span in world.spans}, {site.name for site in world.sites}
    serving = {site.name for site in world.sites if site.saes}
    for link in question.without_links:
        name = link_id(*link.sites)
        if name not in links:
            known = ", ".join(sorted(links)[:20])
            raise Refused("scenario.unknown_link", f"--without-link {name}: expected one of {known}")
    for site in question.without_sites:
        if site not in sites:
            known = ", ".join(sorted(sites)[:20])
            raise Refused("input.site", f"--without-site {site}: expected one of {known}")
    for demand in question.demands:
        if not {demand.owner, demand.peer} <= serving or demand.owner == demand.peer:
            reason = f"--demand {demand.owner} {demand.peer}: expected applications at two different sites"
            raise Refused("input.demand", reason)


def _demands(moment: Moment, question: WhatIf) -> tuple[Demand, ...]:
    """What is asked of each stock, measured and added; nothing at sites that are gone."""
    rates: dict[tuple[str, str], float] = {}
    if question.measured:
        rates = {(stock.owner, stock.peer): stock.use_bit_per_s for stock in moment.stocks}
    for demand in question.demands:
        pair = demand.owner, demand.peer
        rates[pair] = rates.get(pair, 0.0) + demand.rate_bit_per_s
    return tuple(
        Demand(owner=owner, peer=peer, rate_bit_per_s=rate_bit_per_s)
        for (owner, peer), rate_bit_per_s in sorted(rates.items())
        if rate_bit_per_s >= LEAST_USE_BIT_PER_S and not {owner, peer} & set(question.without_sites)
    )


def issue_in(study: Study) -> Issue:
    """Issues keys of 256 bits to the first application of one site, for the first of the other."""
    first = {site.name: site.saes[0] for site in study.world.sites if site.saes}

    async def issue(owner: str, peer: str, number: int) -> None:
        request = KeyRequest(peer=first[peer], size_bit=KEY_BIT, number=number)
        await study.north(owner).issue_keys(study.caller(first[owner]), request)

    return issue


async def _ahead(
    study: Study, moment: Moment, question: WhatIf, demands: Iterable[Demand], seed: int
) -> Forecast:
    """One future, in a study that stands where the network stood."""
    issue = issue_in(study)
    await asyncio.gather(
        *(_give_out(issue, stock.owner, stock.peer, surplus_bit(stock) // KEY_BIT) for stock in moment.stocks)
    )
    await break_links(study, moment)
    for link in _gone(study.world, question):
        await study.scenario.cut(study.centre.caller, link)
    before = _stocks(study)
    poisson_seed = seed if question.poisson else None
    drawn = await run_demands(study, demands, for_s=question.for_s, poisson_seed=poisson_seed)
    after = _stocks(study)
    looked_s = s_from_ns(study.clock.now_ns() - drawn.begun_ns)
    pairs = {(demand.owner, demand.peer): demand for demand in demands}
    names = sorted(pair for pair in {*before, *after, *pairs} if not set(pair) & set(question.without_sites))
    forecasts = []
    for owner, peer in names:
        demand, became = pairs.get((owner, peer)), drawn.of.get((owner, peer), Drawn())
        made_bit, stock_bit = before.get((owner, peer), (0, 0))
        made_end_bit, stock_end_bit = after.get((owner, peer), (0, 0))
        forecasts.append(
            PairForecast(
                owner=owner,
                peer=peer,
                demand_bit_per_s=demand.rate_bit_per_s if demand else 0.0,
                stock_bit=stock_bit,
                stock_end_bit=stock_end_bit,
                dry_after_s=None if became.dry_ns is None else s_from_ns(became.dry_ns),
                dry_copies=int(became.dry_ns is not None),
                refill_bit_per_s=(made_end_bit - made_bit) / looked_s,
                served_bit=became.served_bit,
                refused=became.refused,
                reason=became.code,
            )
        )
    return Forecast(scenario=study.world.name, at_ns=moment.at_ns, looked_s=looked_s, pairs=tuple(forecasts))


def _together(futures: Sequence[Forecast]) -> Forecast:
    """What several futures say on the whole."""
    stocks: dict[tuple[str, str], list[PairForecast]] = {}
    for pair in (pair for future in futures for pair in future.pairs):
        stocks.setdefault((pair.owner, pair.peer), []).append(pair)
    return Forecast(
        scenario=futures[0].scenario,
        at_ns=futures[0].at_ns,
        looked_s=max(future.looked_s for future in futures),
        copies=len(futures),
        pairs=tuple(_mean(same) for same in stocks.values()),
    )


def _mean(same: Sequence[PairForecast]) -> PairForecast:
    """One stock in several futures."""
    dry_s = [one.dry_after_s for one in same if one.dry_after_s is not None]
    return msgspec.structs.replace(
        same[0],
        stock_end_bit=round(statistics.fmean(one.stock_end_bit for one in same)),
        dry_after_s=statistics.fmean(dry_s) if dry_s else None,
        dry_sd_s=statistics.stdev(dry_s) if len(dry_s) > 1 else None,
        dry_copies=len(dry_s),
        refill_bit_per_s=statistics.fmean(one.refill_bit_per_s for one in same),
        served_bit=round(statistics.fmean(one.served_bit for one in same)),
        refused=round(statistics.fmean(one.refused for one in same)),
        reason=next((one.reason for one in reversed(same) if one.reason), ""),
    )


async def _give_out(issue: Issue, owner: str, peer: str, number: int) -> None:
    """Give out what the blocks hold beyond the stock, which opens its unit; or leave it as it is."""
    for _ in range(_OPENING_TRIES):
        with suppress(Busy):
            await issue(owner, peer, max(1, number))
            return


def _gone(world: World, question: WhatIf) -> list[Ends]:
    """The spans to cut."""
    named = {link_id(*link.sites) for link in question.without_links}
    return [
        Ends(sites=span.sites)
        for span in world.spans
        if span.id in named or set(span.sites) & set(question.without_sites)
    ]


def _stocks(study: Study) -> dict[tuple[str, str], tuple[int, int]]:
    """(made, stock) of each stock between two sites, in bits."""
    found = {}
    for name, site in study.sites.items():
        ledgers = site.key_manager.ledgers() if site.key_manager is not None else []
        for ledger in ledgers:
            if ledger.side == "near" and ledger.peer != name:
                found[name, ledger.peer] = (ledger.made_bit, ledger.stock_bit)
    return found


class AllDrawn(Noun, frozen=True, kw_only=True):
    """What became of all demands, by owner and peer, and when they began."""

    begun_ns: int
    of: dict[tuple[str, str], Drawn]


async def run_demands(
    study: Study, demands: Iterable[Demand], *, for_s: float, poisson_seed: int | None
) -> AllDrawn:
    """Run demands side by side for `for_s`, or until all have run dry."""
    all_drawn = AllDrawn(begun_ns=study.clock.now_ns(), of={})
    issue, tasks = issue_in(study), []
    for demand in demands:
        pair = demand.owner, demand.peer
        drawn = all_drawn.of[pair] = Drawn()
        chance = None if poisson_seed is None else random.Random(f"{poisson_seed}/{pair}")  # noqa: S311
        tasks.append(asyncio.ensure_future(draw(study.clock, issue, demand, drawn, chance=chance)))
    end_ns = all_drawn.begun_ns + round(for_s * 1e9)
    try:
        while study.clock.now_ns() < end_ns and study.failure is None:
            if tasks and all(one.dry_ns is not None for one in all_drawn.of.values()):
                break
            await asyncio.sleep(min(_LOOK_S, s_from_ns(end_ns - study.clock.now_ns())))
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return all_drawn
