"""What if: a copy begins where the original stood, and dries out when the original does."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import pytest
from tests.unit.assembly.test_assembly_desk import desk_of

from multiplane.assembly.fork import Forecast, PairForecast, WhatIf, fork, issue_in, run_demands
from multiplane.assembly.fork_demand import ASK_EVERY_S, KEY_BIT, Demand, Drawn
from multiplane.assembly.fork_state import Moment, StockNow, moment_of, world_of
from multiplane.assembly.sim.summary import student_quantile
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import ends
from multiplane.twin.scenario import World, load_shipped, parse

SLOW_WORLD = """
format = "multiplane-scenario/1"
name = "slow"
domain = "slow"
site = [{name = "a"}, {name = "m"}, {name = "b"}]

[defaults]
profile = "constant-rate"

[[link]]
a = "a"
b = "m"
length_km = 10
loss_db = 2
rate_bit_per_s = 4e5

[[link]]
a = "m"
b = "b"
length_km = 10
loss_db = 2
rate_bit_per_s = 2e5
"""


def slow_world() -> World:
    """A chain of three sites whose links make 400 and 200 kbit/s."""
    return parse(SLOW_WORLD, "slow.toml")


Pair = tuple[str, str]


async def opened(study: Study, pairs: Sequence[Pair], rest_s: float, spend: dict[Pair, int]) -> Moment:
    """Open pairs, let stocks and links fill for `rest_s`, spend so many keys of each, and look."""
    issue = issue_in(study)

    async def once(owner: str, peer: str, number: int) -> None:
        for _ in range(60):
            with suppress(Busy):
                return await issue(owner, peer, number)
            await asyncio.sleep(1.0)
        raise AssertionError

    await asyncio.gather(*(once(*pair, 1) for pair in pairs))
    await asyncio.sleep(rest_s)
    for pair, number in spend.items():
        await once(*pair, number)
    return await look(study)


async def look(study: Study) -> Moment:
    """The state of a study now."""
    desk = desk_of(study, {name: site.kme for name, site in study.sites.items()})
    return moment_of(await desk.moment(study.centre.caller))


def lived(
    world: World,
    pairs: Sequence[Pair],
    demands: Sequence[Demand],
    *,
    rest_s: float,
    for_s: float,
    **more: object,
) -> tuple[Moment, dict[Pair, Drawn]]:
    """A network of another seed: its state before the demands, and what then happened to them."""
    spend, poisson_seed, cut = more.get("spend", {}), more.get("poisson_seed"), more.get("cut")
    assert isinstance(spend, dict)
    assert poisson_seed is None or isinstance(poisson_seed, int)

    async def workload(study: Study) -> tuple[Moment, dict[Pair, Drawn]]:
        moment = await opened(study, pairs, rest_s, spend)
        if isinstance(cut, tuple):
            await study.scenario.cut(study.centre.caller, ends(*cut))
        drawn = await run_demands(study, demands, for_s=for_s, poisson_seed=poisson_seed)
        return moment, drawn.of

    return run_study(world, 4711, workload)


def pair_of(forecast: Forecast, owner: str, peer: str) -> PairForecast:
    """The row of one stock."""
    return next(pair for pair in forecast.pairs if (pair.owner, pair.peer) == (owner, peer))


def check(forecast: Forecast, happened: dict[Pair, Drawn]) -> int:
    """Each pair runs dry within 5 % of when it did, or in neither; how many did."""
    dry = 0
    for (owner, peer), drawn in happened.items():
        foreseen = pair_of(forecast, owner, peer)
        if drawn.dry_ns is None:
            assert foreseen.dry_after_s is None, (owner, peer)
        else:
            dry += 1
            assert foreseen.dry_after_s == pytest.approx(drawn.dry_ns / 1e9, rel=0.05), (owner, peer)
    return dry


def test_a_copy_runs_dry_when_the_original_does() -> None:
    demands = (
        Demand(owner="a", peer="b", rate_bit_per_s=3e5),
        Demand(owner="b", peer="a", rate_bit_per_s=1e5),
        Demand(owner="m", peer="b", rate_bit_per_s=1.5e5),
    )
    pairs = [("a", "b"), ("b", "a"), ("m", "b")]
    spend = {("a", "b"): 90, ("b", "a"): 33}
    moment, happened = lived(slow_world(), pairs, demands, rest_s=45.0, for_s=60.0, spend=spend)
    forecast = fork(moment, WhatIf(demands=demands, measured=False, for_s=60.0))
    assert check(forecast, happened) >= 2
    assert pair_of(forecast, "b", "a").stock_bit == pytest.approx(
        next(stock.stock_bit for stock in moment.stocks if stock.owner == "b"), abs=2 * KEY_BIT
    )


def copied_in_the_middle(world: World, demands: Sequence[Demand], rest_s: float, at_s: float) -> Moment:
    """Copy a network `at_s` after its demands began: the stocks of both run dry within 5 % of one another."""
    pairs = [(demand.owner, demand.peer) for demand in demands]

    async def workload(study: Study) -> tuple[Moment, dict[Pair, Drawn]]:
        await opened(study, pairs, rest_s, {})
        drawn = asyncio.ensure_future(run_demands(study, demands, for_s=60.0, poisson_seed=None))
        await asyncio.sleep(at_s)
        return await look(study), (await drawn).of

    moment, happened = run_study(world, 5, workload)
    forecast = fork(moment, WhatIf(demands=tuple(demands), measured=False, for_s=60.0))
    for pair, drawn in happened.items():
        assert drawn.dry_ns is not None
        left_s = drawn.dry_ns / 1e9 - at_s
        assert left_s > 2.0
        assert pair_of(forecast, *pair).dry_after_s == pytest.approx(left_s, rel=0.05), pair
    return moment


@pytest.mark.parametrize("at_s", [1.0, 8.0, 14.0])
def test_a_copy_of_stocks_that_contend_goes_on_where_they_stand(at_s: float) -> None:
    demands = (
        Demand(owner="a", peer="b", rate_bit_per_s=1e5),
        Demand(owner="m", peer="b", rate_bit_per_s=7.5e4),
    )
    moment = copied_in_the_middle(slow_world(), demands, 22.0, at_s)
    flights = [stock.flight for stock in moment.stocks]
    assert all(flight is not None for flight in flights)
    assert any(flight is not None and flight.blocks for flight in flights) == (at_s > 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("at_s", [10.0, 15.0])
def test_blocks_that_wait_on_their_way_may_pay_the_first_link_again(at_s: float) -> None:
    """The stock of the site in the middle shares the first link with blocks that wait for the second."""
    slower = parse(SLOW_WORLD.replace("4e5", "1.5e5").replace("2e5", "1e5"), "slower.toml")
    demands = (
        Demand(owner="a", peer="b", rate_bit_per_s=1.2e5),
        Demand(owner="a", peer="m", rate_bit_per_s=6e4),
    )
    moment = copied_in_the_middle(slower, demands, 40.0, at_s)
    assert any(stock.flight is not None and stock.flight.blocks for stock in moment.stocks)


def test_a_cut_leaves_what_is_in_stock() -> None:
    demands = (Demand(owner="a", peer="b", rate_bit_per_s=5e4),)
    moment, happened = lived(slow_world(), [("a", "b")], demands, rest_s=45.0, for_s=60.0, cut=("a", "m"))
    question = WhatIf(demands=demands, without_links=(ends("m", "a"),), measured=False, for_s=60.0)
    forecast = fork(moment, question)
    assert check(forecast, happened) == 1
    stock_bit = moment.stocks[0].stock_bit
    assert pair_of(forecast, "a", "b").dry_after_s == pytest.approx(stock_bit / 5e4, rel=0.15)
    assert pair_of(forecast, "a", "b").reason == "key.route_lost"
    without = fork(moment, WhatIf(demands=demands, without_sites=("m",), measured=False, for_s=60.0))
    assert pair_of(without, "a", "b").dry_after_s == pytest.approx(stock_bit / 5e4, rel=0.15)


@pytest.mark.parametrize("kind", ["cut", "device"])
def test_what_is_broken_in_the_original_is_broken_in_the_copy(kind: str) -> None:
    async def workload(study: Study) -> Moment:
        await opened(study, [("a", "b")], 45.0, {})
        if kind == "cut":
            await study.scenario.cut(study.centre.caller, ends("a", "m"))
        else:
            await study.scenario.fail_device(study.centre.caller, ends("a", "m"), "m")
        await asyncio.sleep(5.0)
        return await look(study)

    moment = run_study(slow_world(), 4711, workload)
    demands = (Demand(owner="a", peer="b", rate_bit_per_s=5e4),)
    dry = pair_of(fork(moment, WhatIf(demands=demands, measured=False, for_s=60.0)), "a", "b")
    assert dry.dry_after_s == pytest.approx(moment.stocks[0].stock_bit / 5e4, rel=0.15)
    assert dry.refill_bit_per_s == 0


def test_measured_use_goes_on_unless_told_otherwise() -> None:
    moment, _ = lived(slow_world(), [("a", "b")], (), rest_s=5.0, for_s=1.0)
    stock = moment.stocks[0]
    used = StockNow(owner=stock.owner, peer=stock.peer, stock_bit=stock.stock_bit, use_bit_per_s=5e4)
    moment = Moment(scenario=moment.scenario, at_ns=moment.at_ns, stocks=(used,), links=moment.links)
    with_use = pair_of(fork(moment, WhatIf(for_s=5.0)), "a", "b")
    assert with_use.demand_bit_per_s == 5e4
    assert with_use.served_bit == pytest.approx(2.5e5, rel=0.1)
    without = pair_of(fork(moment, WhatIf(for_s=5.0, measured=False)), "a", "b")
    assert without.served_bit == 0


def test_the_copy_has_the_rates_that_the_links_show() -> None:
    moment, _ = lived(slow_world(), [("a", "b")], (), rest_s=5.0, for_s=1.0)
    world = world_of(moment)
    assert [span.rate_bit_per_s for span in world.spans] == pytest.approx([4e5, 2e5])
    shown = [
        type(link)(
            **{**{name: getattr(link, name) for name in link.__struct_fields__}, "rate_bit_per_s": 1e5}
        )
        for link in moment.links
    ]
    slower = Moment(scenario=moment.scenario, at_ns=moment.at_ns, stocks=moment.stocks, links=tuple(shown))
    assert [span.rate_bit_per_s for span in world_of(slower).spans] == pytest.approx([1e5, 1e5])


@pytest.mark.parametrize(
    ("question", "code", "says"),
    [
        (
            WhatIf(without_links=(ends("a", "b"),)),
            "scenario.unknown_link",
            "a--b: expected one of a--m, b--m",
        ),
        (WhatIf(without_sites=("zz",)), "input.site", "zz: expected one of a, b, m"),
        (WhatIf(demands=(Demand(owner="a", peer="zz", rate_bit_per_s=1e3),)), "input.demand", "a zz"),
        (WhatIf(demands=(Demand(owner="a", peer="a", rate_bit_per_s=1e3),)), "input.demand", "a a"),
    ],
)
def test_impossible_questions_are_refused_by_name(question: WhatIf, code: str, says: str) -> None:
    moment = Moment(scenario=SLOW_WORLD, at_ns=1, stocks=(), links=())
    with pytest.raises(Refused) as refused:
        fork(moment, question)
    assert refused.value.code == code
    assert says in refused.value.reason


@pytest.mark.slow
def test_madqci_runs_dry_as_foreseen() -> None:
    pairs = [
        *(("concepcion", "quijano"), ("distrito", "quinto"), ("quinto", "distrito")),
        *(("quintin", "quiron"), ("quevedo", "concepcion")),
    ]
    rates = (1.98e6, 1.98e6, 2.38e6, 2.09e6, 1.0e6)
    demands = [
        Demand(owner=owner, peer=peer, rate_bit_per_s=rate)
        for (owner, peer), rate in zip(pairs, rates, strict=True)
    ]
    spend = {pair: 17 * place + 5 for place, pair in enumerate(pairs)}
    moment, happened = lived(load_shipped("madqci"), pairs, demands, rest_s=15.0, for_s=10.0, spend=spend)
    forecast = fork(moment, WhatIf(demands=tuple(demands), measured=False, for_s=10.0))
    assert check(forecast, happened) >= 3


def test_a_copy_given_the_same_random_times_runs_dry_with_the_original() -> None:
    demands = (
        Demand(owner="a", peer="b", rate_bit_per_s=3e5),
        Demand(owner="m", peer="b", rate_bit_per_s=1.5e5),
    )
    pairs = [("a", "b"), ("m", "b")]
    moment, happened = lived(slow_world(), pairs, demands, rest_s=45.0, for_s=60.0, poisson_seed=3)
    question = WhatIf(demands=demands, measured=False, poisson=True, for_s=60.0, seed=3)
    assert check(fork(moment, question), happened) == 2


def test_copies_tell_mean_and_spread_of_one_future() -> None:
    """Without refill the stock ends with its n-th request: the n-th arrival is gamma-distributed."""
    demands = (Demand(owner="a", peer="b", rate_bit_per_s=1e5),)
    moment, _ = lived(slow_world(), [("a", "b")], (), rest_s=45.0, for_s=1.0)
    question = WhatIf(
        demands=demands,
        without_sites=("m",),
        measured=False,
        poisson=True,
        for_s=60.0,
        copies=12,
    )
    forecast = fork(moment, question)
    foreseen = pair_of(forecast, "a", "b")
    request_bit = round(1e5 * ASK_EVERY_S / KEY_BIT) * KEY_BIT
    requests = foreseen.stock_bit // request_bit + 1
    mean_s, sd_s = requests * request_bit / 1e5, math.sqrt(requests) * request_bit / 1e5
    assert forecast.copies == foreseen.dry_copies == 12
    assert foreseen.dry_after_s == pytest.approx(mean_s, abs=3.0 * sd_s / math.sqrt(12))
    assert foreseen.dry_sd_s is not None
    assert 0.4 < foreseen.dry_sd_s / sd_s < 1.7  # chi-square of 11 degrees of freedom, 99.9 %
    one = pair_of(fork(moment, msgspec.structs.replace(question, copies=1)), "a", "b")
    assert one.dry_sd_s is None
    assert one.dry_after_s != foreseen.dry_after_s


@pytest.mark.slow
def test_what_happens_lies_as_far_from_the_foreseen_mean_as_copies_from_one_another() -> None:
    demands = (Demand(owner="a", peer="b", rate_bit_per_s=3.2e5),)
    moment, _ = lived(slow_world(), [("a", "b")], (), rest_s=45.0, for_s=1.0)
    question = WhatIf(demands=demands, measured=False, poisson=True, for_s=90.0, copies=16)
    foreseen = pair_of(fork(moment, question), "a", "b")
    happened_s = []
    for seed in range(1000, 1016):
        _, drawn = lived(slow_world(), [("a", "b")], demands, rest_s=45.0, for_s=90.0, poisson_seed=seed)
        dry_ns = drawn["a", "b"].dry_ns
        assert dry_ns is not None
        happened_s.append(dry_ns / 1e9)
    mean_s, sd_s = foreseen.dry_after_s, foreseen.dry_sd_s
    assert mean_s is not None
    assert sd_s is not None
    assert foreseen.dry_copies == len(happened_s) == 16
    error_s = math.hypot(sd_s, statistics.stdev(happened_s)) / math.sqrt(16)
    assert statistics.mean(happened_s) == pytest.approx(mean_s, abs=3.0 * error_s)
    assert 0.4 < statistics.stdev(happened_s) / sd_s < 2.4  # F of 15 and 15 degrees of freedom, 99.9 %
    three = student_quantile(15, 0.9973) * math.sqrt(1.0 + 1.0 / 16)
    assert happened_s == pytest.approx([mean_s] * 16, abs=three * sd_s)
