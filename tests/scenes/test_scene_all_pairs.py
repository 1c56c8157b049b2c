"""Every directed pair of MadQCI over trusted hops, by clients that know nothing but the standard."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.scenes.tools.accounts import Book
from tests.scenes.tools.client014 import NOT_FOUND, Client014, Key, Said
from tests.scenes.tools.ledgers import ledgers_close, pools
from tests.scenes.tools.network import FULL, Network, installed, running
from tests.scenes.tools.traffic import Traffic, replay, settle

pytestmark = [pytest.mark.scene, pytest.mark.alone, pytest.mark.timeout(300)]

TTL_S = 6.0
EXPIRY_LAG_S = 5.0
LOADED_PAIRS = 20_000 if FULL else 5_000


@pytest.fixture(scope="module")
def madqci(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running("madqci", tmp_path_factory.mktemp("all-pairs"), "--rate", "4") as network:
        yield network


def site_pairs(network: Network) -> list[tuple[str, str]]:
    """One (master, slave) for every ordered pair of sites."""
    names = [network.sae_at(site).name for site in network.kme_names]
    return list(itertools.permutations(names, 2))


def test_all_72_pairs_get_identical_keys_under_load(
    madqci: Network, record_property: Callable[[str, object], None]
) -> None:
    book = Book()
    asyncio.run(_all_pairs(madqci, book))
    record_property("saw", f"72 directed pairs; {book.summary()}")


async def _all_pairs(network: Network, book: Book) -> None:
    pairs = site_pairs(network)
    assert len(pairs) == 72
    traffic = Traffic(network, book, pairs, workers=8)
    for pair in pairs:
        if not traffic.answered[pair]:
            await traffic.reaches(f"first key of {pair}", 1, 60.0, pair)
    await traffic.reaches("pairs under load", LOADED_PAIRS, 240.0)
    await traffic.stop()
    assert all(traffic.answered[pair] for pair in pairs)
    assert book.counts["dec 503"] == 0, "dec_keys at once after enc_keys must succeed every time"
    assert book.counts["enc lost"] == book.counts["in doubt"] == 0, book.summary()
    book.verify(at_least=LOADED_PAIRS)
    book.verify_settled()
    assert await replay(network, book, 200) == 200
    await settle(network, book, 30.0)
    book.verify(at_least=LOADED_PAIRS)
    await ledgers_close(network)


def test_who_may_not_collect(tmp_path: Path) -> None:
    """Two applications at bob: at the KME that holds the key, 401 and 400 can be told apart."""
    path = tmp_path / "lab.toml"
    path.write_text(installed("lab3").replace('name = "bob"', 'name = "bob"\nsaes = ["bob-1", "bob-2"]'))
    with running(str(path), tmp_path) as network:
        asyncio.run(_strangers(network))


async def _strangers(network: Network) -> None:
    clients = {name: network.client(name) for name in network.saes}
    alice, bob, other = (clients[name] for name in ("alice-1", "bob-1", "bob-2"))
    try:
        key = await first_key(alice, "bob-1")
        foreign = await first_key(clients["relay-1"], "bob-1")
        await refused(other, "alice-1", [key.key_id], 401)
        await refused(other, "alice-1", [str(uuid.uuid4()), key.key_id], 401, 400)
        await refused(alice, "alice-1", [key.key_id], 401)
        await refused(clients["relay-1"], "alice-1", [key.key_id], 401, 400)
        await refused(bob, "relay-1", [key.key_id], 400)
        await refused(bob, "alice-1", [foreign.key_id], 400)
        await refused(bob, "alice-1", [str(uuid.uuid4())], 400)
        await refused(bob, "alice-1", [key.key_id, str(uuid.uuid4())], 400)
        await refused(bob, "alice-1", [flip(key.key_id)], 400)
        assert await bob.dec("alice-1", [key.key_id]) == [key], "refusals must consume nothing"
        await refused(bob, "alice-1", [key.key_id], 400)
        await refused(bob, network.saes["alice-1"].urn, [key.key_id], 400)
        await refused(other, "alice-1", [key.key_id], 401, 400)
        assert await bob.dec("relay-1", [foreign.key_id]) == [foreign]
    finally:
        for client in clients.values():
            await client.close()


def flip(key_id: str) -> str:
    """The same id with one free digit changed."""
    return key_id[:-1] + ("0" if key_id[-1] != "0" else "1")


async def first_key(client: Client014, slave: str) -> Key:
    """A key, however cold the pair is."""
    for _ in range(60):
        try:
            return (await client.enc(slave))[0]
        except Said as said:
            if said.status != 503:
                raise
            await asyncio.sleep(said.retry_after_s)
    raise AssertionError("no key within a minute of tries")


async def refused(client: Client014, master: str, key_ids: list[str], *statuses: int) -> None:
    """`dec_keys` is refused with one of `statuses`, and with the text of the standard where it has one."""
    with pytest.raises(Said) as caught:
        await client.dec(master, key_ids)
    assert caught.value.status in statuses, caught.value
    if caught.value.status == 400:
        assert caught.value.message == NOT_FOUND


def test_an_expired_key_is_not_found(tmp_path: Path) -> None:
    """A key collected within its time shows that the one that was not could have been."""
    settings = tmp_path / "state" / "multiplane.toml"
    settings.parent.mkdir()
    settings.write_text(f"[keys]\nttl_s = {TTL_S}\n")
    with running("pair", tmp_path) as network:
        asyncio.run(_expire(network))


async def _expire(network: Network) -> None:
    near, far = network.client("alice-1"), network.client("bob-1")
    try:
        early = await first_key(near, "bob-1")
        late = [await first_key(near, "bob-1")]
        for _ in range(3):
            late += await near.enc("bob-1", 100)
        await asyncio.sleep(TTL_S / 2)
        assert await far.dec("alice-1", [early.key_id]) == [early], "expired before its time"
        await asyncio.sleep(TTL_S / 2 + EXPIRY_LAG_S)
        for key in (late[0], late[-1]):
            await refused(far, "alice-1", [key.key_id], 400)
    finally:
        await near.close()
        await far.close()
    report = await ledgers_close(network)
    expired_bit = {name: ledger["expired_bit"] for name, ledger in pools(report).items()}
    assert expired_bit["bob", "alice", "far"] >= 100 * 256, expired_bit
