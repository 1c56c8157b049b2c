"""The relay: parcels over several hops, tampering, table versions, dry and early links."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.device import KeyBlock
from multiplane.api.service_fabric import Parcel
from multiplane.fabric.planes import ForwardingTable
from multiplane.fabric.resource.relay import (
    HOP_LIMIT,
    PAYLOAD_LIMIT_BYTE,
    Action,
    Alarm,
    Arrive,
    HopHeader,
    HopMessage,
    Relay,
    Send,
)
from multiplane.fabric.resource.waiting import PAIR_LIMIT, WAITING_LIMIT
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.names import link_id
from multiplane.security.onetime import PAD_OVERHEAD_BYTE

LIFETIME_NS = 10_000_000_000
CHAIN = ("a", "b", "c", "d", "e")


def feed(relays: dict[str, Relay], a: str, b: str, size_byte: int, epoch: int = 1, offset: int = 0) -> None:
    """The same block to both ends of a link."""
    key = hashlib.shake_128(f"{a}{b}{epoch}/{offset}".encode()).digest(size_byte)
    made = KeyBlock(link=link_id(a, b), epoch=epoch, offset_byte=offset, key=key, qber=0.0, made_ns=0)
    relays[a].port(b).deposit(made)
    relays[b].port(a).deposit(made)


def chain(stock_byte: int = 100_000) -> dict[str, Relay]:
    """Relays in a row, channels open, table 1 in force everywhere."""
    relays = {site: Relay(site) for site in CHAIN}
    for a, b in pairwise(CHAIN):
        for near, far in ((a, b), (b, a)):
            relays[near].port(far)
            relays[near].opened(far, 0)
        feed(relays, a, b, stock_byte)
    for site in CHAIN:
        relays[site].install(table(site, 1), 0)
    return relays


def launch(relay: Relay, sent: Parcel) -> Send:
    """The first hop of a parcel that finds key at once."""
    first = relay.launch(sent, 0)
    assert first is not None
    return first


def table(site: str, version: int) -> ForwardingTable:
    at = CHAIN.index(site)
    hops = {to: CHAIN[at + (1 if CHAIN.index(to) > at else -1)] for to in CHAIN if to != site}
    return ForwardingTable(version=version, next_hop=hops)


def parcel(payload: bytes, source: str = "a", target: str = "e") -> Parcel:
    return Parcel(source=source, target=target, label="pool/1/7", payload=payload)


def run(relays: dict[str, Relay], at: str, actions: list[Action]) -> tuple[list[Parcel], list[Send]]:
    """Carry messages until nothing moves; the parcels that arrived and all messages on the way."""
    arrived, seen = [], []
    todo = [(at, action) for action in actions]
    while todo:
        site, action = todo.pop(0)
        if isinstance(action, Send):
            seen.append(action)
            todo += [(action.peer, more) for more in relays[action.peer].receive(site, action.message, 0)]
        elif isinstance(action, Arrive):
            arrived.append(action.parcel)
    return arrived, seen


@given(payload=st.binary(max_size=PAYLOAD_LIMIT_BYTE), back=st.booleans())
def test_four_hops_deliver_identical_bytes_and_no_hop_shows_them(payload: bytes, back: bool) -> None:
    relays = chain()
    source, target = ("e", "a") if back else ("a", "e")
    sent = parcel(payload, source, target)
    arrived, seen = run(relays, source, [launch(relays[source], sent)])
    assert arrived == [sent]
    assert len(seen) == 4
    assert len({message.message for message in seen}) == 4
    if len(payload) >= 8:
        assert all(payload not in message.message for message in seen)


@given(place=st.integers(min_value=0), flip=st.integers(1, 255), hop=st.integers(0, 3))
def test_a_changed_message_never_arrives_and_the_next_one_does(place: int, flip: int, hop: int) -> None:
    relays = chain()
    site, sent = "a", launch(relays["a"], parcel(b"k" * 300))
    for _ in range(hop):
        site, (action,) = sent.peer, relays[sent.peer].receive(site, sent.message, 0)
        assert isinstance(action, Send)
        sent = action
    changed = bytearray(sent.message)
    changed[place % len(changed)] ^= flip
    actions = relays[sent.peer].receive(site, bytes(changed), 0)
    assert not [action for action in actions if isinstance(action, Arrive | Send)]
    relays[sent.peer].expire(LIFETIME_NS)  # a changed offset may have made it wait for key
    counted = relays[sent.peer].counters(site)
    assert sum(counted.get(f"dropped_{why}", 0) for why in ("tag", "stale", "malformed", "early")) == 1
    again = parcel(b"n" * 300)
    arrived, _ = run(relays, "a", [launch(relays["a"], again)])
    assert arrived == [again]


def test_a_tag_failure_is_an_alarm() -> None:
    relays = chain()
    message = bytearray(launch(relays["a"], parcel(b"k" * 64)).message)
    message[-1] ^= 1
    assert relays["b"].receive("a", bytes(message), 0) == [Alarm("a")]
    assert relays["b"].counters("a") == {"dropped_tag": 1}


def test_a_replayed_message_is_refused() -> None:
    relays = chain()
    message = launch(relays["a"], parcel(b"k" * 64)).message
    assert len(relays["b"].receive("a", message, 0)) == 1
    assert relays["b"].receive("a", message, 0) == []
    assert relays["b"].counters("a")["dropped_stale"] == 1


@pytest.mark.slow
@given(junk=st.binary(max_size=300))
def test_junk_is_counted_and_nothing_else(junk: bytes) -> None:
    relays = chain()
    before = relays["b"].port("a").stock_byte
    assert relays["b"].receive("a", junk, 0) == []
    assert relays["b"].counters("a")["dropped_malformed"] == 1
    assert relays["b"].port("a").stock_byte == before


def test_a_message_names_its_table_and_relays_keep_two() -> None:
    relays = chain()
    sent = launch(relays["a"], parcel(b"k" * 32))
    detour = ForwardingTable(version=2, next_hop={"e": "a"})
    assert relays["b"].install(detour, 0)[0].accepted
    (by_old,) = relays["b"].receive("a", sent.message, 0)
    assert isinstance(by_old, Send)
    assert by_old.peer == "c", "version 1 is still held"
    sent = launch(relays["a"], parcel(b"k" * 32))
    relays["b"].install(msgspec.structs.replace(detour, version=3), 0)
    (by_newest,) = relays["b"].receive("a", sent.message, 0)
    assert isinstance(by_newest, Send)
    assert by_newest.peer == "a", "version 1 is gone: the newest decides"


def test_a_parcel_goes_by_the_newest_table_not_above_its_own() -> None:
    """b's table did not change in versions 2 to 4: what was launched under those goes by its version 1."""
    relays = chain()
    for version in (3, 5):
        relays["a"].install(ForwardingTable(version=version, next_hop={"e": "b"}), 0)
        if version == 5:
            relays["b"].install(ForwardingTable(version=5, next_hop={"e": "a"}), 0)
        else:
            sent = launch(relays["a"], parcel(b"k" * 32))
    (by_old,) = relays["b"].receive("a", sent.message, 0)
    assert isinstance(by_old, Send)
    assert by_old.peer == "c"
    (by_new,) = relays["b"].receive("a", launch(relays["a"], parcel(b"k" * 32)).message, 0)
    assert isinstance(by_new, Send)
    assert by_new.peer == "a"
    restarted = Relay("b")
    restarted.install(ForwardingTable(version=5, next_hop={"e": "c"}), 0)
    assert restarted._previous.version == 0, "no table at all is no previous one"


