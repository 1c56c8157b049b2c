"""The probe: right servers pass, each defect shows at its own points, dead and hostile servers never pass."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.web import ALICE, BOB, CAROL, Authority, Credential, serving
from tests.support.wrong_kme import wrong_kme

from multiplane.kernel.errors import Refused
from multiplane.sdk.conformance.exchange import Credentials, Trust
from multiplane.sdk.conformance.probe import Subject
from multiplane.sdk.conformance.strangers import client_hello
from multiplane.sdk.conformance.table import ROWS, page_table, run
from multiplane.sdk.conformance.verdicts import (
    ConformanceReport,
    Origin,
    Outcome,
    Verdict,
    outcome_of,
    printable,
)

PAGE = Path(__file__).parents[3] / "docs" / "standards" / "conformance-probe.md"


class Cast(msgspec.Struct):
    """An authority's certificates: a server and three applications."""

    server: Credential
    alice: Credential
    bob: Credential
    carol: Credential

    def subject(self, url: str, **changed: Any) -> Subject:
        alice, bob, carol = (Credentials(c.cert, c.key) for c in (self.alice, self.bob, self.carol))
        given: dict[str, Any] = {
            "url": url,
            "peer_url": url,
            "trust": Trust(ca=self.server.ca),
            "master": alice,
            "slave": bob,
            "slave_id": BOB,
            "other": carol,
            "other_id": CAROL,
            "timeout_s": 2.0,
            "wait_s": 0.3,
            "limit_s": 20.0,
        }
        return Subject(**(given | changed))


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    authority = Authority(tmp_path_factory.mktemp("cast"))
    applications = [authority.application(urn) for urn in (ALICE, BOB, CAROL)]
    return Cast(authority.issue("kme", common_name="kme"), *applications)


def probed(cast: Cast, *defects: str, **changed: Any) -> ConformanceReport:
    """The report on a server with these defects."""

    async def go() -> ConformanceReport:
        async with wrong_kme(cast.server, *defects) as (url, _):
            return await run(cast.subject(url, **changed))

    return asyncio.run(go())


def named(report: ConformanceReport, verdict: Verdict) -> set[str]:
    """Names of the points with this verdict."""
    return {result.name for result in report.points if result.verdict is verdict}


def explained(report: ConformanceReport) -> str:
    return "\n".join(f"{result.name}: {result.verdict} {result.detail}" for result in report.points)


# --- right servers ----------------------------------------------------------------------------

OUT_OF_REACH = {"nameless_certificate", "expired_certificate", "unmet_extension", "memory", "lost_answer"}


def test_a_right_server_passes_on_every_point_within_reach(cast: Cast) -> None:
    report = probed(cast)
    assert report.outcome is Outcome.PASS, explained(report)
    assert named(report, Verdict.NOT_TESTED) == OUT_OF_REACH | {"dry_stock"}, explained(report)
    assert named(report, Verdict.ADVICE) == set(), explained(report)
    assert 20 <= report.keys_taken <= 50
    assert 0 < report.keys_collected < report.keys_taken


@pytest.mark.slow
def test_the_own_server_passes_without_a_third_application(cast: Cast) -> None:
    async def go() -> ConformanceReport:
        async with serving(cast.server) as served:
            return await run(cast.subject(served.url, other=None, other_id=""))

    report = asyncio.run(go())
    assert report.outcome is Outcome.PASS, explained(report)
    assert named(report, Verdict.ADVICE) == set(), explained(report)


# --- defects ----------------------------------------------------------------------------------

