"""A source over real mutual TLS, against a server that shares no code with ours, right or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.web import ALICE, BOB, Authority, Credential
from tests.support.wrong_kme import WrongKme, wrong_kme

from multiplane.api.north import Key
from multiplane.assembly.feeds.settings import FeedEnd
from multiplane.assembly.feeds.source import Source, Terms, checked, in_order, pause_s
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused

T = TypeVar("T")


class Cast:
    """An authority's certificates, another authority's, and the ends of a link between two applications."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = Authority(folder), Authority(folder, "other")
        self.server = ours.issue("kme", common_name="kme")
        self.alice, self.bob = ours.application(ALICE), ours.application(BOB)
        self.stranger = theirs.application(ALICE)

    def end(self, url: str, credential: Credential, own: str, peer: str) -> FeedEnd:
        return FeedEnd(
            link="a--b", site="a", peer="b", url=url, ca=str(self.server.ca), cert=str(credential.cert),
            key=str(credential.key), sae_id=own, peer_sae_id=peer, rate_bit_per_s=1e6,
        )  # fmt: skip

    def ask(self, question: Callable[[Source, Source, WrongKme], Awaitable[T]], *defects: str) -> T:
        """Put a question to both ends of a server with these defects."""

        async def go() -> T:
            async with wrong_kme(self.server, *defects) as (url, kme):
                near = Source(self.end(url, self.alice, ALICE, BOB))
                far = Source(self.end(url, self.bob, BOB, ALICE))
                try:
                    return await question(near, far, kme)
                finally:
                    await near.forget()
                    await far.forget()

        return asyncio.run(go())


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast(tmp_path_factory.mktemp("feeds"))


def test_both_ends_get_the_same_bytes_of_the_largest_keys_offered(cast: Cast) -> None:
    async def question(near: Source, far: Source, kme: WrongKme) -> None:
        assert await near.terms() == Terms(size_byte=128, most=16)
        keys = await near.draw(5)
        ids = [key.key_id for key in keys]
        assert await far.collect(ids, 5 * 128) == b"".join(key.key for key in keys)
        assert kme.requests == 3
        with pytest.raises(Refused, match="not found"):
            await far.collect(ids, 5 * 128)

    cast.ask(question)


async def failure(end: FeedEnd) -> MultiplaneError:
    """Why a source at this end gives no key."""
    source = Source(end)
    try:
        with pytest.raises(MultiplaneError) as caught:
            await source.draw(1)
    finally:
        await source.forget()
    return caught.value


async def draw(near: Source, far: Source, kme: WrongKme) -> None:
    """As the leading end does."""
    del kme
    keys = await near.draw(4)
    await far.collect([key.key_id for key in keys], 4 * 128)


@pytest.mark.parametrize(
    ("defect", "kind", "reason"),
    [
        ("bits_as_bytes", Faulty, "expected keys of 1024 bit, got one of 8192"),
        ("always_503", Busy, "the stock is empty"),
        ("capital_keys", Faulty, "expected a KeyContainer"),
        ("status_lacks", Faulty, "expected a Status"),
        ("hostile", MultiplaneError, ""),
    ],
)
def test_a_server_that_is_wrong_is_found_out(
    cast: Cast, defect: str, kind: type[MultiplaneError], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        cast.ask(draw, defect)
    assert reason in caught.value.reason


def test_a_certificate_of_another_authority_is_turned_away_on_either_side(cast: Cast) -> None:
    async def question(near: Source, far: Source, kme: WrongKme) -> None:
        del far
        url = near._end.url
        turned_away = await failure(cast.end(url, cast.stranger, ALICE, BOB))
        assert "certificate" in turned_away.reason
        not_taken = await failure(replace(near._end, ca=str(cast.stranger.ca)))
        assert (not_taken.code, "not accepted" in not_taken.reason) == ("http.certificate", True)
        assert kme.requests == 0

    cast.ask(question)


def test_certificates_that_lie_in_the_files_later_are_used_after_a_failure(
    cast: Cast, tmp_path: Path
) -> None:
    async def question(near: Source, far: Source, kme: WrongKme) -> None:
        del far, kme
        end = replace(near._end, cert=str(tmp_path / "late.pem"))
        source = Source(end)
        with pytest.raises(Refused, match=r"late\.pem: cannot be read"):
            await source.draw(1)
        (tmp_path / "late.pem").write_bytes(cast.alice.cert.read_bytes())
        await source.forget()
        assert len(await source.draw(1)) == 1
        await source.forget()

    cast.ask(question)


def test_nothing_listens(cast: Cast) -> None:
    async def question(near: Source, far: Source, kme: WrongKme) -> None:
        del far, kme
        assert (await failure(replace(near._end, url="https://127.0.0.1:1"))).code == "http.unreachable"

    cast.ask(question)


@given(
    terms=st.builds(
        lambda size, most: Terms(size_byte=size, most=most), st.integers(1, 512), st.integers(1, 1024)
    ),
    room=st.integers(0, 10**7),
    rate=st.floats(1e-3, 1e12),
)
def test_a_request_fits_the_room_the_terms_and_a_second_of_the_rate(
    terms: Terms, room: int, rate: float
) -> None:
    number = terms.number(room, rate)
    assert 0 <= number <= terms.most
    assert number * terms.size_byte <= room
    assert number <= 1 or number * terms.size_byte * 8 <= rate
    assert number >= 1 or room < terms.size_byte


def key(name: str, size_byte: int = 4) -> Key:
    return Key(key_id=name, key=name.encode() * size_byte)


def test_answers_that_are_no_answer_are_refused() -> None:
    terms = Terms(size_byte=4, most=9)
    assert checked([key("a"), key("b")], terms, 2) == (key("a"), key("b"))
    for wrong in ([], [key("a"), key("a")], [key("a"), key("b"), key("c")], [key("a", 3)]):
        with pytest.raises(Faulty):
            checked(wrong, terms, 2)
    assert in_order([key("b"), key("a")], ["a", "b"], 8) == b"aaaabbbb"
    for wrong in ([], [key("a")], [key("a"), key("c")], [key("a"), key("b", 5)], [key("a"), key("a")]):
        with pytest.raises(Faulty):
            in_order(wrong, ["a", "b"], 8)


def test_no_server_makes_us_hurry_or_sleep_for_ever() -> None:
    assert [pause_s(Busy("x", "x", retry_after_ns=n)) for n in (0, 3 * 10**9, 10**18)] == [0.1, 3.0, 60.0]
