"""Studies from a notebook or a script: plain functions that return numpy arrays.

Each runs a scenario in virtual time, as fast as it can compute; equal arguments give equal arrays.
`scenario` is a file, or the name of one that ships; `plugins` are files with link protocols, memory models or
noise models of one's own, which it may name (docs/plugins.md). Inside a running event loop they work too.

    from multiplane import research

    pairs = research.links("chain5", for_s=10.0)["a--b"]
    print(len(pairs.known_s) / 10.0, "pairs per second, mean fidelity", pairs.fidelity.mean())
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import TypeVar

from multiplane.assembly.pairs import ChainPairs, LinkPairs, run_links, run_path
from multiplane.assembly.sim.seed import Arrays, Plan, run_seed
from multiplane.assembly.up import open_scenario
from multiplane.kernel.errors import Refused

__all__ = ["ChainPairs", "LinkPairs", "chain", "links", "sim"]

T = TypeVar("T")
_LONGEST_S = 1e9
_NS_PER_S = 1e9


def links(
    scenario: str | Path,
    for_s: float,
    seed: int = 1,
    *,
    hold_s: float = 0.0,
    plugins: Sequence[str | Path] = (),
    state_model: str | None = None,
) -> dict[str, LinkPairs]:
    """Pairs of every entangled link, each link on its own and never idle.

    Args:
        for_s: simulated seconds, above 0.
        seed: of all chance, 0 or more.
        hold_s: how long a pair stays in memory after both ends know of it, before it is looked at; 0 or more.
        state_model: how states are kept, `pairs` or `dense`; None = as the scenario says.
    Returns: by link id arrays with a row for each pair (`known_s`, `age_s`, `fidelity`), and `attempts`.
    Raises: Refused(`scenario.invalid`, `scenario.unreadable`, `input.scenario`, `input.plugin`,
        `input.study`), Faulty(`plugin.failed`).
    """
    _check(for_s, seed, plugins)
    _check_range("hold_s", hold_s, 0.0)
    world, policies = open_scenario(str(scenario), plugins, state_model)
    return _alone(lambda: run_links(world, seed, for_s=for_s, hold_s=hold_s, policies=policies))


def chain(
    scenario: str | Path,
    path: Sequence[str],
    for_s: float,
    seed: int = 1,
    *,
    plugins: Sequence[str | Path] = (),
    state_model: str | None = None,
) -> ChainPairs:
    """Pairs between the two ends of a path of entangled links, by nested swapping.

    Args:
        path: labels of the sites in order, at least two; memories on it have no cut-off.
        for_s, seed, state_model: as of `links`.
    Returns: arrays with a row for each pair (`delivered_s`, `fidelity`).
    Raises: as `links`; Refused(`input.path`).
    """
    _check(for_s, seed, plugins)
    world, policies = open_scenario(str(scenario), plugins, state_model)
    return _alone(lambda: run_path(world, path, seed, for_s=for_s, policies=policies))


def sim(
    scenario: str | Path,
    for_s: float,
    seed: int = 1,
    *,
    every_s: float = 60.0,
    plugins: Sequence[str | Path] = (),
    state_model: str | None = None,
) -> Arrays:
    """The whole network with its traffic, faults and attackers: the arrays of one seed of `multiplane sim`.

    Args:
        for_s, seed, state_model: as of `links`.
        every_s: between two looks, above 0.
    Returns: arrays by name, as docs/sim.md lists them.
    Raises: as `links`, and what the network raises.
    """
    _check(for_s, seed, plugins)
    _check_range("every_s", every_s, 1e-9)
    world, policies = open_scenario(str(scenario), plugins, state_model)
    plan = Plan(lasts_ns=round(for_s * _NS_PER_S), every_ns=round(every_s * _NS_PER_S))
    return _alone(lambda: run_seed(world, seed, plan, _nobody, policies=policies))


def _check(for_s: float, seed: int, plugins: Sequence[str | Path]) -> None:
    _check_range("for_s", for_s, 1e-9)
    if not isinstance(seed, int) or seed < 0:
        raise Refused("input.study", f"seed: got {seed!r}, expected a whole number from 0")
    if isinstance(plugins, str | Path):
        raise Refused("input.study", f"plugins: got {str(plugins)!r}, expected a list of files")


def _check_range(name: str, value: float, least: float) -> None:
    if not isinstance(value, int | float) or not least <= value < inf or value > _LONGEST_S:
        raise Refused("input.study", f"{name}: got {value!r}, expected {least:g} to {_LONGEST_S:g} seconds")


def _nobody(_reached_s: float) -> None:
    """Nobody is told how far it is."""


def _alone(run: Callable[[], T]) -> T:
    """Run on an event loop of its own: in another thread where one runs in this one, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(run).result()
