"""One hour of MadQCI under the jump clock: the same seed gives the same keys at the same picosecond."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time

import pytest

from multiplane.api.north import KeyRequest
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import MultiplaneError
from multiplane.twin.scenario import load_shipped

PERIOD_S = 10


async def workload(study: Study, duration_s: int) -> dict[str, object]:
    """Every directed pair asks for one key each period, collects it at once, and tries again."""
    digest = hashlib.sha256()
    answered = refused = 0
    aliases = [alias for place in study.world.sites for alias in place.saes]
    site_of = {alias: place.name for place in study.world.sites for alias in place.saes}
    doors = {place.name: study.north(place.name) for place in study.world.sites}
    for round_s in range(0, duration_s, PERIOD_S):
        await study.clock.sleep_until_ps(round_s * 10**12)
        for master in aliases:
            for slave in aliases:
                if master == slave:
                    continue
                caller = study.caller(master)
                try:
                    (key,) = await doors[site_of[master]].issue_keys(caller, KeyRequest(peer=slave))
                except MultiplaneError as error:
                    refused += 1
                    digest.update(f"{master}>{slave} {study.clock.now_ps()} {error}\n".encode())
                    continue
                (same,) = await doors[site_of[slave]].collect_keys(
                    study.caller(slave), caller.principal, (key.key_id,)
                )
                assert same == key
                answered += 1
                digest.update(f"{key.key_id} {study.clock.now_ps()} ok ".encode() + key.key)
    ledgers = [
        ledger
        for site in study.sites.values()
        for ledger in (await site.kme.report(study.centre.caller)).ledgers
    ]
    assert len(ledgers) == 144
    assert all(ledger.closes for ledger in ledgers)
    await asyncio.sleep(0)
    return {"digest": digest.hexdigest(), "answered": answered, "refused": refused}


def run_in_a_process(seed: int, hash_seed: str, duration_s: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, __file__, str(seed), str(duration_s)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
        text=True,
    )
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.scene
@pytest.mark.timeout(300)
def test_an_hour_of_madqci_is_the_same_in_two_processes_and_a_hundred_times_faster() -> None:
    hour_s = 3600
    first = run_in_a_process(7, "1", hour_s)
    second = run_in_a_process(7, "2", hour_s)
    other = run_in_a_process(8, "1", hour_s)
    assert first["digest"] == second["digest"]
    assert first["digest"] != other["digest"]
    total = 72 * (hour_s // PERIOD_S)
    answered, refused, wall_s = (float(str(first[name])) for name in ("answered", "refused", "wall_s"))
    assert answered + refused == total
    assert refused <= 72  # only the first round may find the network cold
    assert hour_s / wall_s >= 100


@pytest.mark.slow
def test_a_hundred_seconds_of_madqci_are_the_same_twice_in_one_process() -> None:
    first, second = (
        run_study(load_shipped("madqci"), 7, lambda study: workload(study, 100)) for _ in range(2)
    )
    assert first == second
    assert int(str(first["answered"])) >= 72 * 8


if __name__ == "__main__":
    begun_s = time.perf_counter()
    result = run_study(
        load_shipped("madqci"), int(sys.argv[1]), lambda study: workload(study, int(sys.argv[2]))
    )
    sys.stdout.write(json.dumps({**result, "wall_s": time.perf_counter() - begun_s}) + "\n")
