"""URNs: numbered vectors, and agreement with a grammar written down a second time."""

from __future__ import annotations

import re
import string
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multiplane.kernel.urn import Name, Urn, covers, from_segment, labels_of, parse, profile, to_segment

ONE = "urn:qkd:madqci:ccips?=nonce=177923"
TWO = "urn:qkd:quditto:emulator:ipsec:controller?=nid=af33017"
THREE = "urn:qkd:lifecycle?=size=256&valid-until=1750708945"
LONG_NID = "q" * 32

VALID = [
    pytest.param(ONE, Urn("qkd", "madqci:ccips", q="nonce=177923"), id="1"),
    pytest.param(TWO, Urn("qkd", "quditto:emulator:ipsec:controller", q="nid=af33017"), id="2"),
    pytest.param(THREE, Urn("qkd", "lifecycle", q="size=256&valid-until=1750708945"), id="3"),
    pytest.param("URN:QKD:madqci:ccips?=nonce=177923", Urn("QKD", "madqci:ccips", q="nonce=177923"), id="4"),
    pytest.param("urn:qkd:MadQCI:ccips", Urn("qkd", "MadQCI:ccips"), id="6"),
    pytest.param("urn:qkd:a?+r?=q#f", Urn("qkd", "a", "r", "q", "f"), id="9"),
    pytest.param("urn:qkd:a?+r?+r2?=q", Urn("qkd", "a", "r?+r2", "q"), id="10"),
    pytest.param("urn:qkd:a?=x?=y", Urn("qkd", "a", q="x?=y"), id="11"),
    pytest.param("urn:qkd:a?=x?+y", Urn("qkd", "a", q="x?+y"), id="12"),
    pytest.param("urn:qkd:a?==1", Urn("qkd", "a", q="=1"), id="20"),
    pytest.param(f"urn:{LONG_NID}:a", Urn(LONG_NID, "a"), id="25"),
    pytest.param("urn:qkd:%C3%A9", Urn("qkd", "%C3%A9"), id="34"),
    pytest.param("urn:qkd:a#", Urn("qkd", "a", f=""), id="36"),
    pytest.param("urn:qkd::a", Urn("qkd", ":a"), id="38-first"),
    pytest.param("urn:qkd:a:", Urn("qkd", "a:"), id="38-last"),
    pytest.param("urn:qkd:a::b", Urn("qkd", "a::b"), id="38-inner"),
    pytest.param("urn:qkd:a/b?=nonce=1", Urn("qkd", "a/b", q="nonce=1"), id="39"),
    pytest.param("urn:qkd:m%61dqci:ccips?=nonce=1", Urn("qkd", "m%61dqci:ccips", q="nonce=1"), id="40"),
]

INVALID = [
    pytest.param("urn:qkd:a?=", 11, id="13"),
    pytest.param("urn:qkd:a?+", 11, id="14"),
    pytest.param("urn:qkd:a?+?=q", 11, id="15"),
    pytest.param("urn:qkd:a?x", 9, id="16"),
    pytest.param("urn:qkd:a?", 9, id="17"),
    pytest.param("urn:qkd:a?=/x", 11, id="18"),
    pytest.param("urn:qkd:a?=?x", 11, id="19"),
    pytest.param("urn:q:abc", 5, id="21"),
    pytest.param("urn:-qkd:a", 4, id="22"),
    pytest.param("urn:qkd-:a", 7, id="23"),
    pytest.param(f"urn:{LONG_NID}q:a", 37, id="24"),
    pytest.param("urn:qkd:", 8, id="26"),
    pytest.param("urn:qkd:/a", 8, id="27"),
    pytest.param("urn:qkd:a%2", 10, id="28"),
    pytest.param("urn:qkd:a%zz", 10, id="29"),
    pytest.param("urn:qkd:a b", 9, id="30"),
    pytest.param("urn:qkd:é", 8, id="31"),
    pytest.param("urn:qkd:a[0]", 9, id="32"),
    pytest.param("urn:qkd:a|b", 9, id="33"),
    pytest.param("urn:qkd:a\n", 9, id="35-trailing-lf"),
    pytest.param(" urn:qkd:a", 0, id="35-leading-space"),
    pytest.param("urn:qkd:a\nb", 9, id="35-inner-lf"),
    pytest.param("urn:qkd:a?=x#f#g", 14, id="37"),
    pytest.param("", 0, id="empty"),
    pytest.param("urn:qkd", 7, id="no-nss"),
]

