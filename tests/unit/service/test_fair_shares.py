"""Many stocks over one span: first blocks first, fair shares, little key in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import NamedTuple

import pytest
from tests.unit.service import kit

from multiplane.assembly.study import Study, run_study
from multiplane.security.onetime import PAD_OVERHEAD_BYTE
from multiplane.service.resource.blocks import BLOCK_BYTE, CODE_BYTE
from multiplane.twin.scenario import World, parse

LEAVES, TRUNK = 6, ("t0", "t1", "t2", "t3")
SPAN_BIT_PER_S = 550e3
"""What 80 km make, both directions together."""
HOP_BYTE = BLOCK_BYTE + CODE_BYTE + PAD_OVERHEAD_BYTE
HOPS = len(TRUNK) + 1


def dumbbell(leaves: int = LEAVES) -> World:
    """`leaves` sites at either end of a row of spans."""
    lines = ['format = "multiplane-scenario/1"', 'name = "dumbbell"', 'domain = "dumbbell"']
    lines += ["[defaults]", 'profile = "constant-rate"']
    names = [f"{side}{number}" for number in range(leaves) for side in "lr"]
    for site in TRUNK:
        lines += ["[[site]]", f'name = "{site}"', "saes = []"]
    for site in names:
        lines += ["[[site]]", f'name = "{site}"']
    spans = list(pairwise(TRUNK))
    spans += [(site, TRUNK[0] if site[0] == "l" else TRUNK[-1]) for site in names]
    for a, b in spans:
        rate = SPAN_BIT_PER_S if {a, b} <= set(TRUNK) else 20e6
        lines += ["[[link]]", f'a = "{a}"', f'b = "{b}"', "length_km = 80.0", "loss_db = 16.0"]
        lines.append(f"rate_bit_per_s = {rate}")
    return parse("\n".join(lines), "dumbbell.toml")


PAIRS = [(f"l{i}", f"r{j}") for i in range(LEAVES) for j in range(LEAVES)]
BOTH_WAYS = PAIRS + [(b, a) for a, b in PAIRS]


class Seen(NamedTuple):
    """Blocks of each stock, and pads spent for them."""

    blocks: list[int]
    spent_byte: int


def run(body: Callable[[Study], Awaitable[Seen]]) -> Seen:
    return run_study(dumbbell(), 1, body)


def look(study: Study) -> Seen:
    blocks = [kit.near(study, *pair).pool.accounts.made_bit // (8 * BLOCK_BYTE) for pair in BOTH_WAYS]
    ends = [link.pool.spent_byte for site in study.sites.values() for link in site.agent._links.values()]
    return Seen(blocks, sum(ends) // 2)


async def ask_all(study: Study) -> None:
    await asyncio.gather(*(kit.issue(study, f"{a}-1", f"{b}-1") for a, b in BOTH_WAYS))


def test_every_stock_gets_its_first_block_before_any_gets_its_tenth() -> None:
    async def workload(study: Study) -> Seen:
        await ask_all(study)
        return look(study)

    seen = run(workload)
    assert min(seen.blocks) >= 1
    assert max(seen.blocks) < 10


def test_stocks_under_overload_have_even_shares_and_little_key_is_spent_in_vain() -> None:
    early: list[Seen] = []

    async def workload(study: Study) -> Seen:
        await ask_all(study)
        early.append(look(study))
        await asyncio.sleep(20)
        return look(study)

    seen = run(workload)
    blocks, number = seen.blocks, len(seen.blocks)
    assert max(blocks) < 40, "they still want more"
    jain = sum(blocks) ** 2 / (number * sum(count**2 for count in blocks))
    assert jain >= 0.95
    carried_bit = (sum(blocks) - sum(early[0].blocks)) * HOP_BYTE * 8
    assert carried_bit == pytest.approx(SPAN_BIT_PER_S * 20, rel=0.05), "the span is used to the full"
    assert 1.0 <= seen.spent_byte / (sum(blocks) * HOP_BYTE * HOPS) <= 1.1
