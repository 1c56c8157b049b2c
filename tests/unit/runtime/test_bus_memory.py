"""The in-process bus: what it adds to the contract."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.device import KeyBlock
from multiplane.api.telemetry import Sample
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Noun
from multiplane.runtime.bus_memory import MemoryBus, fits

SAMPLE = Sample(subject="a--b", name="qber", value=0.02, unit="1", at_ns=5)


class Reading(Noun, frozen=True, kw_only=True):
    """A younger subscriber's view of a sample: fewer fields, and one with a default."""

    name: str
    value: float
    quality: str = "unknown"


class Wrong(Noun, frozen=True, kw_only=True):
    name: int


def test_strict_decodes_into_the_type_of_each_subscriber() -> None:
    seen: list[object] = []

    async def main() -> MemoryBus:
        bus = MemoryBus()
        bus.subscribe("d.*", Reading, lambda _, message: seen.append(message))
        bus.subscribe("d.*", Wrong, lambda _, message: seen.append(message))
        bus.subscribe("d.*", Sample, lambda _, message: seen.append(message))
        bus.publish("d.x", SAMPLE)
        await asyncio.sleep(0)
        return bus

    bus = asyncio.run(main())
    assert seen == [Reading(name="qber", value=0.02), SAMPLE]
    assert seen[1] is not SAMPLE
    assert bus.statistics().failed == 1


def test_lax_passes_by_reference() -> None:
    seen: list[Sample] = []

    async def main() -> None:
        bus = MemoryBus(strict=False)
        bus.subscribe(">", Sample, lambda _, message: seen.append(message))
        bus.publish("d.x", SAMPLE)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert seen[0] is SAMPLE


def test_feedback_between_subscribers_neither_recurses_nor_starves_others() -> None:
    async def main() -> int:
        bus = MemoryBus()
        count = 0

        def again(_: str, message: Sample) -> None:
            nonlocal count
            count += 1
            bus.publish("loop", message)

        bus.subscribe("loop", Sample, again)
        bus.publish("loop", SAMPLE)
        for _ in range(5_000):
            await asyncio.sleep(0)
        return count

    assert 4_990 <= asyncio.run(main()) <= 5_000


def test_a_full_queue_drops_and_counts() -> None:
    seen: list[Sample] = []

    async def main() -> MemoryBus:
        bus = MemoryBus(limit=3)
        bus.subscribe("x", Sample, lambda _, message: seen.append(message))
        for _ in range(5):
            bus.publish("x", SAMPLE)
        await asyncio.sleep(0)
        bus.publish("x", SAMPLE)
        await asyncio.sleep(0)
        return bus

    statistics = asyncio.run(main()).statistics()
    assert len(seen) == statistics.delivered == 4
    assert statistics.dropped == 2


def test_key_material_is_refused() -> None:
    block = KeyBlock(link="a--b", epoch=1, offset_byte=0, key=b"k" * 32, qber=0.01, made_ns=1)
    with pytest.raises(Refused, match=r"bus\.secret"):
        MemoryBus().publish("x", block)


@pytest.mark.parametrize("subject", ["", "a..b", "a.*", "a.>", ".a"])
def test_bad_subjects_are_refused(subject: str) -> None:
    with pytest.raises(Refused, match=r"bus\.subject"):
        MemoryBus().publish(subject, SAMPLE)


@pytest.mark.parametrize("pattern", ["", "a..b", ">.a", "a.>.b"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(Refused, match=r"bus\.subject"):
        MemoryBus().subscribe(pattern, Sample, lambda _, __: None)


TOKENS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4)
PATTERNS = st.tuples(
    st.lists(st.sampled_from(["a", "b", "ab", "*"]), max_size=4), st.sampled_from([[], [">"]])
).map(lambda parts: parts[0] + parts[1])


@given(PATTERNS.filter(bool), TOKENS)
def test_patterns_agree_with_a_regular_expression(pattern: list[str], subject: list[str]) -> None:
    expression = r"\.".join({"*": r"[^.]+", ">": r".+"}.get(token, token) for token in pattern)
    assert fits(pattern, subject) == bool(re.fullmatch(expression, ".".join(subject)))
