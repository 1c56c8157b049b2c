"""The controller's view of stocks: how long each lasts at its present use."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.service import kit

from multiplane.api.operator import StockOutlook
from multiplane.api.telemetry import Sample
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.quantity import NS_PER_S
from multiplane.service.telemetry import FORGET_NS, REPEAT_NS, USE_WINDOW_S, News, StockView
from multiplane.twin.scenario import load_shipped


def sample(name: str, value_bit: float, at_s: float, subject: str = "a/b/near") -> Sample:
    """One reading."""
    return Sample(subject=subject, name=name, value=value_bit, unit="bit", at_ns=round(at_s * NS_PER_S))


def after(use_bit_per_s: float, lasting_s: int, stock_bit: float = 1e6) -> StockView:
    """The view of a stock that has given out `use_bit_per_s` for a while, told once a second."""
    view = StockView()
    for second in range(lasting_s + 1):
        assert view.note(sample("stock", stock_bit, second))
        assert view.note(sample("delivered", use_bit_per_s * second, second))
    return view


def only(view: StockView, at_s: float) -> StockOutlook:
    """The one outlook there is."""
    (found,) = view.outlooks(round(at_s * NS_PER_S))
    return found


@given(use=st.floats(10.0, 1e8))
def test_steady_use_gives_stock_over_use(use: float) -> None:
    lasting_s = 8 * round(USE_WINDOW_S)
    found = only(after(use, lasting_s), lasting_s)
    assert found.use_bit_per_s == pytest.approx(use, rel=0.01)
    assert found.lasts_s == pytest.approx(1e6 / use, rel=0.01)


def test_a_stock_that_nobody_uses_has_no_end() -> None:
    assert only(after(0.0, 100), 100).lasts_s is None


def test_use_that_ended_fades_whether_samples_come_or_not() -> None:
    quiet = after(1000.0, 240)
    told = after(1000.0, 240)
    for second in range(241, 281):
        told.note(sample("delivered", 240_000.0, second))
    fresh = only(after(1000.0, 240), 240).use_bit_per_s
    for view in (quiet, told):
        assert only(view, 280).use_bit_per_s == pytest.approx(
            fresh * 2.718281828 ** (-40 / USE_WINDOW_S), rel=0.05
        )


def test_a_count_that_begins_anew_is_no_use() -> None:
    view = after(1000.0, 240)
    before = only(view, 240).use_bit_per_s
    view.note(sample("delivered", 0.0, 241))
    assert only(view, 241).use_bit_per_s <= before


def test_what_is_not_heard_of_is_forgotten() -> None:
    view = after(1000.0, 10)
    assert view.outlooks(10 * NS_PER_S + FORGET_NS) != ()
    assert view.outlooks(10 * NS_PER_S + FORGET_NS + 1) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        sample("stock", 1.0, 1, "a/b/far"),
        sample("stock", 1.0, 1, "a"),
        sample("stock", -1.0, 1),
        sample("stock", float("nan"), 1),
        sample("delivered", float("inf"), 1),
    ],
)
def test_what_is_no_amount_of_the_near_side_is_refused(wrong: Sample) -> None:
    view = StockView()
    assert not view.note(wrong)
    assert view.outlooks(NS_PER_S) == ()


def test_news_are_told_once_and_all_again_after_ten_seconds() -> None:
    news, one, two = News(), sample("stock", 1.0, 1), sample("stock", 2.0, 2)
    start_ns = 1_000 * NS_PER_S
    assert news.of([one], start_ns) == [one]
    assert news.of([one], start_ns + NS_PER_S) == []
    assert news.of([two], start_ns + 2 * NS_PER_S) == [two]
    assert news.of([two], start_ns + REPEAT_NS) == [two]


def test_the_controller_sees_how_long_each_stock_lasts() -> None:
    async def workload(study: Study) -> None:
        await kit.issue(study, "alice-1", "bob-1")
        for _ in range(60):
            await kit.issue(study, "alice-1", "bob-1", number=4)
            await asyncio.sleep(1.0)
        (found,) = study.centre.service.outlooks(study.timeline.now_ns())
        (ledger,) = (await study.sites["alice"].kme.report(study.centre.caller)).ledgers
        assert (found.owner, found.peer) == ("alice", "bob")
        assert found.stock_bit == pytest.approx(ledger.stock_bit, rel=0.1)
        assert found.use_bit_per_s == pytest.approx(4 * 256, rel=0.25)
        assert found.lasts_s == pytest.approx(found.stock_bit / found.use_bit_per_s)

    run_study(load_shipped("lab3"), 1, workload)


def test_one_site_cannot_speak_for_another() -> None:
    async def workload(study: Study) -> None:
        bus = study.sites["alice"].parts.bus
        told = sample("stock", 5.0, study.timeline.now_ns() / NS_PER_S, "bob/alice/near")
        bus.publish("lab3.service.telemetry.alice.stock", told)
        await asyncio.sleep(1.0)
        assert study.centre.service.outlooks(study.timeline.now_ns()) == ()
        bus.publish("lab3.service.telemetry.bob.stock", told)
        await asyncio.sleep(1.0)
        assert len(study.centre.service.outlooks(study.timeline.now_ns())) == 1

    run_study(load_shipped("lab3"), 1, workload)
