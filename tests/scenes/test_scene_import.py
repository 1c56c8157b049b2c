"""From a map to a key: an imported network runs, and its relays carry keys without serving anybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenes.tools.network import Network, run_cli, running

pytestmark = [pytest.mark.scene, pytest.mark.timeout(120)]

MAP = {
    "format": "qnet-topology/1",
    "name": "long-line",
    "length_basis": "fibre length, made up",
    "nodes": [{"name": "Åland"}, {"name": "Bergen"}, {"name": "Celle"}],
    "links": [
        {"a": "Åland", "b": "Bergen", "km": 130.0},
        {"a": "Bergen", "b": "Celle", "km": 12.0, "loss_db": 3.0},
    ],
}


def test_a_map_becomes_a_network_with_keys_over_a_relay(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    done = run_cli("import", "map.json", "--out", "line.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done
    report = json.loads(done.stdout)
    assert (report["sites"], report["relays"], report["spans"]) == (3, 1, 3)
    network: Network
    with running(str(tmp_path / "line.toml"), tmp_path / "run") as network:
        assert network.kme_names == ["aland", "bergen", "celle"]  # nobody listens at aland-bergen-r1
        spans = network.cli_json("topology", "show")
        assert {tuple(span["ends"]["sites"]): span["length_km"] for span in spans} == {
            ("aland", "aland-bergen-r1"): 65.0,
            ("aland-bergen-r1", "bergen"): 65.0,
            ("bergen", "celle"): 12.0,
        }
        (key,) = network.cli_json("key", "get", "aland", "celle")
        assert key["identical"] is True
    record_property("saw", f"{report['sites']} sites, {report['relays']} relay, one key over 3 hops")