# What each defect turns to deviation: exactly these points.
DEFECTS: dict[str, set[str]] = {
    "old_tls": {"old_tls"},
    "certificate_optional": {"no_certificate"},
    "no_mutual_tls": {"no_certificate", "foreign_certificate", "not_named", "mixed_list", "same_key_for_all"}
    | {"each_slave_once"},
    "header_identity": {"caller_from_certificate"},
    "status_lacks": {"status"},
    "status_texts": {"status"},
    "master_is_other": {"master_is_caller"},
    "slave_is_other": {"slave_is_path"},
    "status_takes": {"status_is_free"},
    "stored_above_max": {"stored_within_max"},
    "multicast_denied": {"multicast_as_told", "too_many_slaves"},
    "only_post": {"get_default", "get_query", "get_one"},
    "bits_as_bytes": {"post_default", "get_default", "get_query", "several_keys", "base64"},
    "one_key_only": {"get_query", "several_keys"},
    "ids_without_hyphens": {"uuids"},
    "url_safe": {"base64"},
    "unpadded": {"base64"},
    "capital_keys": {"member"},
    "stored_stands": {"stored_falls"},
    "number_clipped": {"number_above_max"},
    "size_clipped": {"size_outside"},
    "range_503": {"number_above_max", "size_outside", "odd_size"},
    "other_size_text": {"odd_size"},
    "size_rounded": {"odd_size"},
    "unknown_member_500": {"unknown_members"},
    "malformed_422": {"malformed_json"},
    "extensions_dropped": {"mandatory_extension"},
    "optional_refused": {"optional_extension"},
    "many_slaves": {"too_many_slaves"},
    "other_bytes_for_additional": {"same_key_for_all", "each_slave_once"},
    "first_takes_all": {"same_key_for_all", "each_slave_once"},
    "other_bytes": {"same_key", "get_one", "unknown_in_list", "mixed_list", "same_key_for_all"}
    | {"each_slave_once"},
    "late_announcement": {"same_key", "get_one", "unknown_in_list", "mixed_list", "same_key_for_all"}
    | {"each_slave_once"},
    "other_text": {"unknown_in_list"},
    "partial_delivery": {"unknown_in_list"},
    "failure_takes": {"unknown_in_list"},
    "foreign_400": {"not_named", "mixed_list"},
    "fetched_again": {"second_fetch", "each_slave_once"},
    "missing_404": {"unknown_in_list", "second_fetch", "each_slave_once"},
    "detail_for_message": {"errors", "malformed_json", "odd_size", "mandatory_extension", "unknown_in_list"},
    "undecoded_path": {"encoded_ids"},
    "plain_text": {"types"},
}
# What the standard leaves open: advice at these points, and the server passes.
ODDITIES: dict[str, set[str]] = {
    "no_tls_1_3": {"both_tls"},
    "lax_values": {"bad_values"},
    "cacheable": {"no_store"},
}


@pytest.mark.slow
@pytest.mark.parametrize("defect", sorted(DEFECTS))
def test_a_defect_shows_at_its_own_points(cast: Cast, defect: str) -> None:
    report = probed(cast, defect)
    assert report.outcome is Outcome.DEVIATION
    assert named(report, Verdict.DEVIATION) == DEFECTS[defect], explained(report)


@pytest.mark.slow
@pytest.mark.parametrize("oddity", sorted(ODDITIES))
def test_what_the_standard_leaves_open_is_advice(cast: Cast, oddity: str) -> None:
    report = probed(cast, oddity)
    assert report.outcome is Outcome.PASS, explained(report)
    assert named(report, Verdict.ADVICE) == ODDITIES[oddity], explained(report)


def test_every_point_of_the_standard_within_reach_has_a_defect_that_shows_at_it() -> None:
    shown = set().union(*DEFECTS.values())
    asked = {row.name for row in ROWS if row.origin is Origin.STANDARD}
    assert asked - shown == {"unmet_extension", "versions"}


@pytest.mark.slow
def test_a_server_that_knows_only_get_is_judged_by_what_it_knows(cast: Cast) -> None:
    report = probed(cast, "only_get")
    assert report.outcome is Outcome.DEVIATION
    passed = named(report, Verdict.PASS)
    assert {"get_default", "get_query", "get_one", "second_fetch"} <= passed, explained(report)
    assert {"post_default", "same_key"} <= named(report, Verdict.DEVIATION), explained(report)


# --- dead and hostile servers -----------------------------------------------------------------


