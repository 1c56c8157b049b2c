"""A strict ETSI GS QKD 014 client that shares no code with the product: it judges every byte it gets."""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.scenes.tools.wire import Answer, Connection, Gone, Violation, connect

__all__ = ["Answer", "Client014", "Gone", "Key", "Said", "Violation", "tls_context"]

# Version nibble 4 (or 8) and the RFC variant, lower case: what other clients accept as a UUID.
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[48][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
NOT_FOUND = "one or more keys specified are not found on KME"
STATUS_STRINGS = ("source_KME_ID", "target_KME_ID", "master_SAE_ID", "slave_SAE_ID")
STATUS_NUMBERS = (
    "key_size",
    "stored_key_count",
    "max_key_count",
    "max_key_per_request",
    "max_key_size",
    "min_key_size",
    "max_SAE_ID_count",
)


@dataclass(frozen=True)
class Key:
    """A key as a client holds it."""

    key_id: str
    key: bytes

    def __repr__(self) -> str:
        return f"Key({self.key_id}, <{len(self.key)} bytes>)"


class Said(Exception):
    """The server answered with an error of the standard: 400, 401 or 503.

    `faulty` says that something broke on the server's side (it then need not know when to try again).
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}: {answer.body[:300]!r}")
        self.answer = answer
        self.status = answer.status
        self.message = answer.message
        self.faulty = self._faulty()
        self.retry_after_s = self._retry_after_s()

    def _faulty(self) -> bool:
        details = self.answer.json().get("details", [])
        return any(isinstance(detail, dict) and detail.get("kind") == "faulty" for detail in details)

    def _retry_after_s(self) -> int:
        value = self.answer.headers.get("retry-after", "")
        if self.faulty and not value:
            return 1
        if self.status == 503 and not (value.isdigit() and int(value) >= 1):
            raise Violation(f"503 without a Retry-After in whole seconds: {self.answer!r}")
        return int(value) if value.isdigit() else 0


def tls_context(ca: str, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """A client context that trusts `ca` alone and checks the host name."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def read_keys(answer: Answer) -> list[Key]:
    """The keys of a key container. Raises Violation on anything that Table 11 does not allow."""
    body = answer.json()
    entries = body.get("keys") if isinstance(body, dict) else None
    if not isinstance(entries, list) or not entries:
        raise Violation(f"key container: expected a list of keys, got {_shape(body)}")
    return [_read_key(entry) for entry in entries]


def _shape(value: Any) -> str:
    """What a value looks like, without what is in it: it may hold keys."""
    return f"{type(value).__name__} with {sorted(value) if isinstance(value, dict) else '...'}"


def _read_key(entry: Any) -> Key:
    if not isinstance(entry, dict):
        raise Violation(f"key: expected an object, got {type(entry).__name__}")
    key_id, text = entry.get("key_ID"), entry.get("key")
    if not isinstance(key_id, str) or not UUID.fullmatch(key_id):
        raise Violation(f"key_ID: expected a UUID in lower case, got {key_id!r}")
    if not isinstance(text, str):
        raise Violation(f"key of {key_id}: expected a string, got {type(text).__name__}")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Violation(f"key of {key_id}: not base64 with padding: {error}") from error
    if base64.b64encode(key).decode() != text:
        raise Violation(f"key of {key_id}: base64 is not in canonical form")
    return Key(key_id, key)


def read_status(answer: Answer) -> dict[str, Any]:
    """The Status object. Raises Violation when a mandatory field of Table 9 is missing or mistyped."""
    body = answer.json()
    if not isinstance(body, dict):
        raise Violation(f"status: expected an object, got {answer!r}")
    for name in STATUS_STRINGS:
        if not isinstance(body.get(name), str) or not body[name]:
            raise Violation(f"status.{name}: expected a string, got {body.get(name)!r}")
    for name in STATUS_NUMBERS:
        value = body.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise Violation(f"status.{name}: expected a whole number, got {value!r}")
    return body


class Client014:
    """One SAE at its KME over one keep-alive connection, reopened when it is gone."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self.url = url
        self.connections = 0
        self._context = context
        self._connection: Connection | None = None

    async def connection(self) -> Connection:
        """The open connection, or a new one. Raises Gone."""
        if self._connection is None or not self._connection.open:
            if self._connection is not None:
                self._connection.abort()
            self._connection = await connect(self.url, self._context)
            self.connections += 1
        return self._connection

    async def request(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """One request, whatever the answer. Raises: Gone, Violation."""
        return await (await self.connection()).request(method, target, body)

    async def enc(self, slave: str, number: int = 1, size_bit: int = 256) -> list[Key]:
        """Get key. Raises: Said, Gone, Violation."""
        body = json.dumps({"number": number, "size": size_bit}).encode()
        keys = read_keys(await self._ok("POST", f"{_base(slave)}/enc_keys", body))
        if len(keys) != number:
            raise Violation(f"asked for {number} keys, got {len(keys)}")
        if len({key.key_id for key in keys}) != number:
            raise Violation("the same key_ID twice in one answer")
        self._check_lengths(keys, size_bit)
        return keys

    async def dec(self, master: str, key_ids: Sequence[str], size_bit: int = 256) -> list[Key]:
        """Get key with key IDs; the keys come in the order asked for. Raises: Said, Gone, Violation."""
        body = json.dumps({"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}).encode()
        keys = read_keys(await self._ok("POST", f"{_base(master)}/dec_keys", body))
        found = {key.key_id: key for key in keys}
        if len(keys) != len(key_ids) or set(found) != set(key_ids):
            raise Violation(f"asked for {list(key_ids)}, got {[key.key_id for key in keys]}")
        self._check_lengths(keys, size_bit)
        return [found[key_id] for key_id in key_ids]

    async def status(self, slave: str) -> dict[str, Any]:
        """Get status. Raises: Said, Gone, Violation."""
        return read_status(await self._ok("GET", f"{_base(slave)}/status", None))

    async def _ok(self, method: str, target: str, body: bytes | None) -> Answer:
        answer = await self.request(method, target, body)
        if answer.status == 200:
            return answer
        if answer.status in (400, 401, 503):
            raise Said(answer)
        raise Violation(f"{method} {target}: expected 200, 400, 401 or 503, got {answer!r}")

    @staticmethod
    def _check_lengths(keys: Sequence[Key], size_bit: int) -> None:
        for key in keys:
            if len(key.key) * 8 != size_bit:
                raise Violation(f"{key}: expected {size_bit} bits, got {len(key.key) * 8}")

    async def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            await self._connection.close()


def _base(peer: str) -> str:
    return f"/api/v1/keys/{quote(peer, safe='')}"
