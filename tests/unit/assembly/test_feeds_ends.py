"""Both ends of a fed link in virtual time: identical key, each once, only as room allows, whatever fails."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.feeds import LINK, Bench, tapped, virtual

from multiplane.api.device import LinkState
from multiplane.assembly.feeds.ends import BACKOFF_S, PATIENCE_S
from multiplane.assembly.feeds.line import Begin, Line, LineLost, Message, Trouble, Window, plain
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller

UP, FAULTED, DARK = LinkState.UP, LinkState.FAULTED, LinkState.DARK
EPOCH = 3 << 20


def test_both_agents_get_identical_key_in_order_up_to_their_room() -> None:
    async def main(bench: Bench) -> None:
        await bench.run()
        await asyncio.sleep(5)
        near, far = bench.agents
        assert near.blocks == far.blocks
        assert near.received == 20_000 // 128 * 128
        assert [agent.state for agent in bench.agents] == [UP, UP]
        assert near.epoch == far.epoch > EPOCH
        assert near.states[-1].source == "kme-a"
        assert near.states[-1].rate_bit_per_s == 1e6
        assert bench.network.issued_byte == near.received

    virtual(main)


def test_a_source_is_asked_only_while_both_ends_have_room() -> None:
    async def main(bench: Bench) -> None:
        await bench.run()
        await asyncio.sleep(5)
        near, far = bench.agents
        asked = len(bench.network.requests)
        near.grant(60_000)
        await asyncio.sleep(600)
        assert len(bench.network.requests) == asked
        far.grant(40_000)
        await asyncio.sleep(5)
        assert near.received == far.received == 40_000 // 128 * 128

    virtual(main)


def test_no_more_is_drawn_than_the_source_is_counted_on_for() -> None:
    async def main(bench: Bench) -> None:
        await bench.run()
        await asyncio.sleep(100)
        drawn_bit = 8 * bench.network.issued_byte
        assert 0.95 * 100 * 20e3 <= drawn_bit <= 100 * 20e3 + 16 * 1024

    virtual(main, room_byte=10**7, rate_bit_per_s=20e3)


def test_a_dry_source_is_asked_again_when_it_said_and_fails_after_a_while() -> None:
    async def main(bench: Bench) -> None:
        bench.network.always = "dry"
        await bench.run()
        await asyncio.sleep(PATIENCE_S - 1)
        times = [at for at, what, _ in bench.network.requests]
        assert all(later - sooner >= 3.0 for sooner, later in itertools.pairwise(times))
        assert len(times) >= 6
        assert bench.agents[0].state is LinkState.CALIBRATING
        await asyncio.sleep(10)
        assert [agent.state for agent in bench.agents] == [FAULTED, FAULTED]
        assert "a: no key now" in bench.agents[1].states[-1].reason
        bench.network.always = ""
        await asyncio.sleep(10)
        assert [agent.state for agent in bench.agents] == [UP, UP]

    virtual(main)


@pytest.mark.parametrize("error", ["unreachable", "certificate", "broken", "short"])
def test_a_source_that_fails_is_told_at_both_ends_and_tried_ever_more_slowly(error: str) -> None:
    async def main(bench: Bench) -> None:
        await bench.run()
        await asyncio.sleep(5)
        near, far = bench.agents
        held, epoch = near.received, near.epoch
        bench.network.always = error
        near.grant(40_000)
        far.grant(40_000)
        begun = len(bench.network.requests)
        await asyncio.sleep(60)
        assert [agent.state for agent in bench.agents] == [FAULTED, FAULTED]
        assert all(agent.states[-1].reason.startswith("a: ") for agent in bench.agents)
        assert near.states[-1].rate_bit_per_s == 0.0
        assert 60 / BACKOFF_S[1] <= len(bench.network.requests) - begun <= 2 * (60 / BACKOFF_S[1] + 5)
        bench.network.always = ""
        await asyncio.sleep(2 * BACKOFF_S[1])
        assert [agent.state for agent in bench.agents] == [UP, UP]
        assert near.received == far.received > held, "in the same epoch: what was held is still of use"
        assert near.epoch == epoch

    virtual(main)


@pytest.mark.parametrize("fate", ["lost", "refused", "few", "short"])
def test_keys_that_only_one_end_got_are_used_by_neither(fate: str) -> None:
    async def main(bench: Bench) -> None:
        bench.network.script.extend(["", "", fate])  # status, enc_keys, dec_keys
        await bench.run()
        await asyncio.sleep(0.3)
        near, far = bench.agents
        assert (near.blocks, far.blocks) == ([], [])
        assert [agent.state for agent in bench.agents] == [FAULTED, FAULTED]
        assert "b: " in near.states[-1].reason
        assert near.states[-1].discarded_bit == 16 * 1024
        await asyncio.sleep(5)
        assert near.blocks == far.blocks != []
        assert bench.network.issued_byte == near.received + 16 * 128

    virtual(main)


def test_a_new_session_at_either_end_begins_a_new_epoch_at_both() -> None:
    async def main(bench: Bench) -> None:
        await bench.run()
        await asyncio.sleep(5)
        for agent in bench.agents:
            epoch = agent.epoch
            await agent.run()
            await asyncio.sleep(5)
            assert bench.agents[0].epoch == bench.agents[1].epoch > epoch + 1
            assert [one.state for one in bench.agents] == [UP, UP]
            assert [one.received for one in bench.agents] == [20_000 // 128 * 128] * 2

    virtual(main)


def test_a_link_that_is_stopped_goes_dark_and_asks_nobody() -> None:
    async def main(bench: Bench) -> None:
        await bench.run()
        await asyncio.sleep(5)
        near, far = bench.agents
        await far.devices.stop(far.caller, LINK)
        await asyncio.sleep(1)
        assert far.state is DARK
        assert near.state is not UP
        await near.devices.stop(near.caller, LINK)
        asked = len(bench.network.requests)
        await asyncio.sleep(100)
        assert [agent.state for agent in bench.agents] == [DARK, DARK]
        assert len(bench.network.requests) == asked
        for agent in bench.agents:
            await agent.devices.start(agent.caller, LINK)
        await asyncio.sleep(10)
        assert [agent.state for agent in bench.agents] == [UP, UP]

    virtual(main)


def test_an_end_whose_other_end_is_not_there_says_so() -> None:
    async def main(bench: Bench) -> None:
        near, far = bench.agents
        await near.run()
        await asyncio.sleep(30)
        assert near.state is LinkState.PROVISIONING
        assert near.states[-1].reason == "waits for b"
        assert bench.network.requests == []
        await far.run()
        await asyncio.sleep(10)
        assert [agent.state for agent in bench.agents] == [UP, UP]

    virtual(main)


def test_what_passes_between_the_ends_holds_no_key() -> None:
    async def main(bench: Bench) -> None:
        heard: list[bytes] = []
        tapped(bench.channels, heard)
        await bench.run()
        await asyncio.sleep(5)
        said = b"".join(heard)
        keys = b"".join(block.key for block in bench.agents[0].blocks)
        assert b"key-0" in said
        assert len(keys) > 10_000
        assert not any(keys[at : at + 6] in said for at in range(0, len(keys), 6))

    virtual(main)


def test_nobody_but_the_agent_of_the_site_has_a_say() -> None:
    async def main(bench: Bench) -> None:
        near, far = bench.agents
        for caller, link in ((far.caller, LINK), (near.caller, "a--c")):
            with pytest.raises(Refused, match="is not fed at"):
                await near.devices.start(caller, link)
        stranger = Caller(principal=element_urn("lab", "c"), domain="lab")
        channel = await bench.channels.open(stranger, far.caller.principal, "feed", 0)
        with pytest.raises(LineLost, match="no link between us is fed"):
            await Line(channel, lambda _: None).run(asyncio.sleep(60))

    virtual(main)


FATES = st.sampled_from(
    ["", "", "", "lost", "short", "few", "refused", "dry", "unreachable", "broken", "certificate"]
)
DEEDS = st.sampled_from(["wait", "attach a", "attach b", "stop a", "stop b", "start a", "start b", "room"])


@settings(max_examples=30, deadline=None)
@given(fates=st.lists(FATES, max_size=30), deeds=st.lists(st.tuples(DEEDS, st.floats(0, 3)), max_size=12))
def test_whatever_fails_no_key_is_used_twice_or_differs_and_the_link_comes_back(
    fates: list[str], deeds: list[tuple[str, float]]
) -> None:
    async def main(bench: Bench) -> None:
        bench.network.script.extend(fates)
        await bench.run()
        for deed, pause_s in deeds:
            verb, _, site = deed.partition(" ")
            agent = bench.agents["ab".index(site or "a")]
            if verb == "attach":
                await agent.run()
            elif verb in ("start", "stop"):
                await getattr(agent.devices, verb)(agent.caller, LINK)
            elif verb == "room":
                for one in bench.agents:
                    one.grant(one.received + 5_000)
            await asyncio.sleep(pause_s)
            bench.check()
        bench.network.script.clear()
        for agent in bench.agents:
            await agent.devices.start(agent.caller, LINK)
        await asyncio.sleep(20)
        for agent in bench.agents:
            agent.grant(agent.received + 5_000)
        await asyncio.sleep(60)
        near, far = bench.agents
        assert [near.state, far.state] == [UP, UP]
        assert near.epoch == far.epoch
        assert near.blocks[-1] == far.blocks[-1]

    virtual(main)


class Wire:
    """A channel that keeps what is sent and can be made to hear anything."""

    peer = Caller(principal=element_urn("lab", "b"), domain="lab")

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = ""

    def send(self, message: bytes) -> None:
        if self.closed:
            raise Faulty("channel.closed", "closed")
        self.sent.append(message)

    def listen(self, message: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        del lost
        self.hear = message

    def close(self, reason: str) -> None:
        self.closed = reason


@given(
    st.binary(max_size=200)
    | st.builds(lambda n: msgspec.msgpack.encode({"type": "Begin", "epoch": n}), st.integers(-5, 5))
)
def test_a_line_takes_messages_of_its_own_kind_and_hangs_up_on_all_else(noise: bytes) -> None:
    async def main() -> None:
        wire = Wire()
        line = Line(wire, lambda _: None)
        wire.hear(noise)
        try:
            said = msgspec.msgpack.decode(noise, type=Message)
        except msgspec.MsgspecError:
            assert wire.closed == "feed: a message is not understood"
            with pytest.raises(LineLost):
                await line.run(asyncio.sleep(60))
        else:
            assert wire.closed == ""
            assert await line.next() == said

    asyncio.run(main())


def test_a_line_bounds_what_waits_and_windows_pass_at_once() -> None:
    async def main() -> None:
        wire, windows = Wire(), list[Window]()
        Line(wire, windows.append)
        for number in range(8):
            wire.hear(msgspec.msgpack.encode(Begin(epoch=number)))
            wire.hear(msgspec.msgpack.encode(Window(epoch=number, limit_byte=1)))
        assert (len(windows), wire.closed) == (8, "")
        wire.hear(msgspec.msgpack.encode(Trouble(reason="x")))
        assert wire.closed == "feed: more than 8 messages wait"

    asyncio.run(main())


def test_reasons_are_one_printable_line_of_bounded_length() -> None:
    assert plain("a\nb\x1b[31mc") == "a b [31mc"
    assert len(plain("x" * 1000)) == 200
