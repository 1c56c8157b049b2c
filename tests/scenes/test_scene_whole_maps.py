"""Imported maps of real networks in one process: ready soon, quiet at rest, and keys between far ends.

A sample is one map and 40 pairs; MULTIPLANE_FULL=1 takes all five and min(200, all) pairs of each.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenes.tools.network import FULL, Network, run_cli, running, stat_fields
from tests.scenes.tools.pairs import MOST_PAIRS, ask_all, choose

pytestmark = [pytest.mark.scene, pytest.mark.timeout(600 if FULL else 150)]

SHARED = Path(os.environ.get("MULTIPLANE_SHARED", Path(__file__).parents[3] / "shared"))
MAPS = ("cambridge-2019", "coronet-conus", "geant-2012", "madqci-2024", "nobel-germany")
READY_S = 20.0
KEYS_S = 30.0
MEMORY_MB = 600.0
REST_SHARE = 0.10
REST_S = 20.0 if FULL else 5.0
DESCRIPTORS = 24
"""Descriptors of the process besides one for each listener."""


@pytest.mark.parametrize("name", MAPS if FULL else ["nobel-germany"])
def test_a_whole_map_is_ready_rests_and_gives_keys(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = imported(name, tmp_path)
    network = Network(str(path), tmp_path)
    took_s = network.start(timeout_s=READY_S)
    try:
        assert network.process is not None
        pid = network.process.pid
        time.sleep(2.0)
        share = rest_share(pid)
        opened = len(os.listdir(f"/proc/{pid}/fd")) - len(network.kme_names)
        pairs = choose(path, network, MOST_PAIRS if FULL else 40)
        seen = asyncio.run(ask_all(network, pairs, KEYS_S))
        memory_mb = rss_mb(pid)
    except BaseException as error:
        error.add_note(network.tail())
        network.stop(check=False)
        raise
    network.stop()
    record_property(
        "saw",
        f"{name}: ready in {took_s:.1f} s, {100 * share:.1f} % of a core at rest, {memory_mb:.0f} MB, "
        f"{opened} descriptors besides listeners; {seen.summary()}",
    )
    assert not seen.wrong, seen.wrong[:5]
    assert not seen.missing, seen.missing[:5]
    assert memory_mb <= MEMORY_MB
    assert share <= REST_SHARE
    assert opened <= DESCRIPTORS


def imported(name: str, folder: Path) -> Path:
    """The scenario that `multiplane import` makes of a map of the reference data."""
    source, path = SHARED / "topologies" / f"{name}.json", folder / f"{name}.toml"
    if not source.exists():
        pytest.skip(f"1 map was not run: no {source.name} (set MULTIPLANE_SHARED)")
    done = run_cli("import", str(source), "--out", str(path))
    assert done.returncode == 0, done
    return path


def rest_share(pid: int) -> float:
    """Share of a core that the process takes while nobody asks for anything."""
    before, began_s = cpu_ticks(pid), time.monotonic()
    time.sleep(REST_S)
    return (cpu_ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began_s)


def cpu_ticks(pid: int) -> int:
    """User and system time of a process so far."""
    fields = stat_fields(pid)
    return int(fields[11]) + int(fields[12])


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_more_sites_than_processes_are_not_spread(tmp_path: Path) -> None:
    path = imported("nobel-germany", tmp_path)
    done = run_cli("up", str(path), "--spread", "per-node", "--state", str(tmp_path / "state"), cwd=tmp_path)
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    assert "65 sites" in line
    assert "leave --spread away" in line
    assert not (tmp_path / "state").exists()


CHAIN = """format = "multiplane-scenario/1"
name = "chain"
domain = "chain"
[defaults]
profile = "constant-rate"
[[site]]
name = "a"
[[site]]
name = "r"
saes = []
[[site]]
name = "b"
[[link]]
a = "a"
b = "r"
length_km = 70
loss_db = 14
rate_bit_per_s = 1e6
[[link]]
a = "r"
b = "b"
length_km = 70
loss_db = 14
rate_bit_per_s = 1e6
"""


@pytest.mark.parametrize("options", [(), ("--spread", "per-node")])
def test_a_relay_has_no_key_manager_and_no_listener(options: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "chain.toml"
    path.write_text(CHAIN)
    with running(str(path), tmp_path, *options) as network:
        assert network.kme_names == ["a", "b"]
        assert sorted(network.saes) == ["a-1", "b-1"]
        seen = asyncio.run(ask_all(network, choose(path, network), KEYS_S))
        assert (seen.wrong, seen.missing, seen.hops) == ([], [], (2, 2))
        assert {kme["name"] for kme in network.cli_json("status")["kmes"]} == {"a", "b"}
        if not options:
            assert not (network.state / "pki" / "kme" / "r.pem").exists()
