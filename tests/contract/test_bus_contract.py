"""What every driver of the Bus port must keep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from multiplane.api.telemetry import Sample
from multiplane.kernel.ports import Bus
from multiplane.runtime.bus_memory import MemoryBus


def sample(value: float) -> Sample:
    return Sample(subject="a--b", name="rate", value=value, unit="bit/s", at_ns=1)


@pytest.mark.parametrize("make", [lambda: MemoryBus(strict=True), lambda: MemoryBus(strict=False)])
class TestBus:
    def test_order_is_the_order_of_publishing(self, make: Callable[[], Bus]) -> None:
        seen: list[tuple[str, float]] = []

        async def main() -> None:
            bus = make()
            bus.subscribe("d.>", Sample, lambda subject, message: seen.append((subject, message.value)))
            for index in range(1_000):
                bus.publish(f"d.{index % 3}", sample(index))
            await asyncio.sleep(0.02)

        asyncio.run(main())
        assert seen == [(f"d.{index % 3}", float(index)) for index in range(1_000)]

    def test_wildcards(self, make: Callable[[], Bus]) -> None:
        seen: list[str] = []

        async def main() -> None:
            bus = make()

            def note(pattern: str) -> None:
                bus.subscribe(pattern, Sample, lambda _, __: seen.append(pattern))

            for pattern in ("d.a.b", "d.*.b", "d.>", "*.a", "d.a.b.>"):
                note(pattern)
            bus.publish("d.a.b", sample(1))
            await asyncio.sleep(0.02)

        asyncio.run(main())
        assert sorted(seen) == ["d.*.b", "d.>", "d.a.b"]

    def test_a_subscriber_that_raises_harms_nobody(self, make: Callable[[], Bus]) -> None:
        seen: list[float] = []

        def fail(_: str, __: Sample) -> None:
            raise ValueError("mine alone")

        async def main() -> None:
            bus = make()
            bus.subscribe("x", Sample, fail)
            bus.subscribe("x", Sample, lambda _, message: seen.append(message.value))
            bus.publish("x", sample(1))
            bus.publish("x", sample(2))
            await asyncio.sleep(0.02)

        asyncio.run(main())
        assert seen == [1.0, 2.0]

    def test_nothing_after_cancel_and_nothing_before_subscribe(self, make: Callable[[], Bus]) -> None:
        seen: list[float] = []

        async def main() -> None:
            bus = make()
            bus.publish("x", sample(0))
            subscription = bus.subscribe("x", Sample, lambda _, message: seen.append(message.value))
            bus.publish("x", sample(1))
            await asyncio.sleep(0.02)
            bus.publish("x", sample(2))
            subscription.cancel()
            subscription.cancel()
            await asyncio.sleep(0.02)

        asyncio.run(main())
        assert seen == [1.0]

    def test_publish_does_not_run_handlers(self, make: Callable[[], Bus]) -> None:
        seen: list[float] = []

        async def main() -> None:
            bus = make()
            bus.subscribe("x", Sample, lambda _, message: seen.append(message.value))
            bus.publish("x", sample(1))
            assert seen == []
            await asyncio.sleep(0.02)

        asyncio.run(main())
        assert seen == [1.0]