@pytest.mark.slow
def test_a_server_without_keys_is_not_passed(cast: Cast) -> None:
    report = probed(cast, "always_503")
    assert report.outcome is not Outcome.PASS
    assert "post_default" in named(report, Verdict.NOT_TESTED)
    assert report.keys_taken == 0


def test_an_outcome_needs_the_core_points() -> None:
    assert outcome_of(()) is Outcome.INCONCLUSIVE


@pytest.mark.slow
def test_a_hostile_server_neither_hangs_nor_passes_nor_gets_a_key_printed(cast: Cast) -> None:
    report = probed(cast, "hostile", timeout_s=0.3, limit_s=4.0)
    assert report.outcome is Outcome.DEVIATION
    assert report.duration_s < 8.0
    text = msgspec.json.encode(report).decode()
    assert base64.b64encode(b"secret key bytes" * 2).decode() not in text
    assert "\\u001b" not in text
    assert all(result.detail.isprintable() for result in report.points)


@asynccontextmanager
async def bare(context: ssl.SSLContext | None, words: bytes) -> AsyncIterator[str]:
    """A server that says `words` to everybody and then nothing."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        with suppress(ConnectionError, ssl.SSLError):
            await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("tls", "words"), [(True, b""), (True, b"hello\r\n\r\n"), (False, b""), (False, b"220 mail\r\n")]
)
def test_what_is_no_such_server_cannot_be_asked(cast: Cast, tls: bool, words: bytes) -> None:
    async def go() -> ConformanceReport:
        async with bare(cast.server.server_context() if tls else None, words) as url:
            return await run(cast.subject(url, timeout_s=0.3))

    with pytest.raises(Refused) as refused:
        asyncio.run(go())
    assert refused.value.code == "input.unreachable"


def test_a_closed_port_and_a_stranger_cannot_be_asked(cast: Cast, tmp_path: Path) -> None:
    with pytest.raises(Refused) as closed:
        asyncio.run(run(cast.subject("https://127.0.0.1:1")))
    assert closed.value.code == "input.unreachable"
    stranger = Authority(tmp_path).application(ALICE)
    with pytest.raises(Refused) as refused:
        probed(cast, master=Credentials(stranger.cert, stranger.key))
    assert refused.value.code == "input.unreachable"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://a:b", "https://u@h", "https://h/?q"]
)
def test_wrong_urls_are_refused(cast: Cast, url: str) -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(run(cast.subject(url)))
    assert refused.value.code == "input.url"


def test_files_that_are_no_certificates_are_refused(cast: Cast, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    wrong: list[dict[str, Any]] = [
        {"trust": Trust(ca=text)},
        {"trust": Trust(ca=tmp_path / "absent.pem")},
        {"master": Credentials(text, text)},
        {"slave": Credentials(cast.bob.cert, cast.alice.key)},
    ]
    for changed in wrong:
        with pytest.raises(Refused) as refused:
            asyncio.run(run(cast.subject("https://127.0.0.1:1", **changed)))
        assert refused.value.code == "input.certificate"


# --- parts ------------------------------------------------------------------------------------


def test_foreign_words_are_shown_without_control_characters_and_keys() -> None:
    assert printable("a\x1b[2J\nb\tSECRET", ["SECRET"]) == "a?[2J b <key>"
    assert len(printable("x" * 1000)) < 200


def test_a_hello_has_the_lengths_it_says() -> None:
    for host in ("kme.example", "127.0.0.1"):
        record = client_hello(host, 0x0302)
        assert record[0] == 0x16
        assert int.from_bytes(record[3:5]) == len(record) - 5
        assert int.from_bytes(record[6:9]) == len(record) - 9
        assert record[9:11] == b"\x03\x02"
        assert (b"kme.example" in record) == (host == "kme.example")


def test_the_page_holds_the_table() -> None:
    found = re.search(r"^\| point .*?(?=\n\n|\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found
    assert found.group().strip() == page_table(), f"put this table there:\n{page_table()}"


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {row.point for row in ROWS} == set(range(49))
