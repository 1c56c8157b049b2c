"""Keys with several slaves over real processes: identical everywhere, through kills on every side."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.scenes.tools.network import Network, installed

from multiplane.api.north import Key
from multiplane.kernel.errors import Busy, Faulty, Refused, Unknown
from multiplane.sdk.client import KeyClient

pytestmark = [pytest.mark.scene, pytest.mark.timeout(120)]

FAULTS = "alice:kill@multicast.after:6,bob:kill@copies.before:4,relay:kill@copies.after:8"
SLAVES = ("bob-1", "relay-1", "alice-2")
ROUNDS = 30


def test_keys_with_several_slaves_survive_kills_on_every_side(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(
        installed("lab3").replace('name = "alice"', 'name = "alice"\nsaes = ["alice-1", "alice-2"]')
    )
    network = Network(
        str(path), tmp_path, "--spread", "per-node", "--rate", "10", env={"MULTIPLANE_FAULTS": FAULTS}
    )
    network.start()
    try:
        asyncio.run(_scene(network))
    except BaseException as error:
        error.add_note(network.tail())
        network.stop(check=False)
        raise
    network.stop()


async def _scene(network: Network) -> None:
    pids = {name: network.kme(name).pid for name in network.kme_names}
    async with AsyncExitStack() as stack:
        clients = {}
        for name, sae in network.saes.items():
            client = KeyClient(network.url(sae.kme), network.ca, sae.cert, sae.key, timeout_s=15.0)
            clients[name] = await stack.enter_async_context(client)
        answered: list[Key] = []
        for _ in range(ROUNDS):
            try:
                answered += await clients["alice-1"].enc_keys("bob-1", 4, others=SLAVES[1:], retry_for_s=20.0)
            except (Faulty, Unknown, Busy):
                await asyncio.sleep(0.5)
        assert len(answered) >= 4 * (ROUNDS - 10)
        assert len({key.key for key in answered}) == len(answered)
        for slave in SLAVES:
            ids = [key.key_id for key in answered]
            got = await _collected(clients[slave], ids)
            assert list(got) == answered
            with pytest.raises(Refused):
                await clients[slave].dec_keys("alice-1", ids[:1])
    died = [name for name, pid in pids.items() if network.kme(name).pid != pid]
    assert sorted(died) == ["alice", "bob", "relay"], "every side was to be killed once"
    records = await network.acli_json("unit", "show", answered[-1].key_id)
    units = records["units"] if isinstance(records, dict) else records
    assert len({tuple(unit["urns"]) for unit in units}) == 1
    assert {len(unit["urns"]) for unit in units} == {5}
    assert {unit["owner"].split(":")[3] for unit in units} == {"alice", "bob", "relay"}


async def _collected(client: KeyClient, ids: list[str]) -> tuple[Key, ...]:
    for _ in range(40):
        try:
            return await client.dec_keys("alice-1", ids, retry_for_s=5.0)
        except (Faulty, Busy):
            await asyncio.sleep(0.5)
    raise AssertionError("the key manager did not come back")
