"""What a network needs of its machine, and what it lets clients take of that."""

from __future__ import annotations

import resource

import msgspec
import pytest

from multiplane.assembly import host
from multiplane.runtime.http_limits import Limits
from multiplane.twin.scenario import load_shipped

MEASURED_AT_REST = 18


@pytest.mark.parametrize("scenario", ["pair", "lab3", "ring6", "madqci"])
@pytest.mark.parametrize("spare", [0, 7, 500, 20_000])
def test_clients_never_take_what_the_process_needs(
    scenario: str, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = load_shipped(scenario)
    listeners = sum(1 for place in world.sites if place.saes)
    limit = host.descriptors(world, spread=False) + spare
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    limits = host.server_limits(listeners, host.FD_OPERATIONS, Limits())
    assert host.LEAST_CLIENTS <= limits.connections <= 1000
    assert limits.half_open <= limits.connections
    taken = MEASURED_AT_REST + host.FD_OPERATIONS + listeners * (1 + limits.connections)
    assert taken + 10 <= limit, "files are opened for a moment, commands connect"
    assert spare < 20_000 or limits.connections == 1000


def test_relays_need_nothing_in_one_process() -> None:
    lab3 = load_shipped("lab3")
    first, *others = lab3.sites
    relay = msgspec.structs.replace(first, saes=())
    quiet = msgspec.structs.replace(lab3, sites=(relay, *others))
    assert host.descriptors(lab3, spread=False) - host.descriptors(quiet, spread=False) == 17
    assert host.descriptors(lab3, spread=True) == host.descriptors(quiet, spread=True)


def test_settings_bound_what_servers_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (65_536, 65_536))
    limits = host.server_limits(2, host.FD_OPERATIONS, Limits(connections=7, head_s=3.0))
    assert (limits.connections, limits.half_open, limits.head_s) == (7, 7, 3.0)