OUTSIDE_PROFILE = [
    pytest.param("urn:qkd:MadQCI:ccips", "labels", id="6"),
    pytest.param("urn:qkd:a?+r?=q#f", "r- nor an f-component", id="9"),
    pytest.param("urn:qkd:a?==1", "parameter", id="20"),
    pytest.param("urn:qkd:%C3%A9", "labels", id="34"),
    pytest.param("urn:qkd:a#", "r- nor an f-component", id="36"),
    pytest.param("urn:qkd::a", "labels", id="38-first"),
    pytest.param("urn:qkd:a:", "labels", id="38-last"),
    pytest.param("urn:qkd:a::b", "labels", id="38-inner"),
    pytest.param("urn:qkd:a/b?=nonce=1", "labels", id="39"),
    pytest.param("urn:qkd:m%61dqci:ccips?=nonce=1", "labels", id="40"),
    pytest.param("urn:qkd:a?=nonce=1&nonce=2", "'nonce' once", id="41-twice"),
    pytest.param("urn:qkd:a?=nonce=1&nid=2", "one of 'nonce' and 'nid'", id="41-both"),
    pytest.param("urn:qkd:a?=nonce=", "key=value", id="41-empty"),
    pytest.param("urn:qkd:a?=nonce", "key=value", id="no-value"),
    pytest.param("urn:qkd:a?=nonce=%41", "key=value", id="triplet-in-value"),
    pytest.param("urn:qkd:a?=nonce=1&", "key=value", id="trailing-ampersand"),
    pytest.param("urn:qkd:lifecycle:x", "'lifecycle' alone", id="lifecycle-as-first-label"),
    pytest.param("urn:etsi:qkd:a", "namespace 'qkd'", id="other-namespace"),
    pytest.param("urn:qkd:" + "a" * 64, "1-63", id="label-too-long"),
    pytest.param("urn:qkd:" + ":".join("a" * 17), "at most 16", id="too-many-labels"),
    pytest.param("urn:qkd:a?=nonce=" + "1" * 1008, "at most 1024", id="too-long"),
]


@pytest.mark.parametrize(("text", "parts"), VALID)
def test_syntax_accepts(text: str, parts: Urn) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize(("text", "position"), INVALID)
def test_syntax_refuses_and_says_where(text: str, position: int) -> None:
    with pytest.raises(ValueError, match=rf"expected .* at position {position}, got"):
        parse(text)


@pytest.mark.parametrize(("text", "says"), OUTSIDE_PROFILE)
def test_profile_refuses_what_syntax_accepts(text: str, says: str) -> None:
    parse(text)
    with pytest.raises(ValueError, match=says):
        profile(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param(ONE, ONE, id="1"),
        pytest.param(TWO, TWO, id="2"),
        pytest.param(THREE, THREE, id="3"),
        pytest.param("URN:QKD:madqci:ccips?=nonce=177923", ONE, id="4"),
        pytest.param("urn:qkd:lifecycle?=valid-until=1750708945&size=256", THREE, id="3-swapped"),
        pytest.param("urn:qkd:a.b-c:0", "urn:qkd:a.b-c:0", id="label-characters"),
        pytest.param("urn:qkd:" + ":".join("a" * 16), "urn:qkd:" + ":".join("a" * 16), id="16-labels"),
        pytest.param("urn:qkd:" + "a" * 63, "urn:qkd:" + "a" * 63, id="63-characters"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert str(profile(text)) == canonical
    assert profile(canonical) == profile(text)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        pytest.param(ONE, "urn:qkd:madqci:ccips?=nonce=999999", True, id="5"),
        pytest.param("urn:qkd:MadQCI:ccips", "urn:qkd:madqci:ccips", False, id="6"),
        pytest.param("urn:qkd:a%2cb", "URN:QKD:a%2Cb", True, id="7"),
        pytest.param("urn:qkd:a%2Cb", "urn:qkd:a,b", False, id="8"),
        pytest.param("urn:qkd:a?+r?=q#f", "urn:qkd:a", True, id="components-ignored"),
        pytest.param("urn:qkd:a", "urn:qkx:a", False, id="other-namespace"),
    ],
)
def test_equivalence(a: str, b: str, same: bool) -> None:
    assert parse(a).equivalent(parse(b)) is same
    assert parse(b).equivalent(parse(a)) is same


def test_equivalent_urns_are_different_pairings() -> None:
    """Vector 5, second half."""
    assert profile(ONE) != profile("urn:qkd:madqci:ccips?=nonce=999999")
    assert profile(ONE).assigned == profile("urn:qkd:madqci:ccips?=nonce=999999").assigned
    assert profile("urn:qkd:a?=nonce=af33017") != profile("urn:qkd:a?=nonce=AF33017")


def test_parts_of_a_name() -> None:
    name = profile(TWO)
    assert name == Name("qkd", ("quditto", "emulator", "ipsec", "controller"), (("nid", "af33017"),))
    assert name.nss == "quditto:emulator:ipsec:controller"
    assert name.parameter("nid") == "af33017"
    assert name.parameter("nonce") is None
    assert not name.is_lifecycle
    assert profile(THREE).is_lifecycle
    assert str(profile("urn:etsi:qkd:a", nid="etsi")) == "urn:etsi:qkd:a"


