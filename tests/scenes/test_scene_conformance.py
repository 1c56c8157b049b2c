"""The probe of ETSI GS QKD 014 against a running network: its own servers do what the standard says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.scenes.tools.network import Network, installed, run_cli, running

pytestmark = [pytest.mark.scene, pytest.mark.timeout(180)]

OUT_OF_REACH = {"nameless_certificate", "expired_certificate", "unmet_extension", "memory", "lost_answer"}
DEPENDS_ON_STOCK = {"dry_stock", "stored_falls"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The shipped pair, with a second application at bob."""
    folder = tmp_path_factory.mktemp("conformance")
    scenario = folder / "pair.toml"
    text = installed("pair")
    assert 'name = "bob"\n' in text
    scenario.write_text(text.replace('name = "bob"\n', 'name = "bob"\nsaes = ["bob-1", "bob-2"]\n'))
    with running(str(scenario), folder / "network") as network:
        yield network


def arguments(network: Network, url: str, peer_url: str) -> list[str]:
    """The command with everything that it takes."""
    alice, bob, third = (network.saes[name] for name in ("alice-1", "bob-1", "bob-2"))
    given = {
        "--peer-url": peer_url,
        "--ca": network.ca,
        "--cert": alice.cert,
        "--key": alice.key,
        "--slave-id": bob.urn,
        "--slave-cert": bob.cert,
        "--slave-key": bob.key,
        "--other-id": third.urn,
        "--other-cert": third.cert,
        "--other-key": third.key,
    }
    return ["conformance", url, *(word for option in given.items() for word in option)]


def probed(network: Network) -> tuple[int, dict[str, Any], str]:
    """Exit code, report, and what was printed."""
    done = run_cli(*arguments(network, network.url("alice"), network.url("bob")), "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stdout


def test_our_own_servers_pass(pair: Network, record_property: Callable[[str, object], None]) -> None:
    code, report, printed = probed(pair)
    verdicts = {point["name"]: point["verdict"] for point in report["points"]}
    assert code == 0, printed
    assert report["outcome"] == "pass"
    assert set(verdicts.values()) <= {"pass", "not tested"}, printed
    untested = {name for name, verdict in verdicts.items() if verdict == "not tested"}
    assert untested <= OUT_OF_REACH | DEPENDS_ON_STOCK, printed
    told = pair.cli_json("status")["kmes"]
    delivered_bit = {kme["name"]: sum(pool["delivered_bit"] for pool in kme["ledgers"]) for kme in told}
    assert report["keys_taken"] * 64 <= delivered_bit["alice"] <= (report["keys_taken"] + 8) * 256
    record_property("saw", f"{len(verdicts)} points, {report['keys_taken']} keys, {report['duration_s']} s")


def test_the_table_is_for_people_and_no_key_is_in_it(pair: Network) -> None:
    done = run_cli(*arguments(pair, pair.url("alice"), pair.url("bob")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5.4, Table 7" in done.stdout
    assert "0 deviation" in done.stdout.splitlines()[-2]


def test_what_cannot_be_asked_is_one_line_and_2(pair: Network) -> None:
    for url in ("https://127.0.0.1:1", pair.url("alice").replace("https", "http"), "nonsense"):
        done = run_cli(*arguments(pair, url, pair.url("bob")))
        assert done.returncode == 2, done
        assert len(done.stderr.splitlines()) == 1, done
