"""A running network is followed and copied: a changed loss is found, the copy costs no key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.network import Network, running

pytestmark = [pytest.mark.scene, pytest.mark.alone, pytest.mark.timeout(150)]

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

    await _follow_from_elsewhere(network)
    demand = f"a--b={DEMAND_BIT_PER_S:g}"
    before = await network.acli_json("status")
    forecast = await network.acli_json("twin", "fork", "--demand", demand, "--not-measured", "--for", "60s")
    foreseen = next(pair for pair in forecast["pairs"] if (pair["owner"], pair["peer"]) == ("a", "b"))
    assert 4.0 < foreseen["dry_after_s"] < 20.0, "1 to 5 Mbit at 800 kbit/s, refilled with 200 at most"
    after = await network.acli_json("status")
    ours, theirs = (_delivered_bit(report) for report in (before, after))
    assert ours == theirs, "a copy takes nothing from the network"

    record_property("saw", f"loss {known['a--m']['loss_db']:.3f} dB, dry in {foreseen['dry_after_s']:.2f} s")


async def _follow_from_elsewhere(network: Network) -> None:
    """The same over the operations listener: as the operator, and not as an application."""
    operations, sae = network.ready()["operations"], network.sae_at("a")

    def follow(cert: str, key: str) -> tuple[str, ...]:
        where = ("--scenario", network.scenario, "--ca", network.ca, "--cert", cert, "--key", key)
        return ("twin", "follow", operations["url"], *where, "--for", "4s", "--every", "1s", "--json")

    lines = (await network.acli(*follow(operations["cert"], operations["key"]))).stdout.splitlines()
    known = {link["link"]: link for link in json.loads(lines[-1])["links"]}
    assert known["a--m"]["loss_db"] == pytest.approx(NEW_LOSS_DB, rel=0.01)
    assert known["a--m"]["readings"] == len(lines) >= 4
    refused = await asyncio.to_thread(network.cli, *follow(sae.cert, sae.key), check=False)
    assert refused.returncode != 0
    assert "use the operator's certificate" in refused.stderr
    assert "Traceback" not in refused.stderr


def _delivered_bit(report: Any) -> int:
    """Key that went into answers."""
    return sum(int(ledger["delivered_bit"]) for kme in report["kmes"] for ledger in kme["ledgers"])