def test_lower_tables_are_ignored_and_the_answer_says_what_is_in_force() -> None:
    relay = Relay("a")
    assert relay.install(table("a", 5), 0)[0].accepted
    answer, _ = relay.install(table("a", 4), 0)
    assert (answer.version, answer.accepted) == (5, False)
    assert relay.install(table("a", 5), 0)[0].accepted, "the same table again"
    answer, _ = relay.install(ForwardingTable(version=5, next_hop={}), 0)
    assert not answer.accepted, "another table of the same version"


def test_a_loop_ends_at_the_hop_limit() -> None:
    relays = chain(stock_byte=1_000_000)
    relays["b"].install(ForwardingTable(version=2, next_hop={"e": "a"}), 0)
    relays["a"].install(ForwardingTable(version=2, next_hop={"e": "b"}), 0)
    arrived, seen = run(relays, "a", [launch(relays["a"], parcel(b"k" * 32))])
    assert arrived == []
    assert len(seen) == HOP_LIMIT
    fates = Counter(relays["a"].counters("b")) + Counter(relays["b"].counters("a"))
    assert fates["dropped_hops"] == 1


def test_ingress_refuses_what_it_cannot_carry() -> None:
    relays = chain(stock_byte=400)
    with pytest.raises(Refused, match=r"fabric\.parcel_too_large"):
        launch(relays["a"], parcel(b"k" * (PAYLOAD_LIMIT_BYTE + 1)))
    with pytest.raises(Busy, match=r"fabric\.no_route"):
        launch(relays["a"], parcel(b"k", target="nowhere"))
    relays["a"].closed("b")
    with pytest.raises(Busy, match=r"fabric\.link_dry"):
        launch(relays["a"], parcel(b"k"))


