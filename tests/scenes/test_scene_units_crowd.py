"""Sixty wishes of all kinds at once, over mutual TLS: each ends as it may, and nothing is left of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.scenes.tools.network import Network, running, until

from multiplane.api.states import Step
from multiplane.api.units import Wish
from multiplane.kernel.errors import MultiplaneError
from multiplane.sdk.units import UnitClient
from multiplane.sdk.wishes import bell, ghz, key

pytestmark = [pytest.mark.scene, pytest.mark.timeout(150)]

RATE = 0.25
VALID_S = 4.0
"""Of the network's time: long enough to use what came on a busy machine."""
HOPELESS = 0.9999
INNER = {"b2-1", "b4-1", "c3-1"}
"""Where no link makes keys."""
MOST_LATE = 5
Saw = Callable[[str, object], None]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running("ghz20", tmp_path_factory.mktemp("crowd"), "--rate", f"{RATE:g}") as found:
        yield found


def wishes(names: list[str]) -> Iterator[tuple[tuple[str, ...], Wish]]:
    """Who asks for what, with whom: six each."""
    for place, asker in enumerate(names):
        one, two, three, four, five = (names[(place + step) % len(names)] for step in range(1, 6))
        for peer in (one, three):
            yield (asker, peer), bell(peer, size=2, min_fidelity=0.8, valid_s=VALID_S)
        yield (asker, one, two), ghz([one, two], min_fidelity=0.8, valid_s=VALID_S)
        for peer in (four, five):
            yield (asker, peer), key(peer, size_bit=256, valid_s=60.0)
        yield (asker, two), bell(two, min_fidelity=HOPELESS, valid_s=VALID_S)


async def ended(clients: dict[str, UnitClient], ends: tuple[str, ...], wish: Wish) -> str:
    """What became of a wish."""
    try:
        return f"{wish.parts[0].kind} {await used(clients, ends, wish)}"
    except MultiplaneError as error:
        return f"{wish.parts[0].kind} {error.code.removeprefix('unit.')}"


async def used(clients: dict[str, UnitClient], ends: tuple[str, ...], wish: Wish) -> str:
    """What became of a wish; what was delivered is used at all ends, and is the same there.

    States that a busy machine makes too late are of no use any more, and all ends say so.
    """
    (part,) = wish.parts
    answer = await clients[ends[0]].request(wish, retry_for_s=60.0)
    hopeless = part.min_fidelity == HOPELESS or (part.kind == "key" and not INNER.isdisjoint(ends))
    assert hopeless == (answer.verdict != "accepted"), answer
    if hopeless:
        return answer.verdict
    asking = [clients[end] for end in ends]
    if part.kind == "key":
        same = [await client.keys(answer.unit, retry_for_s=60.0) for client in asking]
        assert [len(one.key) for one in same[0]] == [32]
        assert all(keys == same[0] for keys in same)
    else:
        held = await asyncio.gather(*(client.delivered(answer.unit, part.size) for client in asking))
        indices = {tuple(event.index for event in events) for events in held}
        assert len(indices) == 1, (ends, indices)
        if not held[0]:
            return "expired"
        for client, events in zip(asking, held, strict=True):
            await client.operate(answer.unit, *(Step(do="measure", on=event.addresses) for event in events))
    await asyncio.gather(*(client.release(answer.unit) for client in asking))
    return "delivered"


def figures(network: Network, *names: str) -> dict[str, float]:
    """The lines of these metrics that are not 0."""
    lines = [line.rsplit(" ", 1) for line in network.cli("metrics").stdout.splitlines()]
    return {name: float(value) for name, value in lines if name.startswith(names) and float(value)}


def test_sixty_wishes_at_once_end_and_nothing_is_left_of_them(network: Network, record_property: Saw) -> None:
    asked = list(wishes(sorted(network.saes)))

    async def main() -> Counter[str]:
        async with AsyncExitStack() as stack:
            clients: dict[str, UnitClient] = {}
            for name, sae in network.saes.items():
                one = UnitClient(network.url(sae.kme), network.ca, sae.cert, sae.key)
                clients[name] = await stack.enter_async_context(one)
            found = Counter(await asyncio.gather(*(ended(clients, ends, wish) for ends, wish in asked)))
            left: list[Any] = [unit for client in clients.values() for unit in await client.units()]
            assert left == []
            return found

    found = asyncio.run(main())
    assert found.total() == len(asked) == 60
    late = found["bell expired"] + found["ghz expired"]
    assert found["bell delivered"] + found["ghz delivered"] + late == 30, found
    assert late <= MOST_LATE, found
    assert found["bell counter-offer"] == 10, found
    assert (found["key delivered"], found["key refused"]) == (8, 12), found
    busy = "multiplane_memories_in_use", "multiplane_job_memories", "multiplane_quis_waiting"
    until(
        "no memory is held", lambda: not figures(network, *busy), 30.0, lambda: str(figures(network, *busy))
    )
    record_property("saw", ", ".join(f"{count} {what}" for what, count in sorted(found.items())))
