"""What the probe keeps of all answers: small facts for what must hold for each of them. Keys stay inside."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from typing import Any, Final

from multiplane.api.wire.web import JSON_TYPE
from multiplane.kernel.nouns import Secret
from multiplane.sdk.conformance.exchange import Answer
from multiplane.sdk.conformance.verdicts import Finding, deviates, not_tested, passed, printable

METHODS: Final = frozenset({"status", "enc_keys", "dec_keys"})
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_UUID_4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_DEFINED: Final = frozenset({200, 400, 503})


class Held(Secret, frozen=True, kw_only=True):
    """A key as the probe holds it."""

    key_id: str
    key: bytes


class Tally:
    """How often a rule was looked at, and what broke it: the first few breaches in words."""

    def __init__(self, nothing: str) -> None:
        self.seen = 0
        self.breaches: Counter[str] = Counter()
        self._nothing = nothing

    def look(self, good: bool, breach: str) -> None:
        """Count one look; `breach` says what was wrong if it was not `good`."""
        self.seen += 1
        if not good and len(self.breaches) < 100:
            self.breaches[breach] += 1

    def finding(self) -> Finding:
        """Passed when nothing broke the rule, not tested when nothing was looked at."""
        if not self.seen:
            return not_tested(self._nothing)
        if not self.breaches:
            return passed(f"{self.seen} seen")
        shown = "; ".join(f"{breach} ({count} times)" for breach, count in self.breaches.most_common(3))
        return deviates(f"{self.breaches.total()} of {self.seen}: {shown}")


class Records:
    """Facts of all answers so far."""

    def __init__(self) -> None:
        keys, errors = "no key was answered", "no 400 or 503 was answered"
        self.types = Tally("nothing was answered")
        self.versions = Tally("nothing was answered")
        self.errors = Tally(errors)
        self.refusals = Tally("no 401 was answered")
        self.no_store = Tally(keys)
        self.member = Tally(keys)
        self.uuids = Tally(keys)
        self.uuids_4 = Tally(keys)
        self.base64 = Tally(keys)
        self.repeats = Tally(keys)
        self.taken = self.collected = self.requests = 0
        self._ids: set[str] = set()
        self._keys: set[bytes] = set()
        self._texts: set[str] = set()

    def note(self, answer: Answer) -> None:
        """Look at an answer of any method, from outside of its keys."""
        self.requests += 1
        if answer.method not in METHODS:
            return
        at = f"{answer.verb} {answer.method} {answer.status}"
        self.versions.look(answer.version == "1.1", f"HTTP/{answer.version}")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if answer.status in _DEFINED:
            self.types.look(kind == JSON_TYPE, f"{at} with {printable(kind) or 'no type'}")
        if answer.status in _DEFINED and answer.status != 200:
            self.errors.look(_is_error(answer.json), f"{at} with another body")
        if answer.status == 401:
            self.refusals.look(_is_error(answer.json), f"{at} with another body")

    def keys_of(self, answer: Answer, size_bit: int | None = None) -> list[Held]:
        """The keys of an answer, however oddly they are told; none when it holds none.

        Args:
            size_bit: length that each must have, None when it is not known.
        """
        if answer.status != 200:
            return []
        container, taken = answer.json, answer.method == "enc_keys"
        entries, member = _entries(container)
        self.no_store.look("no-store" in answer.headers.get("cache-control", ""), "without no-store")
        self.member.look(member == "keys", f"{answer.method} with {member or 'no list of keys'}")
        held = [key for entry in entries if (key := self._key_of(entry, size_bit, taken=taken)) is not None]
        if taken:
            self.taken += len(entries)
        else:
            self.collected += len(entries)
        return held

    def _key_of(self, entry: Any, size_bit: int | None, *, taken: bool) -> Held | None:
        key_id = entry.get("key_ID") if isinstance(entry, dict) else None
        text = entry.get("key") if isinstance(entry, dict) else None
        if isinstance(text, str):
            self._texts.add(text)
        good_id = isinstance(key_id, str) and bool(_UUID.fullmatch(key_id))
        self.uuids.look(good_id, f"{printable(str(key_id), self._texts)!r}")
        self.uuids_4.look(isinstance(key_id, str) and bool(_UUID_4.fullmatch(key_id)), "not so")
        key, breach = _decoded(text)
        if not breach and size_bit is not None and len(key) != -(-size_bit // 8):
            breach = f"{len(key)} bytes instead of {size_bit} bits"
        self.base64.look(not breach, breach)
        if not isinstance(key_id, str):
            return None
        if taken:
            again = key_id in self._ids or (len(key) >= 8 and key in self._keys)
            self.repeats.look(not again, "an id or a key came twice")
            self._ids.add(key_id)
            self._keys.add(key)
        return Held(key_id=key_id, key=key)

    def outline(self, answer: Answer) -> str:
        """An answer in a few words: its status, and its message when it is an error."""
        message = answer.message if answer.status != 200 else None
        if message is None:
            return str(answer.status)
        return f"{answer.status} {printable(message, self._texts)!r}"


def _is_error(body: Any) -> bool:
    """Table 13: a message, and optionally a list of objects."""
    if not isinstance(body, dict) or not isinstance(body.get("message"), str):
        return False
    details = body.get("details", [])
    return isinstance(details, list) and all(isinstance(detail, dict) for detail in details)


def _entries(container: Any) -> tuple[list[Any], str]:
    """The list of keys, and the name it goes under."""
    if isinstance(container, dict):
        for name in ("keys", "Keys"):
            if isinstance(container.get(name), list):
                return container[name], name
        return [], ""
    return (container, "a bare list") if isinstance(container, list) else ([], "")


def _decoded(text: Any) -> tuple[bytes, str]:
    """A key, and what is wrong with its spelling."""
    if not isinstance(text, str):
        return b"", "no text"
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return _guessed(text), "not Base64 of the standard alphabet with padding"
    if base64.b64encode(key).decode() != text:
        return key, "Base64 with pad bits or line breaks"
    return key, ""


def _guessed(text: str) -> bytes:
    """A key in another spelling of Base64, so that other points can be judged; else its characters."""
    try:
        return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except (binascii.Error, ValueError):
        return text.encode(errors="replace")