def test_a_relay_queues_on_a_dry_link_in_order_and_sends_when_key_comes() -> None:
    relays = chain()
    feed_c = relays["b"].port("c")
    while feed_c.take(1000):
        pass
    while feed_c.take(1):
        pass
    for number in range(3):
        sent = launch(relays["a"], parcel(bytes([number]) * 100))
        assert relays["b"].receive("a", sent.message, 0) == []
    assert relays["b"].next_expiry_ns() == LIFETIME_NS
    feed(relays, "b", "c", 10_000, offset=100_000)
    arrived, _ = run(relays, "b", relays["b"].key_came("c", 0))
    assert [parcel.payload[0] for parcel in arrived] == [0, 1, 2]
    assert relays["b"].next_expiry_ns() is None


def test_a_dry_link_keeps_a_bounded_number_for_a_bounded_time() -> None:
    relays = chain()
    relays["b"].closed("c")
    for _ in range(PAIR_LIMIT + 5):
        relays["b"].receive("a", launch(relays["a"], parcel(b"k")).message, 0)
    counted = {"waited": PAIR_LIMIT, "dropped_dry": 5}
    assert relays["b"].counters("c") == counted
    relays["b"].expire(LIFETIME_NS - 1)
    assert relays["b"].counters("c") == counted
    relays["b"].expire(LIFETIME_NS)
    assert relays["b"].counters("c") == counted | {"dropped_late": PAIR_LIMIT}


def test_on_a_dry_link_own_parcels_and_relayed_ones_take_turns() -> None:
    relays = chain()
    pool = relays["b"].port("c")
    while pool.take(1):
        pass
    for number in range(PAIR_LIMIT):
        assert relays["b"].receive("a", launch(relays["a"], parcel(bytes([number]))).message, 0) == []
    own = Parcel(source="b", target="e", label="own", payload=b"own")
    assert relays["b"].launch(own, 0) is None
    feed(relays, "b", "c", 4 * (1 + PAD_OVERHEAD_BYTE + 2), offset=200_000)
    sent = [action for action in relays["b"].key_came("c", 0) if isinstance(action, Send)]
    assert len(sent) == 2
    assert b"own" in sent[1].message
    for _ in range(PAIR_LIMIT):
        assert relays["b"].launch(own, 0) is None
    with pytest.raises(Busy, match=r"fabric\.link_dry"):
        relays["b"].launch(own, 0)
    assert relays["b"].next_expiry_ns() == LIFETIME_NS
    assert PAIR_LIMIT < WAITING_LIMIT


def test_waiting_parcels_move_to_the_route_of_a_new_table() -> None:
    relays = chain()
    relays["b"].closed("c")
    relays["b"].receive("a", launch(relays["a"], parcel(b"k" * 9)).message, 0)
    relays["b"].port("z")
    relays["z"] = Relay("z")
    relays["z"].port("b")
    feed(relays, "b", "z", 1000)
    relays["b"].opened("z", 0)
    _, (action,) = relays["b"].install(ForwardingTable(version=2, next_hop={"e": "z"}), 0)
    assert isinstance(action, Send)
    assert action.peer == "z"


def test_a_message_ahead_of_its_key_waits_for_it() -> None:
    relays = chain(stock_byte=2)
    low = {"a": relays["a"], "b": Relay("b")}
    low["b"].port("a")
    feed(low, "a", "b", 10_000, offset=2)
    relays["b"].port("a").begin(1)
    first = launch(relays["a"], parcel(b"1" * 100, target="b"))
    second = launch(relays["a"], parcel(b"2" * 100, target="b"))
    assert relays["b"].receive("a", first.message, 0) == []
    assert relays["b"].receive("a", second.message, 0) == []
    key = hashlib.shake_128(b"ab1/2").digest(10_000)
    late = KeyBlock(link="a--b", epoch=1, offset_byte=2, key=key, qber=0.0, made_ns=0)
    relays["b"].port("a").deposit(late)
    arrived, _ = run(relays, "b", relays["b"].key_came("a", 0))
    assert [parcel.payload[:1] for parcel in arrived] == [b"1", b"2"]


def test_a_forged_offset_far_ahead_burns_nothing() -> None:
    relays = chain()
    forged = HopHeader(
        link="a--b",
        epoch=1,
        offset=40_000,
        version=1,
        hops_left=9,
        left_ms=9,
        source="a",
        target="e",
        label="x",
    )
    message = HopMessage(header=msgspec.msgpack.encode(forged), locked=bytes(200))
    pool = relays["b"].port("a")
    before = pool.ledger()
    assert relays["b"].receive("a", msgspec.msgpack.encode(message), 0) == [Alarm("a")]
    assert pool.ledger() == before


def test_a_parcel_without_a_way_on_is_counted_where_it_came_from() -> None:
    relays = chain()
    relays["b"].install(ForwardingTable(version=2, next_hop={}), 0)
    relays["b"].install(ForwardingTable(version=3, next_hop={}), 0)
    relays["b"].receive("a", launch(relays["a"], parcel(b"k")).message, 0)
    assert relays["b"].counters("a") == {"dropped_route": 1}
