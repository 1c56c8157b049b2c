"""URNs: RFC 8141 syntax, our narrower profile of it, and label prefixes.

Two levels, never mixed up. `parse` answers "is it a URN?" and `Urn.equivalent` "is it the same URN?": the
RFC ignores the q-component there. `profile` answers "is it a name that we use?"; names that differ in their
q-component are equivalent URNs and *different pairings*. Generic URI functions are never used on URNs: they
drop line feeds, remove dot segments together with the NID, or lose the first parameter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from multiplane.kernel.names import NID

LIFECYCLE: Final = "lifecycle"
MAX_LABELS: Final = 16
MAX_URN_CHARS: Final = 1024

_HEX: Final = frozenset("0123456789ABCDEFabcdef")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PCHAR: Final = r"A-Za-z0-9\-._~!$&'()*+,;=:@"

_NID: Final = re.compile("[A-Za-z0-9-]*")
_NSS: Final = re.compile(f"(?:[{_PCHAR}/]|%[0-9A-Fa-f]{{2}})*")
_TAIL: Final = re.compile(f"(?:[{_PCHAR}/?]|%[0-9A-Fa-f]{{2}})*")
_R: Final = re.compile(rf"(?:(?!\?=)[{_PCHAR}/?]|%[0-9A-Fa-f]{{2}})*")
_TRIPLET: Final = re.compile("%..")
_LABEL: Final = re.compile(r"[a-z0-9.-]{1,63}")
_KEY: Final = re.compile(r"[a-z0-9-]+")
_VALUE: Final = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True, slots=True)
class Urn:
    """The parts of a URN as they were written; a component that is absent is None, which is not empty.

    Args:
        nid: namespace identifier. nss: namespace-specific string.
        r: resolution component. q: query component. f: fragment.
    """

    nid: str
    nss: str
    r: str | None = None
    q: str | None = None
    f: str | None = None

    def equivalent(self, other: Urn) -> bool:
        """Whether both are the same URN by RFC 8141 §3.1. Says nothing about pairings: q is ignored."""
        return self._normal() == other._normal()

    def _normal(self) -> tuple[str, str]:
        return self.nid.lower(), _TRIPLET.sub(lambda triplet: triplet[0].upper(), self.nss)


@dataclass(frozen=True, slots=True)
class Name:
    """A URN of our profile in canonical form; `str` writes it. Equal names are the same pairing end.

    Args:
        nid: namespace identifier, lower case.
        labels: the labels of the NSS, from the root down.
        parameters: (key, value) of the q-component, in order of key; empty without one.
    """

    nid: str
    labels: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def nss(self) -> str:
        """The labels joined by colons: what prefixes cover and routes are keyed by."""
        return ":".join(self.labels)

    @property
    def assigned(self) -> str:
        """The URN without its q-component: the application itself, whatever the pairing."""
        return f"urn:{self.nid}:{self.nss}"

    @property
    def is_lifecycle(self) -> bool:
        """Whether this is the reserved name that carries lifecycle parameters."""
        return self.labels == (LIFECYCLE,)

    def parameter(self, key: str) -> str | None:
        """Value of a parameter, None when it is not there."""
        return dict(self.parameters).get(key)

    def __str__(self) -> str:
        q = "&".join(f"{key}={value}" for key, value in self.parameters)
        return f"{self.assigned}?={q}" if q else self.assigned


def parse(text: str) -> Urn:
    """Read a URN by the syntax of RFC 8141, in one pass.

    Raises: ValueError that names the position and what was expected there.
    """
    if text[:4].lower() != "urn:":
        raise _wrong(text, 0, "the scheme 'urn:'")
    at = _nid_end(text)
    nid = text[4:at]
    nss, at = _component(text, at + 1, _NSS)
    r = q = f = None
    if text.startswith("?+", at):
        r, at = _component(text, at + 2, _R)
    if text.startswith("?=", at):
        q, at = _component(text, at + 2, _TAIL)
    if text.startswith("#", at):
        end = _run(text, at + 1, _TAIL)
        f, at = text[at + 1 : end], end
    if at != len(text):
        raise _wrong(text, at, "a character that may stand here, or '?+', '?=' or '#' in this order")
    return Urn(nid, nss, r, q, f)


@lru_cache(maxsize=1024)
def profile(text: str, nid: str = NID) -> Name:
    """Read a URN of our profile and bring it into canonical form. A name under agreement is read often: kept.

    The profile: namespace `nid`; 1-16 labels of 1-63 lower-case ASCII letters, digits, `-`, `.`; no r and
    no f; `key=value` parameters without duplicates, at most one of `nonce` and `nid`; 1,024 characters.
    Percent triplets are refused, never decoded, so that a name has one spelling.

    Raises: ValueError that names the part, its value and what was expected.
    """
    if len(text) > MAX_URN_CHARS:
        raise ValueError(f"urn: expected at most {MAX_URN_CHARS} characters, got {len(text)}")
    urn = parse(text)
    if urn.nid.lower() != nid:
        raise ValueError(f"urn: expected the namespace {nid!r}, got {urn.nid!r}")
    if urn.r is not None or urn.f is not None:
        raise ValueError(f"urn: expected neither an r- nor an f-component, got {text!r}")
    labels = labels_of(urn.nss)
    if labels[0] == LIFECYCLE and len(labels) > 1:
        raise ValueError(f"urn: expected {LIFECYCLE!r} alone or another first label, got {urn.nss!r}")
    return Name(nid, labels, () if urn.q is None else _parameters(urn.q))


def labels_of(text: str) -> tuple[str, ...]:
    """Split a prefix or an NSS of our profile into its labels.

    Raises: ValueError on an empty, too long or badly spelt label, and on more than 16 labels.
    """
    labels = tuple(text.split(":"))
    if len(labels) > MAX_LABELS:
        raise ValueError(f"labels: expected at most {MAX_LABELS}, got {len(labels)}")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"labels: expected 1-63 of a-z, 0-9, '-', '.', got {label!r} in {text!r}")
    return labels


def covers(prefix: str, nss: str) -> bool:
    """Whether `prefix` is `nss` or an ancestor of it. Labels are whole: `madqci` covers no `madqci2`.

    Raises: ValueError when `prefix` is not a list of labels.
    """
    labels = labels_of(prefix)
    return tuple(nss.split(":")[: len(labels)]) == labels


def to_segment(text: str) -> str:
    """A name as one segment of an HTTP path: all but letters, digits and `-._~` percent-encoded."""
    return "".join(chr(b) if chr(b) in _UNRESERVED else f"%{b:02X}" for b in text.encode())


def from_segment(segment: str) -> str:
    """Undo `to_segment`, once: `%252C` gives `%2C`.

    Raises: ValueError on a percent sign without two hexadecimal digits, or bytes that are not UTF-8.
    """
    head, *pieces = segment.encode().split(b"%")
    octets = [head]
    for piece in pieces:
        digits = piece[:2].decode("latin-1")
        if len(digits) != 2 or not _HEX.issuperset(digits):
            raise ValueError(f"path: expected two hexadecimal digits after '%', got {digits!r}")
        octets += [bytes.fromhex(digits), piece[2:]]
    try:
        return b"".join(octets).decode()
    except UnicodeDecodeError:
        raise ValueError("path: expected UTF-8 behind the percent signs") from None


def _nid_end(text: str) -> int:
    """Position of the colon after the NID."""
    at = _end(_NID, text, 4)
    if not 2 <= at - 4 <= 32:
        raise _wrong(text, at, "a namespace identifier of 2-32 letters, digits, '-'")
    for end in (4, at - 1):
        if text[end] == "-":
            raise _wrong(text, end, "a letter or digit at the ends of the namespace identifier")
    if not text.startswith(":", at):
        raise _wrong(text, at, "':' after the namespace identifier")
    return at


def _component(text: str, at: int, run: re.Pattern[str]) -> tuple[str, int]:
    """A component that must not be empty nor begin with `/` or `?`, and the position after it."""
    end = _run(text, at, run)
    if end == at or text[at] in "/?":
        raise _wrong(
            text, at, "a component that begins with a letter, digit, '%' or one of -._~!$&'()*+,;=:@"
        )
    return text[at:end], end


def _run(text: str, at: int, run: re.Pattern[str]) -> int:
    """Position after the longest run of characters that may stand there, and percent triplets."""
    end = _end(run, text, at)
    if text.startswith("%", end):
        raise _wrong(text, end + 1, "two hexadecimal digits after '%'")
    return end


def _end(run: re.Pattern[str], text: str, at: int) -> int:
    found = run.match(text, at)
    assert found is not None, "a run may be empty"
    return found.end()


def _parameters(q: str) -> tuple[tuple[str, str], ...]:
    parameters: dict[str, str] = {}
    for piece in q.split("&"):
        key, _, value = piece.partition("=")
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ValueError(f"parameter: expected key=value of unreserved characters, got {piece!r}")
        if key in parameters:
            raise ValueError(f"parameter: expected {key!r} once, got it again in {q!r}")
        parameters[key] = value
    if "nonce" in parameters and "nid" in parameters:
        raise ValueError(f"parameter: expected one of 'nonce' and 'nid', got both in {q!r}")
    return tuple(sorted(parameters.items()))


def _wrong(text: str, at: int, expected: str) -> ValueError:
    found = repr(text[at]) if at < len(text) else "the end"
    return ValueError(f"urn: expected {expected} at position {at}, got {found}")
