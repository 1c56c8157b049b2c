"""The table of points and its run: what is asked, in which clause it stands, which check answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from multiplane.sdk.conformance import collect_points as collect
from multiplane.sdk.conformance import issue_points as issue
from multiplane.sdk.conformance import status_points as status
from multiplane.sdk.conformance import transport_points as transport
from multiplane.sdk.conformance.exchange import NoAnswer, Party
from multiplane.sdk.conformance.probe import Probe, Subject, Untested
from multiplane.sdk.conformance.records import Records, Tally
from multiplane.sdk.conformance.verdicts import (
    STANDARD,
    ConformanceReport,
    Finding,
    Origin,
    PointResult,
    Verdict,
    deviates,
    not_tested,
    outcome_of,
)

Check = Callable[[Probe], Awaitable[Finding]]
S, D = Origin.STANDARD, Origin.DECISION


class Row(NamedTuple):
    """One point: its number in `conformance/etsi014.toml` (0 = none), who asks, where it stands, what for."""

    name: str
    point: int
    origin: Origin
    clause: str
    requires: str
    check: Check


def _recorded(tally: Callable[[Records], Tally]) -> Check:
    async def look(probe: Probe) -> Finding:
        return tally(probe.records).finding()

    return look


def _out_of_reach(why: str) -> Check:
    async def look(_probe: Probe) -> Finding:
        return not_tested(why)

    return look


_AUTHORITY = _out_of_reach("needs a certificate made by the server's own authority")
_INSIDE = _out_of_reach("cannot be seen from outside")

# In the order in which they are asked; what holds for all answers comes last.
ROWS: Final = (
    Row("old_tls", 1, S, "5.1", "TLS 1.0 and 1.1 are refused", transport.old_tls),
    Row("both_tls", 1, D, "5.1", "TLS 1.2 and TLS 1.3 are both spoken", transport.both_tls),
    Row(
        "no_certificate", 2, S, "5.1", "a client without a certificate is rejected", transport.no_certificate
    ),
    Row(
        "foreign_certificate",
        3,
        S,
        "5.1",
        "a certificate of another authority is rejected",
        transport.foreign_certificate,
    ),
    Row("nameless_certificate", 4, D, "5.1", "a certificate without an SAE ID is rejected", _AUTHORITY),
    Row(
        "caller_from_certificate",
        5,
        S,
        "5.1",
        "the caller is known by the certificate, not by a header",
        transport.caller_from_certificate,
    ),
    Row("expired_certificate", 6, D, "5.1", "expired and revoked certificates are rejected", _AUTHORITY),
    Row("status", 7, S, "6.1, Table 9", "status has eleven members of their types", status.eleven_members),
    Row(
        "status_numbers",
        7,
        D,
        "6.1, Table 9",
        "its numbers fit 32 bits and are in order",
        status.numbers_in_range,
    ),
    Row("master_is_caller", 8, S, "6.1, Table 9", "master_SAE_ID is the caller", status.master_is_caller),
    Row("slave_is_path", 8, S, "6.1, Table 9", "slave_SAE_ID is the one in the path", status.slave_is_path),
    Row("status_is_free", 9, S, "5.2", "Get status takes no key", status.status_is_free),
    Row(
        "stored_within_max",
        10,
        S,
        "6.1, Table 9",
        "0 <= stored_key_count <= max_key_count",
        status.stored_within_max,
    ),
    Row(
        "multicast_as_told",
        11,
        S,
        "6.1, Table 9",
        "max_SAE_ID_count is 0 iff multicast is off",
        status.multicast_as_told,
    ),
    Row("post_default", 12, S, "5.3; 6.2, Table 10", "POST {} gives one key of key_size", issue.post_default),
    Row("get_default", 13, S, "5.3", "GET without a query gives the same", issue.get_default),
    Row("get_query", 14, S, "5.3", "GET takes number and size", issue.get_query),
    Row("several_keys", 15, S, "6.2, Table 10", "number n gives n keys under n ids", issue.several_keys),
    Row("stored_falls", 19, S, "5.3", "stored_key_count falls by the number taken", status.stored_falls),
    Row(
        "number_above_max",
        20,
        S,
        "6.1, Table 9",
        "number above max_key_per_request is 400",
        issue.number_above_max,
    ),
    Row("size_outside", 21, S, "6.1, Table 9", "size outside of its limits is 400", issue.size_outside),
    Row(
        "odd_size",
        22,
        S,
        "6.2, Table 10",
        "size that is no multiple of 8: served, or the exact 400",
        issue.odd_size,
    ),
    Row("bad_values", 23, D, "6.2, Table 10", "numbers out of type or sense are 400", issue.bad_values),
    Row("unknown_members", 24, S, "6.2", "unknown members are treated in one way", issue.unknown_members),
    Row(
        "malformed_json",
        25,
        S,
        "5.3; 6.5, Table 13",
        "malformed JSON is 400 with a message",
        issue.malformed_json,
    ),
    Row(
        "mandatory_extension",
        26,
        S,
        "6.2, Table 10",
        "an unknown mandatory extension is the exact 400",
        issue.mandatory_extension,
    ),
    Row(
        "unmet_extension",
        27,
        S,
        "6.2, Table 10",
        "a known one that cannot be met is the exact 400",
        _out_of_reach("needs an extension that the server knows"),
    ),
    Row(
        "optional_extension",
        28,
        S,
        "6.2, Table 10",
        "an unknown optional extension: ignored, or the exact 400",
        issue.optional_extension,
    ),
    Row(
        "same_key_for_all",
        29,
        S,
        "6.2, Table 10",
        "each additional slave gets the same key",
        collect.same_key_for_all,
    ),
    Row(
        "too_many_slaves",
        30,
        S,
        "6.1, Table 9",
        "more than max_SAE_ID_count slaves is 400",
        issue.too_many_slaves,
    ),
    Row("same_key", 32, S, "5.4", "POST gives the slave the same keys, at once", collect.same_key),
    Row("get_one", 33, S, "5.4", "GET gives one key by key_ID", collect.get_one),
    Row(
        "unknown_in_list",
        34,
        S,
        "6.4",
        "an unknown id: the exact 400, nothing taken",
        collect.unknown_in_list,
    ),
    Row("not_named", 35, S, "5.4, Table 7", "who was not named gets 401", collect.not_named),
    Row(
        "mixed_list", 36, S, "5.4, Table 7", "own and foreign ids are 401, nothing taken", collect.mixed_list
    ),
    Row("own_key", 37, D, "5.4, Table 7", "the master fetching its own key gets 401", collect.own_key),
    Row("second_fetch", 38, S, "5.4", "a second fetch of an id is 400", collect.second_fetch),
    Row(
        "concurrent_fetch",
        39,
        D,
        "5.4",
        "of fetches at one time exactly one is served",
        collect.concurrent_fetch,
    ),
    Row(
        "each_slave_once",
        40,
        S,
        "6.2, Table 10",
        "each slave fetches once, independently",
        collect.each_slave_once,
    ),
    Row("wrong_master", 41, D, "5.4", "the wrong master in the path is 400", collect.wrong_master),
    Row("bad_ids", 42, D, "6.4, Table 12", "no ids, one twice, no UUID: 400", collect.bad_ids),
    Row("encoded_ids", 44, S, "5.1", "SAE IDs in a path are URL-decoded", transport.encoded_ids),
    Row("memory", 46, D, "5.4", "a key is gone after both ends have it", _INSIDE),
    Row("lost_answer", 48, D, "5.4", "a key whose answer was lost is burnt", _INSIDE),
    Row("dry_stock", 31, D, "5.3", "too few keys is 503", issue.dry_stock),
    Row("post_nothing", 0, D, "6.2", "an empty POST body means the defaults", issue.post_nothing),
    Row("other_verbs", 0, D, "5.1, Table 2", "other verbs are refused with 4xx", transport.other_verbs),
    Row(
        "unknown_method",
        0,
        D,
        "5.1, Table 2",
        "another path is 404 with an Error body",
        transport.unknown_method,
    ),
    Row("long_body", 0, D, "5.1", "a body of 1 MB is refused", transport.long_body),
    Row("uuids", 16, S, "6.3, Table 11", "key_ID is a UUID", _recorded(lambda r: r.uuids)),
    Row("uuids_4", 16, D, "6.3, Table 11", "in lower case, version 4", _recorded(lambda r: r.uuids_4)),
    Row("repeats", 16, D, "6.3, Table 11", "no id and no key comes twice", _recorded(lambda r: r.repeats)),
    Row(
        "base64", 17, S, "6.3, Table 11", "key is padded Base64 of its length", _recorded(lambda r: r.base64)
    ),
    Row("member", 18, S, "6.3, Table 11", "the list is called keys", _recorded(lambda r: r.member)),
    Row("errors", 43, S, "6.5, Table 13", "400 and 503 carry an Error object", _recorded(lambda r: r.errors)),
    Row("refusals", 43, D, "6.5, Table 13", "401 carries one too", _recorded(lambda r: r.refusals)),
    Row("no_store", 45, D, "5.3", "answers with keys are not to be stored", _recorded(lambda r: r.no_store)),
    Row("types", 47, S, "5.1", "Content-Type is application/json", _recorded(lambda r: r.types)),
    Row("versions", 0, S, "5.1", "HTTP/1.1 is spoken", _recorded(lambda r: r.versions)),
)


async def run(subject: Subject) -> ConformanceReport:
    """Ask a server everything, one point after the other.

    Raises: Refused(`input.url`, `input.certificate`, `input.unreachable`) when it cannot be asked at all.
    """
    context = subject.trust.context
    async with AsyncExitStack() as stack:
        master = Party(subject.url, context(subject.master), subject.timeout_s)
        slave = Party(subject.peer_url, context(subject.slave), subject.timeout_s)
        other = None
        if subject.other is not None:
            url = subject.other_url or subject.peer_url
            other = Party(url, context(subject.other), subject.timeout_s)
        for party in (master, slave, other):
            if party is not None:
                await stack.enter_async_context(party)
        probe = Probe(subject, master, slave, other)
        await probe.greet()
        results = [await _result(row, probe) for row in ROWS]
    points = tuple(sorted(results, key=lambda result: result.point or len(ROWS)))
    return ConformanceReport(
        standard=STANDARD,
        server=master.url,
        peer=slave.url,
        outcome=outcome_of(points),
        points=points,
        keys_taken=probe.records.taken,
        keys_collected=probe.records.collected,
        requests=probe.records.requests,
        duration_s=round(probe.elapsed_s, 3),
    )


async def _result(row: Row, probe: Probe) -> PointResult:
    try:
        found = await row.check(probe)
    except Untested as why:
        found = not_tested(str(why))
    except NoAnswer as error:
        found = deviates(str(error))
    verdict = found.verdict
    if verdict is Verdict.DEVIATION and row.origin is D:
        verdict = Verdict.ADVICE
    return PointResult(
        name=row.name,
        point=row.point,
        origin=row.origin,
        clause=row.clause,
        requires=row.requires,
        verdict=verdict,
        detail=found.detail,
    )


def page_table() -> str:
    """The table of `docs/standards/conformance-probe.md`."""
    lines = ["| point | by | clause | the server must | name |", "|---|---|---|---|---|"]
    for row in sorted(ROWS, key=lambda row: row.point or len(ROWS)):
        lines.append(f"| {row.point or '–'} | {row.origin} | {row.clause} | {row.requires} | `{row.name}` |")
    return "\n".join(lines)
