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
FLOWING = 60
VALID_S = 12.0


def control_pid(network: Network) -> int:
    """The process of the control of units, 0 while there is none."""
    assert network.process is not None
    found = [pid for pid in descendants(network.process.pid) if "unit_control_process" in command_line(pid)]
    return found[0] if found else 0


class Placing:
    """Wishes for one pair, one after the other, until told to stop; each is answered or turned down."""

    def __init__(self, client: UnitClient, *peers: str) -> None:
        self._client, self._peers = client, peers
        self.accepted: list[tuple[Answer, str]] = []
        self.ends: Counter[str] = Counter()
        self.under_way = False
        self.over = asyncio.Event()

    async def run(self) -> None:
        number = 0
        while not self.over.is_set():
            peer = self._peers[number % len(self._peers)]
            number += 1
            self.under_way = True
            try:
                answer = await self._client.request(bell(peer, valid_s=VALID_S))
            except Busy as error:  # anything else would fail the scene
                self.ends[error.code] += 1
            else:
                self.ends[f"{answer.verdict} {answer.code}".rstrip()] += 1
                if answer.verdict == "accepted":
                    self.accepted.append((answer, peer))
            self.under_way = False
            await asyncio.sleep(0.2)


async def agree(network: Network, near: UnitClient, placing: Placing) -> Counter[str]:
    """Both ends of each unit hold the same verdicts under the same names once it is over."""
    counts: Counter[str] = Counter()
    for answer, peer in placing.accepted:
        async with speaking_as(network, peer) as far:
            views = [await end.unit(answer.unit) for end in (near, far)]
            traces = [await end.trace(answer.unit) for end in (near, far)]
        names = [[(row.part, row.index, row.name) for row in trace.states] for trace in traces]
        assert names[0] == names[1], answer.unit
        assert views[0].urns == views[1].urns == answer.urns
        for view in views:
            assert view.state in ("expired", "refused", "released"), view
        assert views[0].delivered == views[1].delivered == len(names[0])
        counts["delivered" if names[0] else "not delivered"] += 1
    return counts


async def strike(network: Network) -> str:
    async with speaking_as(network, "a-1") as a, speaking_as(network, "b-1") as b:
        async with speaking_as(network, "c-1") as c:
            flowing = await a.request(bell("c-1", size=FLOWING, valid_s=100.0))
            assert flowing.verdict == "accepted", flowing
            ends = [Follower(client, flowing.unit) for client in (a, c)]
            following = [asyncio.create_task(end.follow(FLOWING)) for end in ends]
            placing = Placing(b, "a-1", "c-1")
            asking = asyncio.create_task(placing.run())
            await auntil(
                "states flow while orders are placed",
                lambda: len(ends[1].bits) >= 5 and len(placing.accepted) >= 3 and placing.under_way,
                40.0,
                network.tail,
            )
            killed = control_pid(network)
            os.kill(killed, signal.SIGKILL)
            had, asked = len(ends[1].bits), len(placing.accepted)
            await auntil(
                "another control of units takes orders",
                lambda: control_pid(network) not in (0, killed) and len(placing.accepted) >= asked + 3,
                40.0,
                network.tail,
            )
            placing.over.set()
            async with asyncio.timeout(60):
                await asyncio.gather(asking, *following)
            assert had < FLOWING, "it was killed too late to show anything"
            assert ends[0].bits.keys() == ends[1].bits.keys() == set(range(FLOWING))
            same = sum(ends[0].bits[index] == ends[1].bits[index] for index in range(FLOWING))
            assert same > 0.8 * FLOWING
            assert {(await end.unit(flowing.unit)).urns for end in (a, c)} == {flowing.urns}
        await asyncio.sleep(VALID_S / RATE + 1.0)  # valid-until, and a lease
        counts = await agree(network, b, placing)
        assert counts["delivered"] >= 3
    await all_is_free(network)
    assert alive(control_pid(network))
    return (
        f"{had} of {FLOWING} states before the kill; wishes beside it: {dict(placing.ends)}, {dict(counts)}"
    )


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
