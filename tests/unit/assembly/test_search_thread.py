"""Long searches in a thread: the same answer, and the event loop turns meanwhile."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from tests.unit.fabric.planning_cases import order, sheet, view

from multiplane.assembly.unit_control import SearchThread
from multiplane.fabric.control.drafts import draft
from multiplane.fabric.control.policies import Policies

ROWS = [[f"n{y}{x}" for x in range(4)] for y in range(3)]
GRID = view(*(sheet(a, b) for row in (*ROWS, *zip(*ROWS, strict=True)) for a, b in pairwise(row)))
LONG = order("n00", "n13", "n20", min_fidelity=0.95)


def test_the_loop_turns_while_a_long_search_goes_on() -> None:
    async def main() -> None:
        thread = SearchThread(Policies())
        searching = asyncio.ensure_future(thread.search(LONG, GRID))
        turns = 0
        while not searching.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 3
        assert await searching == draft(LONG, GRID, Policies())
        thread.close()

    asyncio.run(main())


def test_who_goes_away_leaves_the_thread_to_end_its_search_first() -> None:
    async def main() -> None:
        thread = SearchThread(Policies())
        first = asyncio.ensure_future(thread.search(LONG, GRID))
        await asyncio.sleep(0.01)
        first.cancel()
        easy = order("n00", "n23")
        assert await thread.search(easy, GRID) == draft(easy, GRID, Policies())
        thread.close()

    asyncio.run(main())
