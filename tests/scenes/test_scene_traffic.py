"""`up --traffic`: the applications of a scenario ask a running network, and what they did adds up."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest
from tests.scenes.tools.network import Network, auntil, running

pytestmark = [pytest.mark.scene, pytest.mark.timeout(90)]

SCENARIO = """
format = "multiplane-scenario/1"
name = "asked"
domain = "asked"
site = [{name = "a"}, {name = "b"}]

[defaults]
profile = "constant-rate"

[[link]]
a = "a"
b = "b"
length_km = 10
loss_db = 2
rate_bit_per_s = 1e6

[[entangled]]
a = "a"
b = "b"
type = "fixed"
fidelity = 0.98
success_probability = 0.5
handshake = "grant"
memories = 4

[[traffic]]
master = "*"
slave = "*"
process = "poisson"
rate_per_s = 4
number = 2

[[traffic]]
kind = "pairs"
link = "*"
process = "constant"
rate_per_s = 5
"""
RATE = 5.0
SERVED = 400.0
AFTER = 100.0
"""Requests served after a site's process was killed."""


@pytest.mark.parametrize("layout", [(), ("--spread", "per-node")])
def test_what_applications_asked_for_is_what_was_served(tmp_path: Path, layout: tuple[str, ...]) -> None:
    scenario = tmp_path / "asked.toml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    options = ("--rate", f"{RATE:g}", "--traffic", *layout)
    with running(str(scenario), tmp_path / "state", *options) as network:
        asyncio.run(_asked(network))
        if layout:
            os.kill(network.ready()["kmes"]["b"]["pid"], signal.SIGKILL)
            asyncio.run(_served(network, _metric(network, "traffic_served") + AFTER))
        assert network.stop() == 0
        assert "traffic.failed" not in "".join(path.read_text() for path in network.logs())


def test_traffic_of_a_scenario_without_any_is_refused(tmp_path: Path) -> None:
    network = Network("lab3", tmp_path)
    refused = network.cli("up", "lab3", "--state", str(tmp_path / "other"), "--traffic", check=False)
    assert refused.returncode == 2
    assert "expected [[traffic]] in it" in refused.stderr


async def _asked(network: Network) -> None:
    await _served(network, SERVED)
    seen = network.cli("metrics").stdout
    served, asked = _value(seen, "traffic_served"), _value(seen, "traffic_requests")
    assert served <= asked <= 1.1 * served + 30
    assert _value(seen, "traffic_delivered_bits") == 2 * 256 * served
    issued = sum(map(float, re.findall(r"multiplane_keys_issued_total{.*} (\S+)", seen)))
    assert 2 * served <= issued <= 2 * asked
    pairs = _value(seen, "traffic_pairs_heard")
    assert pairs <= _value(seen, "traffic_pairs_requested") <= 1.1 * pairs + 10
    # Two pairs of applications ask 4 times a second each, the link 5 times: five standard deviations.
    assert pairs == pytest.approx(asked * 5 / 8, abs=5 * asked**0.5)


async def _served(network: Network, number: float) -> None:
    await auntil(
        f"{number:g} requests are served", lambda: _metric(network, "traffic_served") >= number, 40.0
    )


def _metric(network: Network, name: str) -> float:
    return _value(network.cli("metrics").stdout, name)


def _value(text: str, name: str) -> float:
    found = re.search(rf"^multiplane_{name}_total (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found.group(1))
