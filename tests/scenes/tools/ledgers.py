"""The operator's report read from outside: states of links, and ledgers that must close."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.scenes.tools.network import Failed, Network

ACCOUNTS = ("made_bit", "stock_bit", "delivered_bit", "burnt_bit", "expired_bit")
CALM_TIMEOUT_S = 30.0


def link_states(report: dict[str, Any]) -> dict[tuple[str, str], str]:
    """State of each link, by its two sites in order."""
    return {tuple(sorted((link["a"], link["b"]))): link["state"] for link in report["links"]}


def pools(report: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Ledgers by (owner, peer, side); several for one pool (one an epoch) are an error here."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for kme in report["kmes"]:
        for ledger in kme["ledgers"]:
            name = (ledger["owner"], ledger["peer"], ledger["side"])
            if name in found:
                raise Failed(f"two ledgers for one side of a pool: {name}")
            found[name] = ledger
    return found


def faults(report: dict[str, Any]) -> list[str]:
    """What is wrong with the ledgers of a network at rest; empty when they all close."""
    wrong = [f"{kme['name']} does not serve" for kme in report["kmes"] if not kme["serving"]]
    ledgers = pools(report)
    for name, ledger in ledgers.items():
        accounts = {account: ledger[account] for account in ACCOUNTS}
        if any(value < 0 for value in accounts.values()):
            wrong.append(f"{name}: negative account {accounts}")
        if accounts["made_bit"] != sum(accounts[account] for account in ACCOUNTS[1:]):
            wrong.append(f"{name}: does not close {accounts}")
    for (owner, peer, side), near in ledgers.items():
        far = ledgers.get((peer, owner, "far"))
        if side != "near":
            continue
        if far is None:
            if near["made_bit"]:
                wrong.append(f"near pool {owner} -> {peer} has no far side")
        elif far["epoch"] != near["epoch"]:
            wrong.append(f"{owner} -> {peer}: epoch {near['epoch']} near, {far['epoch']} far")
        elif near["stock_bit"] > far["stock_bit"]:
            wrong.append(
                f"{owner} -> {peer}: near may give {near['stock_bit']} bit, far holds {far['stock_bit']}"
            )
    return wrong


async def ledgers_close(network: Network, *, delivered: bool = True) -> dict[str, Any]:
    """Wait until every ledger closes on both sides; the report that showed it.

    Raises: Failed when they do not within bounded time, or when there is nothing in them (`delivered`).
    """
    deadline_s = time.monotonic() + CALM_TIMEOUT_S
    while True:
        report: dict[str, Any] = await network.acli_json("status")
        wrong = faults(report)
        if not wrong:
            break
        if time.monotonic() > deadline_s:
            raise Failed(f"ledgers after {CALM_TIMEOUT_S:g} s of rest: {'; '.join(wrong)}\n{network.tail()}")
        await asyncio.sleep(0.3)
    if delivered and not any(ledger["delivered_bit"] for ledger in pools(report).values()):
        raise Failed(f"no ledger has delivered anything: {pools(report)}")
    return report
