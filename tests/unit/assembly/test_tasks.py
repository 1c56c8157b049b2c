"""Background work is owned: it ends with its owner, and nothing begins after that."""

from __future__ import annotations

import asyncio

from multiplane.assembly.tasks import Tasks


def test_work_that_is_given_after_the_end_is_closed_unrun() -> None:
    ran: list[str] = []

    async def work(name: str) -> None:
        ran.append(name)
        await asyncio.sleep(0)

    async def scenario() -> None:
        tasks = Tasks()
        tasks.spawn(work("before"))
        await asyncio.sleep(0)
        await tasks.close()
        tasks.spawn(work("after"))  # warnings are errors: a coroutine that nobody awaits would fail this
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert ran == ["before"]


def test_work_that_gives_more_work_while_it_ends_leaves_nothing_behind() -> None:
    ran: list[str] = []

    async def scenario() -> None:
        tasks = Tasks()

        async def late() -> None:
            ran.append("late")

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                tasks.spawn(late())

        tasks.spawn(work())
        await asyncio.sleep(0)
        await tasks.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert ran == []
