"""The control of units is killed while orders are placed and states flow, over real processes.

What flows goes on under the next one, each wish in the meantime comes to one end at all its ends, and in the
end nothing is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from tests.scenes.tools.network import Network, alive, auntil, command_line, descendants, running
from tests.scenes.tools.units import Follower, quis, speaking_as
from tests.support.shared import scenario

from multiplane.api.units import Answer
from multiplane.kernel.errors import Busy
from multiplane.sdk.units import UnitClient
from multiplane.sdk.wishes import bell

pytestmark = [pytest.mark.scene, pytest.mark.timeout(180)]

RATE = 2
PATIENCE_S = 40.0
VALID_S = 12.0


def control_pid(network: Network) -> int:
    """The process of the control of units, 0 while there is none."""
    assert network.process is not None
    found = [pid for pid in descendants(network.process.pid) if "unit_control_process" in command_line(pid)]
    return found[0] if found else 0


class Placing:
    """Wishes for one pair, one after the other, until told to stop; each is answered or turned down."""

    def __init__(self, client: UnitClient, peers: dict[str, UnitClient]) -> None:
        self._client, self._peers = client, list(peers.items())
        self.accepted: list[tuple[Answer, UnitClient, UnitClient]] = []
        self.ends: Counter[str] = Counter()
        self.under_way = False
        self.over = asyncio.Event()

    async def run(self) -> None:
        number = 0
        while not self.over.is_set():
            peer, far = self._peers[number % len(self._peers)]
            number += 1
            self.under_way = True
            try:
                answer = await self._client.request(bell(peer, valid_s=VALID_S))
            except Busy as error:  # anything else would fail the scene
                self.ends[error.code] += 1
            else:
                self.ends[f"{answer.verdict} {answer.code}".rstrip()] += 1
                if answer.verdict == "accepted":
                    self.accepted.append((answer, self._client, far))
            self.under_way = False
            await asyncio.sleep(0.2)


async def agree(accepted: list[tuple[Answer, UnitClient, UnitClient]]) -> Counter[str]:
    """Both ends of each unit hold the same verdicts under the same names once it is over."""
    counts: Counter[str] = Counter()
    for answer, *ends in accepted:
        views = [await end.unit(answer.unit) for end in ends]
        traces = [await end.trace(answer.unit) for end in ends]
        names = [[(row.part, row.index, row.name) for row in trace.states] for trace in traces]
        assert names[0] == names[1], answer.unit
        assert views[0].urns == views[1].urns == answer.urns
        for view in views:
            assert view.state in ("expired", "refused", "released"), view
        assert views[0].delivered == views[1].delivered == len(names[0])
        counts["delivered" if names[0] else "not delivered"] += 1
    return counts


async def strike(network: Network) -> str:
    a, b, c = [speaking_as(network, alias) for alias in ("a-1", "b-1", "c-1")]
    async with a, b, c:
        flowing = await a.request(bell("c-1", rate_per_s=3.0, valid_s=600.0))
        assert flowing.verdict == "accepted", flowing
        here, there = [Follower(client, flowing.unit) for client in (a, c)]
        following = [asyncio.create_task(end.follow()) for end in (here, there)]
        placing = Placing(b, {"a-1": a, "c-1": c})
        asking = asyncio.create_task(placing.run())
        await auntil(
            "states flow while orders are placed",
            lambda: len(there.bits) >= 5 and len(placing.accepted) >= 3 and placing.under_way,
            PATIENCE_S,
            network.tail,
        )
        killed = control_pid(network)
        os.kill(killed, signal.SIGKILL)
        before, asked = len(there.bits), len(placing.accepted)
        await auntil(
            "another control of units takes orders",
            lambda: control_pid(network) not in (0, killed) and len(placing.accepted) >= asked + 3,
            PATIENCE_S,
            network.tail,
        )
        placing.over.set()
        after = len(there.bits)
        await auntil("states still flow", lambda: len(there.bits) >= after + 10, PATIENCE_S, network.tail)
        await a.release(flowing.unit)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(asking, *following)
        both = here.bits.keys() & there.bits.keys()
        assert len(both) >= 0.8 * len(there.bits)
        assert sum(here.bits[index] == there.bits[index] for index in both) > 0.8 * len(both)
        await asyncio.sleep(VALID_S / RATE + 1.0)  # valid-until, and a lease
        counts = await agree([*placing.accepted, (flowing, a, c)])
        assert counts["delivered"] >= 3
    await all_is_free(network)
    assert alive(control_pid(network))
    flow = f"{before} states before the kill, {after} when another one took orders, {len(there.bits)} in all"
    return f"{flow}; wishes beside it: {dict(placing.ends)}, {dict(counts)}"


async def all_is_free(network: Network) -> None:
    """What nobody ordered again is dropped a lease after the control came back."""
    async with asyncio.timeout(40):
        while True:
            left = await quis(network)
            if not left["phases"] and left["memories_reserved"] == left["memories_in_use"] == 0:
                return
            await asyncio.sleep(1)


def test_units_go_on_when_their_control_is_killed(tmp_path: Path, record_property: object) -> None:
    place = tmp_path / "chain.toml"
    place.write_text(
        scenario(
            [("a", "b"), ("b", "c")],
            memories=16,
            success_probability=0.0008,
            t1_s=10_000.0,
            t2_s=1_000.0,
            cutoff_s=200.0,
            saes=True,
        )
    )
    options = ("--spread", "per-node", "--rate", str(RATE))
    with running(str(place), tmp_path / "net", *options) as network:
        saw = asyncio.run(strike(network))
    record_property("saw", saw)  # type: ignore[operator]
