"""With no more file descriptors than `doctor` says a network needs, it starts, serves and stays operable."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
from pathlib import Path

import pytest
from tests.scenes.tools.network import Network, command, run_cli
from tests.scenes.tools.pairs import Pair, ask_all

pytestmark = [pytest.mark.scene, pytest.mark.timeout(120)]

CLIENTS = 40
"""Connections that a crowd opens at each key manager: more than are left."""


def needed(scenario: str, folder: Path, *options: str) -> int:
    """What the doctor says."""
    (folder / "state").mkdir(parents=True)
    if options:
        (folder / "state" / "multiplane.toml").write_text("[up]\nspread = true\n")
    done = run_cli("doctor", scenario, "--state", str(folder / "state"), "--json", cwd=folder)
    [found] = [one["found"] for one in json.loads(done.stdout) if one["check"] == "host: descriptors"]
    return int(re.fullmatch(r".* needs (\d+)", found).group(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [(), ("--spread", "per-node")], ids=["one process", "per node"])
def test_what_the_doctor_says_is_enough(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = needed("ring6", tmp_path, *options)
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -n {need}\nexec {" ".join(command())} "$@"\n')
    limited.chmod(limited.stat().st_mode | stat.S_IXUSR)
    with monkeypatch.context() as scope:
        scope.setenv("MULTIPLANE_COMMAND", str(limited))
        network = Network("ring6", tmp_path, "--rate", "10", *options)
        network.start()
    try:
        asyncio.run(crowded(network, need))
        assert "cannot accept" not in network.tail()
    finally:
        network.stop()


async def crowded(network: Network, need: int) -> None:
    """Every pair gets a key, then a crowd comes; all commands work and keys go on."""
    pairs = [Pair(a, b, 1) for a in network.saes for b in network.saes if a != b]
    seen = await ask_all(network, pairs, 60.0)
    assert not seen.wrong
    assert not seen.missing
    held = []
    for name in network.kme_names:
        host, port = network.kme(name).url.removeprefix("https://").split(":")
        held += [await asyncio.open_connection(host, int(port)) for _ in range(CLIENTS)]
    pids = {network.kme(name).pid for name in network.kme_names}
    opened = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids}
    assert max(opened.values()) < need - 4, opened
    report = json.loads((await network.acli("status", "--json")).stdout)
    assert all(kme["serving"] for kme in report["kmes"])
    assert (await network.acli("key", "get", "alpha-1", "delta-1")).returncode == 0
    assert (await network.acli("state", "backup", "--out", str(network.folder / "b.zip"))).returncode == 0
    assert (await network.acli("pki", "renew", "alpha-1")).returncode == 0
    for _, writer in held:
        writer.close()
