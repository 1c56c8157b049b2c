"""A running network is followed and copied: a changed loss is found, a stock runs dry when foreseen."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.network import Network, running

from multiplane.assembly.fork_demand import Demand, Drawn, draw
from multiplane.kernel.errors import Busy
from multiplane.runtime.clocks import PacedClock
from multiplane.sdk.client import KeyClient

pytestmark = [pytest.mark.scene, pytest.mark.timeout(150)]

RATE = 2.0
DEMAND_BIT_PER_S = 8.0e5
NEW_LOSS_DB = 9.5
CHAIN = """
format = "multiplane-scenario/1"
name = "chain"
domain = "chain"
site = [{name = "a"}, {name = "m"}, {name = "b"}]

[[link]]
a = "a"
b = "m"
length_km = 40
loss_db = 8.0
profile = "decoy-bb84-1ghz"

[[link]]
a = "m"
b = "b"
length_km = 10
loss_db = 2
profile = "constant-rate"
rate_bit_per_s = 4e5
"""


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Network]:
    scenario = tmp_path / "chain.toml"
    scenario.write_text(CHAIN)
    with running(str(scenario), tmp_path, "--rate", f"{RATE:g}") as network:
        yield network


def test_a_network_is_followed_and_its_future_foreseen(
    chain: Network, record_property: Callable[[str, object], None]
) -> None:
    asyncio.run(_follow_and_foresee(chain, record_property))


async def _follow_and_foresee(network: Network, record_property: Callable[[str, object], None]) -> None:
    await network.acli("key", "get", "a", "b")
    calibrated = network.folder / "calibrated.toml"
    following = asyncio.create_task(
        network.acli("twin", "follow", "--for", "44s", "--write", str(calibrated), "--json")
    )
    await asyncio.sleep(5.0)
    await network.acli("link", "set", "a", "m", "--loss-db", f"{NEW_LOSS_DB:g}")
    lines = [json.loads(line) for line in (await following).stdout.splitlines()]
    known = {link["link"]: link for link in lines[-1]["links"]}
    assert known["a--m"]["loss_db"] == pytest.approx(NEW_LOSS_DB, rel=0.01)
    assert known["a--m"]["scenario_loss_db"] == 8.0
    assert abs(known["a--m"]["prediction_error"]) < 0.01
    assert known["b--m"]["rate_bit_per_s"] == pytest.approx(4e5)
    assert f"{known['a--m']['loss_db']:.2f}"[:3] in calibrated.read_text()

    demand = f"a--b={DEMAND_BIT_PER_S:g}"
    before = await network.acli_json("status")
    forecast = await network.acli_json("twin", "fork", "--demand", demand, "--not-measured", "--for", "60s")
    foreseen = next(pair for pair in forecast["pairs"] if (pair["owner"], pair["peer"]) == ("a", "b"))
    assert foreseen["dry_after_s"] is not None
    after = await network.acli_json("status")
    ours, theirs = (_delivered_bit(report) for report in (before, after))
    assert ours == theirs, "a copy takes nothing from the network"

    drawn = Drawn()
    await _until_dry(network, drawn)
    assert drawn.dry_ns is not None
    record_property("saw", f"dry after {drawn.dry_ns / 1e9:.2f} s, foreseen {foreseen['dry_after_s']:.2f} s")
    assert foreseen["dry_after_s"] == pytest.approx(drawn.dry_ns / 1e9, rel=0.05)


def _delivered_bit(report: Any) -> int:
    """Key that went into answers."""
    return sum(int(ledger["delivered_bit"]) for kme in report["kmes"] for ledger in kme["ledgers"])


async def _until_dry(network: Network, drawn: Drawn) -> None:
    """Ask over ETSI GS QKD 014, in the network's own time, until the first refusal."""
    sae, peer = network.sae_at("a"), network.sae_at("b")
    clock, refused = PacedClock(time.time_ns(), RATE), asyncio.Event()
    async with KeyClient(network.url("a"), network.ca, sae.cert, sae.key) as client:

        async def issue(owner: str, to: str, number: int) -> None:
            del owner, to
            try:
                await client.enc_keys(peer.name, number, 256)
            except Busy:
                refused.set()
                raise

        demand = Demand(owner="a", peer="b", rate_bit_per_s=DEMAND_BIT_PER_S)
        asking = asyncio.create_task(draw(clock, issue, demand, drawn, chance=None))
        await asyncio.wait_for(refused.wait(), 60.0)
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
