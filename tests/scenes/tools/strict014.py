"""A strict client of ETSI GS QKD 014: bare sockets, and nothing forgiven.

It shares no code with the other tools, so that a common mistake is no common excuse. Every call can be made
in several forms of HTTP; every answer is checked to the byte.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import time
from typing import Any, Final

INT32: Final = 2**31 - 1
UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
STATUS_TEXT: Final = ("source_KME_ID", "target_KME_ID", "master_SAE_ID", "slave_SAE_ID")
STATUS_NUMBERS: Final = (
    "key_size",
    "stored_key_count",
    "max_key_count",
    "max_key_per_request",
    "max_key_size",
    "min_key_size",
    "max_SAE_ID_count",
)
FORMS: Final = ("1.1", "1.1 close", "1.0", "1.0 keep-alive", "chunked", "expect", "expect chunked", "by byte")


class Strict(AssertionError):
    """An answer that a strict reader of the standards refuses."""


def demand(condition: object, what: str) -> None:
    """Raises Strict."""
    if not condition:
        raise Strict(what)


def escaped(name: str) -> str:
    """Percent-encoded to the last character: every byte but letters and digits."""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in name.encode()
    )


class Strict014:
    """One application at its key manager."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self._address = address
        self._context = context
        self._wire: ssl.SSLSocket | None = None
        self._unread = b""
        self.versions: set[str] = set()

    # --- HTTP --------------------------------------------------------------------------------

    def _open(self) -> ssl.SSLSocket:
        if self._wire is None:
            raw = socket.create_connection(self._address, 10.0)
            self._wire = self._context.wrap_socket(raw, server_hostname=self._address[0])
            self._unread = b""
            self.versions.add(self._wire.version() or "")
        return self._wire

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _line(self) -> bytes:
        while b"\r\n" not in self._unread:
            self._more()
        line, _, self._unread = self._unread.partition(b"\r\n")
        demand(b"\n" not in line and b"\r" not in line, f"a bare line end in {line!r}")
        return line

    def _more(self) -> None:
        data = self._open().recv(65536)
        demand(data, "the connection ended within an answer")
        self._unread += data

    def _head(self) -> tuple[int, dict[str, str]]:
        first = self._line()
        found = re.fullmatch(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*", first)
        if found is None:
            raise Strict(f"status line {first!r}")
        fields: dict[str, str] = {}
        while line := self._line():
            name, colon, value = line.decode("ascii").partition(":")
            demand(colon and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name), f"field {line!r}")
            demand(name.lower() not in fields, f"field {name} twice")
            fields[name.lower()] = value.strip()
        return int(found[1]), fields

    def _answer(self) -> tuple[int, dict[str, str], bytes]:
        status, fields = self._head()
        demand("transfer-encoding" not in fields, "an answer in chunks")
        demand(re.fullmatch(r"0|[1-9][0-9]*", fields.get("content-length", "")), f"length of {fields}")
        length = int(fields["content-length"])
        while len(self._unread) < length:
            self._more()
        body, self._unread = self._unread[:length], self._unread[length:]
        demand(not self._unread, f"{len(self._unread)} bytes after an answer")
        demand(fields.get("content-type") == "application/json", f"type of {fields}")
        demand("date" in fields, "no Date")
        return status, fields, body

    def call(
        self, verb: str, target: str, body: bytes = b"", form: str = "1.1"
    ) -> tuple[int, Any, dict[str, str]]:
        """One call in one of FORMS: status, parsed body, header fields."""
        wire = self._open()
        old = form.startswith("1.0")
        lines = [f"{verb} {target} HTTP/{'1.0' if old else '1.1'}"]
        lines += [] if old else [f"Host: {self._address[0]}:{self._address[1]}"]
        lines += ["Connection: keep-alive"] if form == "1.0 keep-alive" else []
        lines += ["Connection: close"] if form == "1.1 close" else []
        lines += ["Content-Type: application/json"] if body else []
        chunked = body and "chunked" in form
        if chunked:
            lines.append("Transfer-Encoding: chunked")
            half = max(1, len(body) // 2)
            body = b"".join(
                b"%X\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part
            )
            body += b"0\r\n\r\n"
        elif body:
            lines.append(f"Content-Length: {len(body)}")
        lines += ["Expect: 100-continue"] if body and "expect" in form else []
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        if body and "expect" in form:
            wire.sendall(head)
            demand(self._head()[0] == 100, "no 100 before the body")
            wire.sendall(body)
        elif form == "by byte":
            for byte in head + body:
                wire.sendall(bytes([byte]))
        else:
            wire.sendall(head + body)
        status, fields, told = self._answer()
        stays = form not in ("1.1 close", "1.0")
        if old and stays:
            demand(fields.get("connection", "").lower() == "keep-alive", "an old client is not told to stay")
        if not stays:
            demand(fields.get("connection", "").lower() == "close", "it does not say that it closes")
            demand(wire.recv(1) == b"", "it says that it closes and does not")
        if fields.get("connection", "").lower() == "close":
            self.close()
        return status, json.loads(told.decode("utf-8"), parse_int=_int32, parse_float=_no_float), fields

    # --- 014 ---------------------------------------------------------------------------------

    def status(self, slave: str, form: str = "1.1") -> dict[str, Any]:
        """Get status, checked."""
        status, told, _ = self.call("GET", f"/api/v1/keys/{escaped(slave)}/status", form=form)
        demand(status == 200, f"status: {status} {told}")
        demand(isinstance(told, dict), "status is no object")
        for name in STATUS_TEXT:
            demand(isinstance(told.get(name), str) and told[name], f"{name}: {told.get(name)!r}")
        for name in STATUS_NUMBERS:
            demand(type(told.get(name)) is int and told[name] >= 0, f"{name}: {told.get(name)!r}")
        demand(told["stored_key_count"] <= told["max_key_count"], f"stored beyond max: {told}")
        demand(told["min_key_size"] <= told["key_size"] <= told["max_key_size"], f"sizes: {told}")
        return dict(told)

    def get_key(self, slave: str, number: int, size_bit: int, *, verb: str, form: str) -> dict[str, bytes]:
        """Get key: the keys by id, checked. Waits while it is answered 503."""
        target = f"/api/v1/keys/{escaped(slave)}/enc_keys"
        body = json.dumps({"number": number, "size": size_bit}).encode() if verb == "POST" else b""
        target += f"?number={number}&size={size_bit}" if verb == "GET" else ""
        deadline_s = time.monotonic() + 60.0
        while True:
            status, told, fields = self.call(verb, target, body, form)
            if status != 503 or time.monotonic() > deadline_s:
                break
            demand(re.fullmatch(r"[1-9][0-9]*", fields.get("retry-after", "")), "503 without Retry-After")
            demand(isinstance(told["message"], str) and isinstance(told["details"], list), f"503: {told}")
            time.sleep(0.2)
        demand(status == 200, f"enc_keys: {status} {told}")
        return _container(told, number, size_bit)

    def get_key_with_ids(
        self, master: str, ids: list[str], size_bit: int, *, verb: str, form: str
    ) -> dict[str, bytes]:
        """Get key with key IDs: the keys by id, checked."""
        target = f"/api/v1/keys/{escaped(master)}/dec_keys"
        body = json.dumps({"key_IDs": [{"key_ID": one} for one in ids]}).encode() if verb == "POST" else b""
        target += "?" + "&".join(f"key_ID={one}" for one in ids) if verb == "GET" else ""
        status, told, _ = self.call(verb, target, body, form)
        demand(status == 200, f"dec_keys: {status} {told}")
        return _container(told, len(ids), size_bit)

    def refuses(self, verb: str, target: str, body: bytes, wanted: int) -> None:
        """A call that must be refused with a status and a message."""
        status, told, _ = self.call(verb, target, body)
        demand(status == wanted, f"{verb} {target}: expected {wanted}, got {status} {told}")
        demand(isinstance(told, dict) and isinstance(told.get("message"), str), f"message: {told}")
        demand(isinstance(told.get("details"), list), f"details: {told}")
        demand(all(isinstance(detail, dict) for detail in told["details"]), f"details: {told}")


def _int32(text: str) -> int:
    demand(-INT32 - 1 <= int(text) <= INT32, f"integer {text} is beyond 32 bits")
    return int(text)


def _no_float(text: str) -> float:
    raise Strict(f"number {text} is no integer")


def _container(told: Any, number: int, size_bit: int) -> dict[str, bytes]:
    demand(isinstance(told, dict) and isinstance(told.get("keys"), list), "no list of keys")
    found: dict[str, bytes] = {}
    for entry in told["keys"]:
        key_id, text = entry["key_ID"], entry["key"]
        demand(len(key_id) == 36 and UUID.fullmatch(key_id), f"key_ID {key_id!r}")
        key = base64.b64decode(text, validate=True)
        demand(base64.b64encode(key).decode() == text, f"key of {key_id}: base64 is not canonical")
        demand(len(key) * 8 == size_bit, f"key of {key_id}: {len(key) * 8} bits, expected {size_bit}")
        found[key_id] = key
    demand(len(found) == number == len(told["keys"]), f"{len(told['keys'])} keys, expected {number}")
    return found
