"""Points on Get key."""

from __future__ import annotations

from typing import Any, Final

from multiplane.api.wire.etsi014 import EXTENSION_MANDATORY, SIZE_MULTIPLE
from multiplane.sdk.conformance.exchange import Answer, NoAnswer
from multiplane.sdk.conformance.probe import Probe, Untested, unknown_name
from multiplane.sdk.conformance.verdicts import Finding, Verdict, advises, deviates, not_tested, passed

EXTENSION_OPTIONAL: Final = "not all extension_optional request options handled"
MOST_ADDITIONAL: Final = 1000
FEW_KEYS: Final = 32

_UNKNOWN_EXTENSION: Final = [{"conformance_probe_unknown": True}]
_BROKEN: Final = (b'{"number": 1', b'{"number": 1,}', b"\xff\xfe{}", b"[1]")
_BAD_VALUES: Final = (
    b'{"number": 0}',
    b'{"number": -1}',
    b'{"number": "1"}',
    b'{"number": 1.5}',
    b'{"number": true}',
    b'{"number": 9223372036854775808}',
    b'{"size": 0}',
    b'{"size": -8}',
    b'{"size": "256"}',
    b'{"size": 256.5}',
)


async def _keys(probe: Probe, wish: dict[str, Any], verb: str, number: int, size_bit: int | None) -> Finding:
    """Ask until it is not 503; passed when the right number of keys of the right length came."""
    answer = await probe.patiently(lambda: probe.issue(wish, verb))
    if answer.status == 503:
        raise Untested(f"no keys, {probe.records.outline(answer)}")
    keys = probe.records.keys_of(answer, size_bit)
    if answer.status != 200:
        return deviates(probe.records.outline(answer))
    if len(keys) != number:
        return deviates(f"{len(keys)} keys instead of {number}")
    wrong = {len(key.key) for key in keys} if size_bit is not None else set()
    if wrong - {-(-(size_bit or 0) // 8)}:
        return deviates(f"keys of {sorted(wrong)} bytes instead of {size_bit} bits")
    if len({key.key_id for key in keys}) != number:
        return deviates("one id for several keys")
    return passed()


async def post_default(probe: Probe) -> Finding:
    """POST with {} gives one key of key_size."""
    return await _keys(probe, {}, "POST", 1, probe.size_bit)


async def post_nothing(probe: Probe) -> Finding:
    """POST with an empty body gives the same."""
    answer = await probe.patiently(
        lambda: probe.ask(probe.master, "POST", probe.slave_id, "enc_keys", body=b"")
    )
    if answer.status == 503:
        raise Untested(probe.records.outline(answer))
    if not probe.records.keys_of(answer, probe.size_bit):
        return advises(probe.records.outline(answer))
    return passed()


async def get_default(probe: Probe) -> Finding:
    """GET without a query gives one key of key_size."""
    return await _keys(probe, {}, "GET", 1, probe.size_bit)


async def get_query(probe: Probe) -> Finding:
    """GET takes number and size."""
    number, size_bit = min(2, probe.number("max_key_per_request")), _another_size_bit(probe)
    return await _keys(probe, {"number": number, "size": size_bit}, "GET", number, size_bit)


def _another_size_bit(probe: Probe) -> int:
    """A size within the limits that is not the default, if there is one."""
    low, default, high = (probe.number(name) for name in ("min_key_size", "key_size", "max_key_size"))
    for size_bit in (default // 16 * 8, default * 2, -(-low // 8) * 8):
        if low <= size_bit <= high and size_bit != default and size_bit > 0:
            return size_bit
    return default


async def several_keys(probe: Probe) -> Finding:
    """POST with number n gives n keys under n ids."""
    number = min(3, probe.number("max_key_per_request"))
    if number < 2:
        return not_tested("max_key_per_request is 1")
    return await _keys(probe, {"number": number}, "POST", number, probe.size_bit)


async def number_above_max(probe: Probe) -> Finding:
    """More than max_key_per_request is refused."""
    wish = {"number": probe.number("max_key_per_request") + 1}
    return probe.expect_400(await probe.refusal(lambda: probe.issue(wish)))


async def size_outside(probe: Probe) -> Finding:
    """Sizes outside of min_key_size and max_key_size are refused."""
    low, high = probe.number("min_key_size"), probe.number("max_key_size")
    sizes_bit = [(high // 8 + 1) * 8, *([(low - 1) // 8 * 8] if low > 8 else [])]
    for size_bit in sizes_bit:
        found = probe.expect_400(await _sized(probe, size_bit))
        if found.verdict is not Verdict.PASS:
            return deviates(f"size {size_bit}: {found.detail}")
    return passed()


async def _sized(probe: Probe, size_bit: int) -> Answer:
    return await probe.refusal(lambda: probe.issue({"size": size_bit}))


async def odd_size(probe: Probe) -> Finding:
    """A size that is no multiple of 8 is served, or refused with the exact message."""
    low, default, high = (probe.number(name) for name in ("min_key_size", "key_size", "max_key_size"))
    sizes_bit = [s for s in (default + 1, default - 1) if low <= s <= high and s % 8]
    if not sizes_bit:
        return not_tested("no size within the limits is no multiple of 8")
    (size_bit, *_) = sizes_bit
    answer = await probe.patiently(lambda: probe.issue({"size": size_bit}))
    if answer.status == 503:
        answer = await _sized(probe, size_bit)
    if answer.status != 200:
        return probe.expect_400(answer, SIZE_MULTIPLE)
    keys = probe.records.keys_of(answer)
    if keys and all(len(key.key) == -(-size_bit // 8) for key in keys):
        return passed("any size is served")
    return deviates(f"size {size_bit} is answered with keys of another length")


async def bad_values(probe: Probe) -> Finding:
    """Numbers that are none, or make no sense, are 400."""
    odd = []
    for body in _BAD_VALUES:
        try:
            answer = await _raw(probe, body)
        except NoAnswer as error:
            odd.append(f"{body.decode()}: {error}")
            continue
        if answer.status != 400:
            odd.append(f"{body.decode()} {answer.status}")
    return advises("; ".join(odd)) if odd else passed()


async def _raw(probe: Probe, body: bytes) -> Answer:
    return await probe.refusal(lambda: probe.issue_raw(body))


async def malformed_json(probe: Probe) -> Finding:
    """A body that is no JSON object is 400 with a message."""
    for body in _BROKEN:
        answer = await _raw(probe, body)
        if answer.status != 400:
            return deviates(f"{body!r}: {probe.records.outline(answer)} instead of 400")
        if answer.message is None:
            return deviates(f"{body!r}: 400 without a message")
    return passed()


async def unknown_members(probe: Probe) -> Finding:
    """Unknown members are treated in one way: ignored, or refused."""
    statuses = set()
    for name in ("conformance_probe", "x_unknown"):
        wish = {"number": 1, name: {"a": [1]}}
        answer = await probe.patiently(lambda asked=wish: probe.issue(asked, "POST"))  # type: ignore[misc]
        if answer.status == 503:
            raise Untested(probe.records.outline(answer))
        probe.records.keys_of(answer, probe.size_bit)
        statuses.add(answer.status)
    if statuses == {200}:
        return passed("ignored")
    return passed("refused") if statuses == {400} else deviates(f"answered {sorted(statuses)}")


async def mandatory_extension(probe: Probe) -> Finding:
    """An unknown mandatory extension is refused with the exact message."""
    wish = {"number": 1, "extension_mandatory": _UNKNOWN_EXTENSION}
    return probe.expect_400(await probe.refusal(lambda: probe.issue(wish, "POST")), EXTENSION_MANDATORY)


async def optional_extension(probe: Probe) -> Finding:
    """An unknown optional extension is ignored, or refused with the exact message."""
    wish = {"number": 1, "extension_optional": _UNKNOWN_EXTENSION}
    answer = await probe.patiently(lambda: probe.issue(wish, "POST"))
    if answer.status == 503:
        raise Untested(probe.records.outline(answer))
    if answer.status != 200:
        return probe.expect_400(answer, EXTENSION_OPTIONAL)
    return (
        passed("ignored") if probe.records.keys_of(answer, probe.size_bit) else deviates("200 without a key")
    )


async def too_many_slaves(probe: Probe) -> Finding:
    """More additional slaves than max_SAE_ID_count is refused."""
    count = probe.number("max_SAE_ID_count")
    if count > MOST_ADDITIONAL:
        return not_tested(f"max_SAE_ID_count is {count}")
    wish = {"number": 1, "additional_slave_SAE_IDs": [unknown_name(number) for number in range(count + 1)]}
    return probe.expect_400(await probe.refusal(lambda: probe.issue(wish, "POST")))


async def dry_stock(probe: Probe) -> Finding:
    """More keys than there are is 503."""
    stored = await probe.read_stored()
    most = min(probe.number("max_key_per_request"), FEW_KEYS)
    if stored >= most:
        return not_tested("it would take the whole stock")
    answer = await probe.issue({"number": stored + 1})
    if answer.status == 200:
        probe.records.keys_of(answer, probe.size_bit)
        return not_tested("the stock was refilled meanwhile")
    return passed() if answer.status == 503 else advises(f"{probe.records.outline(answer)} instead of 503")