@pytest.mark.parametrize(
    ("prefix", "nss", "covered"),
    [
        pytest.param("madqci", "madqci:ccips", True, id="46-child"),
        pytest.param("madqci", "madqci2:ccips", False, id="46-longer-label"),
        pytest.param("madqci", "madqci%3Accips", False, id="46-encoded-colon"),
        pytest.param("madqci", "madqci", True, id="46-itself"),
        pytest.param("quditto:emulator", "quditto:emulator:ipsec:controller", True, id="47"),
        pytest.param("madqci:ccips", "madqci", False, id="longer-than-name"),
    ],
)
def test_prefixes_match_whole_labels(prefix: str, nss: str, covered: bool) -> None:
    assert covers(prefix, nss) is covered


@pytest.mark.parametrize("prefix", ["madqci:", "", ":madqci", "MADQCI", "madqci*", "a b"])
def test_prefix_must_be_labels(prefix: str) -> None:
    """Vector 47, second half."""
    with pytest.raises(ValueError, match="labels: expected"):
        covers(prefix, "madqci:ccips")


def test_path_segment() -> None:
    """Vector 48."""
    assert to_segment(ONE) == "urn%3Aqkd%3Amadqci%3Accips%3F%3Dnonce%3D177923"
    assert from_segment(to_segment(ONE)) == ONE
    assert from_segment("urn:qkd:a") == "urn:qkd:a"
    assert from_segment("%252C") == "%2C"


@pytest.mark.parametrize("segment", ["%", "a%2", "%zz", "%+1", "% 1", "%é1", "%FF", "a%C3"])
def test_path_segment_refuses(segment: str) -> None:
    with pytest.raises(ValueError, match="path: expected"):
        from_segment(segment)


@given(st.text())
def test_path_segment_roundtrip(text: str) -> None:
    assert to_segment(text) == quote(text, safe="")
    assert from_segment(to_segment(text)) == text


# RFC 8141 §2, its ABNF as one regular expression; "?=" ends the r-component at its first place (§2.3).
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_NID = "[A-Za-z0-9][A-Za-z0-9-]{0,30}[A-Za-z0-9]"
_R = rf"{_PCHAR}(?:{_PCHAR}|/|\?(?!=))*"
_TAIL = rf"(?:{_PCHAR}|[/?])*"
ABNF = re.compile(
    rf"(?i:urn):(?P<nid>{_NID}):(?P<nss>{_PCHAR}(?:{_PCHAR}|/)*)"
    rf"(?:\?\+(?P<r>{_R}))?(?:\?=(?P<q>{_PCHAR}{_TAIL}))?(?:\#(?P<f>{_TAIL}))?"
)


def _by_parser(text: str) -> dict[str, str | None] | None:
    try:
        urn = parse(text)
    except ValueError:
        return None
    return {"nid": urn.nid, "nss": urn.nss, "r": urn.r, "q": urn.q, "f": urn.f}


def _by_grammar(text: str) -> dict[str, str | None] | None:
    match = ABNF.fullmatch(text)
    return match.groupdict() if match else None


_PIECES = [
    "?",
    "=",
    "+",
    "#",
    "?=",
    "?+",
    "/",
    ":",
    "%",
    "%2C",
    "%c",
    "-",
    "a",
    "Z",
    "9",
    "&",
    " ",
    "\n",
    "é",
    "٣",
]


@given(st.text(st.sampled_from(string.printable + "é٣K"), max_size=40))
def test_agrees_with_grammar_on_any_text(tail: str) -> None:
    for text in (tail, "urn:" + tail, "urn:qkd:" + tail, "URN:qkd:a" + tail):
        assert _by_parser(text) == _by_grammar(text)


@given(st.lists(st.sampled_from(_PIECES), max_size=16))
@example(["?+", "a", "?", "?="])
@example(["?+", "a", "?="])
def test_agrees_with_grammar_on_components(pieces: list[str]) -> None:
    tail = "".join(pieces)
    for text in ("urn:qkd:a" + tail, "urn:q" + tail + ":a"):
        assert _by_parser(text) == _by_grammar(text)


@given(st.from_regex(ABNF, fullmatch=True), st.integers(0), st.sampled_from(["", *_PIECES]), st.booleans())
def test_agrees_with_grammar_on_mutations(valid: str, where: int, piece: str, replace: bool) -> None:
    assert _by_parser(valid) is not None
    at = where % (len(valid) + 1)
    mutant = valid[:at] + piece + valid[at + replace :]
    assert _by_parser(mutant) == _by_grammar(mutant)


@given(st.text())
def test_profile_raises_nothing_but_value_error(text: str) -> None:
    for candidate in (text, "urn:qkd:" + text, "urn:qkd:a?=" + text):
        try:
            name = profile(candidate)
        except ValueError:
            continue
        assert profile(str(name)) == name
        assert parse(candidate).equivalent(parse(str(name)))
        assert labels_of(name.nss) == name.labels
