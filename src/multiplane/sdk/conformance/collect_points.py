"""Points on Get key with key IDs, and on keys for several slaves."""

from __future__ import annotations

import asyncio
from typing import Final

from multiplane.api.wire.etsi014 import NOT_FOUND
from multiplane.sdk.conformance.exchange import Party
from multiplane.sdk.conformance.probe import Probe, Untested, unknown_id, unknown_name
from multiplane.sdk.conformance.records import Held
from multiplane.sdk.conformance.verdicts import Finding, advises, deviates, not_tested, passed

_BAD_IDS: Final = (
    ("no ids", b'{"key_IDs": []}'),
    ("no list", b"{}"),
    ("no UUID", b'{"key_IDs": [{"key_ID": "1"}]}'),
    ("a number", b'{"key_IDs": [{"key_ID": 1}]}'),
)


async def _same(probe: Probe, keys: list[Held], party: Party | None = None, verb: str = "") -> Finding:
    """Collect keys; passed when they came with the bytes that the master has."""
    answer = await probe.collect([key.key_id for key in keys], party, verb=verb)
    if answer.status == 503:
        raise Untested(probe.records.outline(answer))
    found = {key.key_id: key.key for key in probe.records.keys_of(answer, probe.size_bit)}
    if answer.status != 200:
        return deviates(probe.records.outline(answer))
    if set(found) != {key.key_id for key in keys}:
        return deviates(f"{len(found)} keys for {len(keys)} ids, or under other ids")
    if any(found[key.key_id] != key.key for key in keys):
        return deviates("the two ends hold different bytes")
    return passed()


async def same_key(probe: Probe) -> Finding:
    """POST gives the slave the master's keys, at once."""
    keys = await probe.take()
    if probe.status.get("max_key_per_request", 1) != 1:
        keys += await probe.take()
    return await _same(probe, keys, verb="POST")


async def get_one(probe: Probe) -> Finding:
    """GET gives one key by its id."""
    return await _same(probe, await probe.take(), verb="GET")


async def unknown_in_list(probe: Probe) -> Finding:
    """An unknown id fails the whole list with the exact message and takes nothing."""
    (key,) = await probe.take()
    answer = await probe.refusal(lambda: probe.collect([key.key_id, unknown_id()], verb="POST"))
    found = probe.expect_400(answer, NOT_FOUND)
    if answer.status != 400:
        return found
    after = await _same(probe, [key])
    return found if after == passed() else deviates(f"the good id of the list afterwards: {after.detail}")


async def second_fetch(probe: Probe) -> Finding:
    """An id that was fetched is not found any more."""
    (key,) = await probe.take()
    first = await _same(probe, [key])
    if first != passed():
        raise Untested(f"the first fetch failed: {first.detail}")
    return probe.expect_400(await probe.refusal(lambda: probe.collect([key.key_id])))


async def concurrent_fetch(probe: Probe) -> Finding:
    """Of several fetches of one id at one time exactly one succeeds."""
    (key,) = await probe.take()
    answers = await asyncio.gather(*(probe.collect([key.key_id]) for _ in range(4)))
    for answer in answers:
        probe.records.keys_of(answer, probe.size_bit)
    served = sum(answer.status == 200 for answer in answers)
    return passed() if served == 1 else advises(f"{served} of 4 got the key")


async def own_key(probe: Probe) -> Finding:
    """The master does not fetch its own key."""
    (key,) = await probe.take()
    answer = await probe.refusal(lambda: probe.collect([key.key_id], probe.master))
    if answer.status == 401:
        return passed()
    return advises(f"{probe.records.outline(answer)} instead of 401")


async def wrong_master(probe: Probe) -> Finding:
    """A key is not found under another master."""
    (key,) = await probe.take()
    answer = await probe.refusal(lambda: probe.collect([key.key_id], master_id=unknown_name()))
    if answer.status == 400:
        return passed()
    return advises(f"{probe.records.outline(answer)} instead of 400")


async def bad_ids(probe: Probe) -> Finding:
    """Lists without ids, with one twice, or with what is no id are 400."""
    odd = []
    for what, body in _BAD_IDS:
        status = await _collect_raw(probe, body)
        if status != 400:
            odd.append(f"{what}: {status}")
    (key,) = await probe.take()
    answer = await probe.refusal(lambda: probe.collect([key.key_id, key.key_id], verb="POST"))
    if answer.status != 400:
        odd.append(f"one id twice: {answer.status}")
    return advises("; ".join(odd)) if odd else passed()


async def _collect_raw(probe: Probe, body: bytes) -> int:
    answer = await probe.refusal(
        lambda: probe.ask(probe.slave, "POST", probe.master_id, "dec_keys", body=body)
    )
    return answer.status


# --- a third application ----------------------------------------------------------------------


def _other(probe: Probe) -> Party:
    if probe.other is None:
        raise Untested("needs a third application: give --other-id, --other-cert, --other-key")
    return probe.other


async def not_named(probe: Probe) -> Finding:
    """Who was not named when the key was got is refused with 401."""
    other = _other(probe)
    (key,) = await probe.take()
    return await _expect_401(probe, other, [key])


async def mixed_list(probe: Probe) -> Finding:
    """A list with own and foreign ids is 401 and takes nothing."""
    other = _other(probe)
    (own,) = await probe.take(slave_id=probe.subject.other_id)
    (foreign,) = await probe.take()
    found = await _expect_401(probe, other, [own, foreign])
    if found != passed():
        return found
    after = await _same(probe, [own], other)
    return after if after == passed() else deviates(f"the own id of the list afterwards: {after.detail}")


async def _expect_401(probe: Probe, other: Party, keys: list[Held]) -> Finding:
    answer = await probe.refusal(lambda: probe.collect([key.key_id for key in keys], other))
    if answer.status == 401:
        return passed()
    if answer.status == 400 and other.url != probe.slave.url:
        return not_tested("another server than the slave's need not know the key")
    return deviates(f"{probe.records.outline(answer)} instead of 401")


async def _multicast_key(probe: Probe) -> tuple[Party, Held]:
    """A key for the slave and the third application."""
    if not probe.number("max_SAE_ID_count"):
        raise Untested("multicast is off")
    other = _other(probe)
    wish = {"number": 1, "additional_slave_SAE_IDs": [probe.subject.other_id]}
    answer = await probe.patiently(lambda: probe.issue(wish, "POST"))
    keys = probe.records.keys_of(answer, probe.size_bit)
    if len(keys) != 1:
        raise Untested(f"no key for two slaves, {probe.records.outline(answer)}")
    return other, keys[0]


async def same_key_for_all(probe: Probe) -> Finding:
    """Every slave that was named gets the identical key."""
    other, key = await _multicast_key(probe)
    for party in (probe.slave, other):
        found = await _same(probe, [key], party)
        if found != passed():
            return deviates(f"{'the additional slave' if party is other else 'the slave'}: {found.detail}")
    return passed()


async def each_slave_once(probe: Probe) -> Finding:
    """Each slave fetches once, whatever the others did."""
    other, key = await _multicast_key(probe)
    first = await _same(probe, [key], other)
    again = await probe.refusal(lambda: probe.collect([key.key_id], other))
    later = await _same(probe, [key])
    if first != passed() or later != passed():
        return deviates(f"after the other slave's fetch: {(first if first != passed() else later).detail}")
    return probe.expect_400(again)
