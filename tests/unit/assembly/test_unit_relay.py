"""The control of units behind a session: calls find whoever is there, and a new one takes orders over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.support import shared
from tests.support.storm import Storm, in_storm

from multiplane.api.service_connectivity import ClassicalListener, ClassicalPath, ServiceConnectivity
from multiplane.api.units import Answer, Part, Wish
from multiplane.assembly.passing_on import passing_on
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.nouns import Caller, Ends, ends
from multiplane.service.planes.units import UnitNewsListener
from multiplane.twin.scenario import parse

CHAIN = parse(
    shared.scenario(
        [("a", "b"), ("b", "c")], memories=16, success_probability=0.01, t2_s=100.0, cutoff_s=60.0, saes=True
    ),
    "chain.toml",
)
ME, OTHER = Caller(principal="urn:me", domain="d"), Caller(principal="urn:other", domain="d")
AB = ends("a", "b")


class Paths:
    """Answers, or fails as it is told; remembers who asked."""

    def __init__(self, error: MultiplaneError | None = None) -> None:
        self.error, self.asked = error, list[Caller]()

    async def subscribe(self, caller: Caller, listener: ClassicalListener) -> None:
        raise NotImplementedError

    async def classical(self, caller: Caller, ends: Ends) -> ClassicalPath:
        self.asked.append(caller)
        if self.error is not None:
            raise self.error
        return ClassicalPath(ends=ends, delay_ns=7)


async def refusal(call: Awaitable[object]) -> MultiplaneError:
    with pytest.raises(MultiplaneError) as caught:
        await call
    return caught.value


def test_calls_are_passed_on_in_the_name_of_the_caller_or_of_a_speaker() -> None:
    paths = Paths()
    plain = passing_on(ServiceConnectivity, lambda _: paths)
    spoken = passing_on(ServiceConnectivity, lambda _: paths, speaker=OTHER)
    for door in (plain, spoken):
        assert asyncio.run(door.classical(ME, AB)).delay_ns == 7
    assert paths.asked == [ME, OTHER]


@pytest.mark.parametrize(
    "error",
    [Unknown("session.lost", "gone"), Unknown("session.deadline", "late"), Faulty("channel.closed", "gone")],
)
def test_whoever_is_away_or_goes_meanwhile_is_busy(error: MultiplaneError) -> None:
    for there in (None, Paths(error)):
        door = passing_on(ServiceConnectivity, lambda _, there=there: there)  # type: ignore[misc]
        found = asyncio.run(refusal(door.classical(ME, AB)))
        assert isinstance(found, Busy)
        assert found.code == "channel.unreachable"
        assert found.retry_after_ns > 0


def test_other_errors_stay_what_they_are_and_notices_are_not_passed_on() -> None:
    paths = Paths(Refused("path.unattainable", "no"))
    door = passing_on(ServiceConnectivity, lambda _: paths)
    assert asyncio.run(refusal(door.classical(ME, AB))) is paths.error
    with pytest.raises(TypeError, match="unit_news"):
        passing_on(UnitNewsListener, lambda _: None)


async def until(true: Callable[[], bool], within_s: float) -> None:
    for _ in range(round(within_s * 1000)):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come about in time")


async def accepted(storm: Storm, wish: Wish) -> Answer:
    site = storm.places["a"].site
    assert site is not None
    assert site.units is not None
    answer = await site.units.request(storm.caller("a"), wish)
    assert answer.verdict == "accepted", answer
    return answer


def delivered(storm: Storm, name: str, unit: str) -> dict[tuple[int, int], str]:
    site = storm.places[name].site
    assert site is not None
    assert site.units is not None
    return site.units.core.units[unit].delivered


def test_states_go_on_under_another_control_and_no_wish_is_lost_in_between() -> None:
    async def run(storm: Storm) -> None:
        wish = Wish(request="r", parties=("c-1",), parts=(Part(kind="bell", size=12),), valid_s=20.0)
        answer = await accepted(storm, wish)
        await until(lambda: len(delivered(storm, "c", answer.unit)) >= 3, 5)
        await storm.control_falls()
        await asyncio.sleep(0.001)
        found = await refusal(accepted(storm, Wish(request="s", parties=("b-1",), parts=wish.parts)))
        assert found.code == "channel.unreachable"
        await asyncio.sleep(1)
        await storm.control_rises()
        await until(lambda: len(delivered(storm, "a", answer.unit)) == 12, 10)
        await asyncio.sleep(0.1)
        assert delivered(storm, "a", answer.unit) == delivered(storm, "c", answer.unit)
        await accepted(storm, Wish(request="t", parties=("b-1",), parts=wish.parts))

    in_storm(CHAIN, 1, run)


def test_an_order_whose_way_is_gone_waits_when_another_control_takes_over() -> None:
    async def run(storm: Storm) -> None:
        wish = Wish(request="r", parties=("c-1",), parts=(Part(kind="bell", size=12),), valid_s=40.0)
        answer = await accepted(storm, wish)
        await until(lambda: len(delivered(storm, "c", answer.unit)) >= 3, 5)
        await storm.control_falls()
        await storm.fall("b")
        await storm.control_rises()
        await asyncio.sleep(1)
        assert len(delivered(storm, "a", answer.unit)) < 12
        await storm.rise("b")
        await until(lambda: len(delivered(storm, "a", answer.unit)) == 12, 20)

    in_storm(CHAIN, 2, run)
