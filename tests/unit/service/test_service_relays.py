"""Sites without applications only relay; key managers that join at once hear of one another once."""

from __future__ import annotations

import itertools
from collections import Counter

from tests.unit.service import kit

from multiplane.assembly.study import Study, run_study
from multiplane.kernel.names import element_urn
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.store_memory import MemoryStore
from multiplane.twin.scenario import World, load_shipped, parse

SITES = {"a": "", "r1": "saes = []", "r2": "saes = []", "b": ""}


def chain() -> World:
    """Two sites with applications, and two relays between them."""
    lines = ['format = "multiplane-scenario/1"', 'name = "chain"', 'domain = "chain"']
    lines += [f'[[site]]\nname = "{name}"\n{more}' for name, more in SITES.items()]
    names = list(SITES)
    for left, right in itertools.pairwise(names):
        lines += [f'[[link]]\na = "{left}"\nb = "{right}"\nlength_km = 10.0\nloss_db = 2.0']
        lines += ['profile = "constant-rate"\nrate_bit_per_s = 1e6']
    return parse("\n".join(lines), "chain.toml")


def test_a_relay_carries_keys_and_keeps_nothing() -> None:
    store = MemoryStore(NoFaults())

    async def workload(study: Study) -> None:
        for name in ("r1", "r2"):
            assert study.sites[name].key_manager is None
        ((key_id, key),) = [(k.key_id, k.key) for k in await kit.issue(study, "a-1", "b-1")]
        assert [k.key for k in await kit.collect(study, "b-1", "a-1", [key_id])] == [key]
        assert study.sites["r1"].agent.ledgers()["r1--r2"].delivered_bit > 0
        for name, rows in (("a", 1), ("r1", 0), ("r2", 0), ("b", 1)):
            assert len(store.scan(element_urn("chain", name), "boot")) == rows

    run_study(chain(), 1, workload, store=store)


def test_the_register_is_told_once_to_all_who_join_together() -> None:
    async def workload(study: Study) -> None:
        told = Counter(m.method for m in study.centre.messages.after(0))
        joined = [m for m in study.centre.messages.after(0) if m.method == "join"]
        assert sum(m.door == "ServiceControl" for m in joined) == len(study.sites) == 6
        assert told["register_changed"] == 5, "all but the last, who was told when it joined"
        for site in study.sites.values():
            assert len(site.kme.ports.directory.register.kmes) == 6

    run_study(load_shipped("ring6"), 1, workload)


def test_without_stocks_a_network_at_rest_does_nothing() -> None:
    async def workload(study: Study) -> None:
        before = study.timeline.statistics().count
        await study.clock.sleep_until_ps(study.clock.now_ps() + 60 * 10**12)
        # Nothing but the fabric's own look every two seconds.
        assert study.timeline.statistics().count - before <= 31

    run_study(load_shipped("ring6"), 1, workload)
