"""A newcomer's first minute: one command, the curl line it prints, and what became of the key."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.client014 import UUID
from tests.scenes.tools.ledgers import link_states
from tests.scenes.tools.network import Network, running

pytestmark = [pytest.mark.scene, pytest.mark.timeout(240)]

FIRST_KEY_TIMEOUT_S = 60.0
CALIBRATION_NS = 5_000_000_000


@pytest.fixture(scope="module")
def madqci(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running("madqci", tmp_path_factory.mktemp("first-key")) as network:
        yield network


class FirstKey:
    """What the printed curl line did, and the network before and after it."""

    def __init__(self, network: Network) -> None:
        self.before: dict[str, Any] = network.cli_json("status")
        self.messages_before: list[dict[str, Any]] = network.cli_json("messages")
        self.line = curl_line(network.printed())
        self.asked_ns = time.time_ns()
        self.done = subprocess.run(
            self.line,
            shell=True,
            capture_output=True,
            text=True,
            timeout=FIRST_KEY_TIMEOUT_S,
            cwd=network.folder,
            check=False,
        )
        self.answered_ns = time.time_ns()
        self.messages: list[dict[str, Any]] = network.cli_json("messages")

    @property
    def key(self) -> dict[str, str]:
        assert self.done.returncode == 0, (self.line, self.done)
        container = json.loads(self.done.stdout)
        found: dict[str, str] = container["keys"][0]
        return found


def curl_line(printed: str) -> str:
    """The first command line with curl in it, continued lines joined, marks and colours removed."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed).replace("\\\n", " ")
    for line in plain.splitlines():
        found = re.search(r"\bcurl\s.*", line)
        if found:
            return found.group(0).strip()
    raise AssertionError(f"up printed no curl line:\n{printed}")


@pytest.fixture(scope="module")
def first(madqci: Network) -> FirstKey:
    return FirstKey(madqci)


def test_the_pasted_curl_line_returns_a_key(first: FirstKey) -> None:
    key = first.key
    assert UUID.fullmatch(key["key_ID"])
    assert len(base64.b64decode(key["key"], validate=True)) == 32
    assert "--retry" in first.line


def test_nothing_is_up_before_the_first_request(first: FirstKey) -> None:
    states = link_states(first.before)
    assert len(states) == 9, states
    assert set(states.values()) == {"dark"}
    asked = [message for message in first.messages_before if message["method"] in ("place", "provide")]
    assert asked == []


def test_service_asks_fabric_and_fabric_asks_connectivity(first: FirstKey) -> None:
    assert [message["seq"] for message in first.messages] == sorted(m["seq"] for m in first.messages)
    calls = [message for message in first.messages if message["method"] in ("place", "provide")]
    placed = [message for message in calls if message["method"] == "place"]
    provided = [message for message in calls if message["method"] == "provide"]
    assert placed, first.messages[-20:]
    assert provided, first.messages[-20:]
    assert "fabric" in placed[0]["door"].lower()
    assert "connectivity" in provided[0]["door"].lower()
    assert placed[0]["seq"] < provided[0]["seq"]
    assert placed[0]["at_ns"] <= provided[0]["at_ns"]


def test_the_key_comes_after_calibration_not_before(first: FirstKey) -> None:
    provided = next(message for message in first.messages if message["method"] == "provide")
    waited_ns = first.answered_ns - first.asked_ns
    assert first.key
    assert CALIBRATION_NS <= waited_ns < FIRST_KEY_TIMEOUT_S * 1e9
    assert first.asked_ns - 1_000_000_000 <= provided["at_ns"] <= first.answered_ns - CALIBRATION_NS


def test_unit_show_prints_the_same_three_urns_at_both_kmes(madqci: Network, first: FirstKey) -> None:
    records = madqci.cli_json("unit", "show", first.key["key_ID"])
    assert len({record["owner"] for record in records}) == 2, records
    urns = [tuple(record["urns"]) for record in records]
    assert urns[0] == urns[1]
    assert len(set(urns[0])) == 3, urns[0]
    assert all(urn.startswith("urn:") for urn in urns[0])
    assert records[0]["digest"] == records[1]["digest"]
    printed = madqci.cli("unit", "show", first.key["key_ID"]).stdout
    assert all(urn in re.sub(r"\s+", "", printed) for urn in urns[0]), printed


def test_key_get_prints_identical_and_no_key(madqci: Network, first: FirstKey) -> None:
    assert first.key
    master, slave = madqci.sae_at("quijote").name, madqci.sae_at("quevedo").name
    printed = until_warm(madqci, "key", "get", master, slave)
    assert "identical" in printed
    found = re.search(UUID.pattern, printed)
    assert found, printed
    assert "256" in printed
    assert not re.search(r"[A-Za-z0-9+/]{43}=", printed), "the key itself needs --show"
    shown = until_warm(madqci, "key", "get", master, slave, "--show")
    assert len(shown) > len(printed)


def until_warm(network: Network, *arguments: str) -> str:
    """What a command prints; a cold pair may send it away for a while."""
    deadline_s = time.monotonic() + FIRST_KEY_TIMEOUT_S
    while True:
        done = network.cli(*arguments, check=False)
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < deadline_s, done
        time.sleep(0.5)


def test_paths_in_ready_are_absolute(madqci: Network) -> None:
    ready = madqci.ready()
    paths = [ready["ca"], *(sae[part] for sae in ready["saes"].values() for part in ("cert", "key"))]
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in paths)
    assert {sae["kme"] for sae in ready["saes"].values()} == set(ready["kmes"])
