"""Points on Get status."""

from __future__ import annotations

import itertools
from typing import Any, Final

from multiplane.sdk.conformance.probe import Probe, Untested, unknown_name
from multiplane.sdk.conformance.strangers import names_in
from multiplane.sdk.conformance.verdicts import Finding, advises, deviates, not_tested, passed, printable

TEXTS: Final = ("source_KME_ID", "target_KME_ID", "master_SAE_ID", "slave_SAE_ID")
NUMBERS: Final = (
    "key_size",
    "stored_key_count",
    "max_key_count",
    "max_key_per_request",
    "max_key_size",
    "min_key_size",
    "max_SAE_ID_count",
)
_TRIES: Final = 3


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


async def eleven_members(probe: Probe) -> Finding:
    """Status is 200 with the mandatory members, each of its type."""
    answer = await probe.patiently(probe.ask_status)
    found = answer.json
    if answer.status != 200:
        return deviates(probe.records.outline(answer))
    if not isinstance(found, dict):
        return deviates("the body is no JSON object")
    wrong = [name for name in TEXTS if not isinstance(found.get(name), str)]
    wrong += [name for name in NUMBERS if not _is_number(found.get(name))]
    return deviates(f"absent or of another type: {', '.join(wrong)}") if wrong else passed()


async def numbers_in_range(probe: Probe) -> Finding:
    """Numbers fit what strict clients hold them in, and the limits have an order."""
    found = await probe.read_status()
    wide = [n for n in NUMBERS if _is_number(found.get(n)) and not 0 <= found[n] < 2**31]
    if wide:
        return advises(f"negative or not within 32 bits: {', '.join(wide)}")
    low, default, high = (probe.number(name) for name in ("min_key_size", "key_size", "max_key_size"))
    if not low <= default <= high:
        return advises(f"key_size {default} is not within {low} to {high}")
    return passed()


async def master_is_caller(probe: Probe) -> Finding:
    """master_SAE_ID is the caller."""
    told = (await probe.read_status()).get("master_SAE_ID")
    given = probe.subject.master_id
    known = (given,) if given else names_in(probe.subject.master.cert)
    if told in known:
        return passed()
    shown = printable(str(told))
    if given:
        return deviates(f"{shown!r} instead of {given!r}")
    if probe.is_somebody_else(told) or not isinstance(told, str):
        return deviates(f"{shown!r}, which is not the caller")
    return not_tested(f"the certificate does not say {shown!r}: give --master-id")


async def slave_is_path(probe: Probe) -> Finding:
    """slave_SAE_ID is the application in the path."""
    told = (await probe.read_status()).get("slave_SAE_ID")
    if told == probe.slave_id:
        return passed()
    if told in names_in(probe.subject.slave.cert):
        return passed("told by another name of its certificate")
    return deviates(f"{printable(str(told))!r} instead of {probe.slave_id!r}")


async def status_is_free(probe: Probe) -> Finding:
    """Asking for the status takes no key: of several in a row not each says less."""
    counts = [await probe.read_stored() for _ in range(_TRIES + 1)]
    if all(later < earlier for earlier, later in itertools.pairwise(counts)):
        return deviates(f"stored_key_count falls at each: {', '.join(map(str, counts))}")
    return passed()


async def stored_within_max(probe: Probe) -> Finding:
    """0 <= stored_key_count <= max_key_count."""
    stored, most = await probe.read_stored(), probe.number("max_key_count")
    if not 0 <= stored <= most:
        return deviates(f"{stored} stored of at most {most}")
    return passed(f"{stored} of {most}")


async def stored_falls(probe: Probe) -> Finding:
    """stored_key_count falls by the number taken, where nothing else moves the stock meanwhile."""
    number = min(2, probe.number("max_key_per_request"))
    seen = []
    for _ in range(_TRIES):
        first, second = await probe.read_stored(), await probe.read_stored()
        await probe.take(number)
        third = await probe.read_stored()
        if first == second == third + number:
            return passed(f"{second} to {third} by {number}")
        seen.append((first, second, third))
    if all(first == second == third for first, second, third in seen):
        if seen[-1][2] == probe.number("max_key_count"):
            return not_tested("the stock is full before and after: refilled at once")
        return deviates(f"{seen[-1][2]} before and after {number} keys, three times")
    return not_tested("the stock moves by itself meanwhile")


async def multicast_as_told(probe: Probe) -> Finding:
    """max_SAE_ID_count is 0 exactly when additional slaves are refused."""
    count = probe.number("max_SAE_ID_count")
    named = probe.subject.other_id
    if count and not named:
        return not_tested("multicast is on: give --other-id")
    wish = {"number": 1, "additional_slave_SAE_IDs": [named or unknown_name()]}
    if not count:
        return probe.expect_400(await probe.refusal(lambda: probe.issue(wish, "POST")))
    answer = await probe.patiently(lambda: probe.issue(wish, "POST"))
    probe.records.keys_of(answer, probe.size_bit)
    if answer.status == 503:
        raise Untested(probe.records.outline(answer))
    return passed() if answer.status == 200 else deviates(probe.records.outline(answer))
