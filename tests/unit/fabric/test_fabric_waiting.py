"""The line for a link's key: shares, first parcels, bounds."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from multiplane.api.service_fabric import Parcel
from multiplane.fabric.resource.waiting import PAIR_LIMIT, WAITING_LIMIT, Waiting, Waitlist
from multiplane.security.onetime import PAD_OVERHEAD_BYTE


def item(source: str, size_byte: int = 2048, label: str = "", due_ns: int = 1) -> Waiting:
    parcel = Parcel(source=source, target="t", label=label, payload=bytes(size_byte))
    return Waiting(parcel, 1, 9, due_ns)


def serve(line: Waitlist) -> Waiting:
    first = line.first()
    assert first is not None
    line.pop()
    return first


@given(sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 4096), min_size=2))
def test_pairs_that_always_wait_get_the_same_bytes(sizes: dict[str, int]) -> None:
    line, got = Waitlist(), Counter[str]()
    for source, size_byte in sizes.items():
        for _ in range(PAIR_LIMIT):
            assert line.add(item(source, size_byte)) is None
    for _ in range(400):
        source = serve(line).parcel.source
        got[source] += sizes[source] + PAD_OVERHEAD_BYTE
        assert line.add(item(source, sizes[source])) is None
    largest = max(sizes.values()) + PAD_OVERHEAD_BYTE
    assert max(got[source] for source in sizes) - min(got[source] for source in sizes) <= 2 * largest


def test_who_asks_for_less_than_its_share_gets_all_of_it() -> None:
    line, got = Waitlist(), Counter[str]()
    for _ in range(PAIR_LIMIT):
        line.add(item("greedy"))
        line.add(item("also-greedy"))
    for turn in range(400):
        if turn % 10 == 0:
            line.add(item("modest"))
        source = serve(line).parcel.source
        got[source] += 1
        if source != "modest":
            line.add(item(source))
    assert got["modest"] == 40
    assert abs(got["greedy"] - got["also-greedy"]) <= 1


@given(waiting=st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_the_first_of_a_pair_passes_all_but_firsts(waiting: list[str]) -> None:
    line = Waitlist()
    for source in waiting:
        line.add(item(source))
    line.add(item("new"))
    before = 0
    while serve(line).parcel.source != "new":
        before += 1
    assert before == len(set(waiting))


def test_parcels_that_waited_in_vain_count_for_nothing_in_their_pairs_share() -> None:
    line = Waitlist()
    for _ in range(PAIR_LIMIT - 1):
        line.add(item("unlucky", due_ns=1))
    line.add(item("unlucky", label="left", due_ns=9))
    assert line.expire(1) == PAIR_LIMIT - 1
    for _ in range(4):
        line.add(item("other", due_ns=9))
        line.add(item("unlucky", due_ns=9))
    got = [serve(line) for _ in range(9)]
    assert got[0].parcel.label == "left"
    assert [one.parcel.source for one in got[1:]] == ["other", "unlucky"] * 4


def test_within_a_pair_and_a_size_order_is_kept() -> None:
    line = Waitlist()
    for number in range(PAIR_LIMIT):
        line.add(item("a", label=str(number)))
    assert [serve(line).parcel.label for _ in range(PAIR_LIMIT)] == [str(n) for n in range(PAIR_LIMIT)]


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.integers(1, 3000), st.integers(1, 50)),
            st.just("serve"),
            st.integers(1, 50),
        ),
        max_size=120,
    )
)
def test_nothing_is_lost_or_kept_beyond_its_time(steps: list[object]) -> None:
    line, now_ns = Waitlist(), 0
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            source, size_byte, life_ns = step
            given_item = item(source, size_byte, str(number), now_ns + life_ns)
            if line.add(given_item) is None:
                assert given_item in list(line)
            else:
                assert sum(other.pair == given_item.pair for other in line) == PAIR_LIMIT
        elif step == "serve":
            if line.first() is not None:
                serve(line)
        else:
            assert isinstance(step, int)
            now_ns += step
            late = [other for other in line if other.due_ns <= now_ns]
            assert line.expire(now_ns) == len(late)
            assert all(other.due_ns > now_ns for other in line)
        assert line.next_due_ns() == min((other.due_ns for other in line), default=None)


def test_a_full_line_makes_room_for_a_first_parcel_at_the_cost_of_the_last() -> None:
    line = Waitlist()
    for number in range(WAITING_LIMIT // PAIR_LIMIT):
        for turn in range(PAIR_LIMIT):
            assert line.add(item(f"s{number}", label=str(turn))) is None
    displaced = line.add(item("new"))
    assert displaced is not None
    assert displaced.parcel.label == str(PAIR_LIMIT - 1)
    assert len(line) == WAITING_LIMIT
    last = item("s0", 9)
    assert line.add(last) is last or len(line) == WAITING_LIMIT
