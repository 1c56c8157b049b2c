"""What becomes of wishes that cannot be granted as they stand: counter-offers, refusals, later."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.service.unit_kit import Net, play, wish

from multiplane.api.units import Answer, Wish
from multiplane.kernel.errors import Busy

S = 1_000_000_000


async def ask(net: Net, asked: Wish) -> Answer:
    return await net.units("ann").request(net.caller("ann-1"), asked)


def test_what_the_network_cannot_is_answered_with_what_it_can() -> None:
    async def run(net: Net) -> None:
        high = await ask(net, wish("bob-1", min_fidelity=0.99))
        assert (high.verdict, high.code) == ("counter-offer", "unit.fidelity")
        assert high.offer.fidelity == pytest.approx(0.95)
        long = await ask(net, wish("bob-1", valid_s=60.0, request="r2"))
        assert (long.verdict, long.code, long.offer.valid_s) == ("counter-offer", "unit.valid", 5.0)
        taken = await ask(net, wish("bob-1", min_fidelity=0.99, accept_offer=True, request="r3"))
        assert taken.verdict == "accepted"
        assert taken.offer.fidelity == pytest.approx(0.95)
        net.fabric.rate_per_s = 0.0
        never = await ask(net, wish("bob-1", min_fidelity=0.99, request="never"))
        assert never.verdict == "refused"
        assert never.offer.fidelity == pytest.approx(0.95), "the best attainable"
        net.fabric.fidelity = 0.0
        none = await ask(net, wish("bob-1", request="r4"))
        assert (none.verdict, none.offer.fidelity) == ("refused", 0.0)
        net.routes.cut.add("cy")
        cut = await ask(net, wish("cy-1", request="r5"))
        assert (cut.verdict, cut.code) == ("refused", "unit.route")
        assert none.unit == cut.unit == high.unit == ""

    play(run)


def test_what_is_offered_is_granted_where_two_numbers_are_too_high_at_once() -> None:
    async def run(net: Net) -> None:
        both = await ask(net, wish("bob-1", min_fidelity=0.99, valid_s=60.0, request="both"))
        assert (both.verdict, both.code) == ("counter-offer", "unit.fidelity")
        assert both.offer.fidelity == pytest.approx(0.95)
        assert both.offer.valid_s == 5.0
        assert [name in both.reason for name in ("min_fidelity", "valid_s")] == [True, True]
        less = wish("bob-1", min_fidelity=both.offer.fidelity, valid_s=both.offer.valid_s, request="less")
        assert (await ask(net, less)).verdict == "accepted"
        life = await ask(net, wish("bob-1", min_fidelity=0.9, valid_s=60.0, request="life"))
        assert (life.verdict, life.code, life.offer.valid_s) == ("counter-offer", "unit.valid", 5.0)
        assert "min_fidelity" not in life.reason, "a shorter life is enough"

    play(run)


def test_what_stands_in_the_way_is_told_in_words_of_the_wish() -> None:
    async def run(net: Net) -> None:
        at_ns = net.timeline.now_ns() + 60 * S
        far = await ask(net, wish("bob-1", consumption="deterministic", at_ns=at_ns, request="far"))
        assert (far.verdict, far.code) == ("refused", "unit.valid")
        assert far.reason == "at_ns: expected at most 5 s ahead, what memories keep"
        for valid_s, said in ((1e-3, "wanted within 0.001 s"), (1e-5, "valid_s: expected longer")):
            short = await ask(net, wish("bob-1", valid_s=valid_s, request=said))
            assert (short.verdict, short.code) == ("refused", "unit.valid")
            assert said in short.reason
            net.fabric.expected_ns = 1_000
        net.fabric.expected_ns = 6 * S
        slow = await ask(net, wish("bob-1", request="slow"))
        assert (slow.verdict, slow.code) == ("refused", "unit.valid")
        assert slow.reason == "states are kept 5 s, the first is expected after 6 s"
        net.fabric.expected_ns = 1_000
        net.fabric.taken = True
        with pytest.raises(Busy, match=r"unit\.no_memory: .*reserved") as full:
            await ask(net, wish("bob-1", request="full"))
        assert full.value.retry_after_ns > 0
        net.fabric.taken = False
        await asyncio.sleep(full.value.retry_after_ns / S)
        assert (await ask(net, wish("bob-1", request="full"))).verdict == "accepted"

    play(run)
