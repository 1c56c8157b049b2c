"""A small 014 server over aiohttp that is right until it is told to be wrong in a named way.

Every defect is one that some server of the field shows, or its nearest relative. It shares no code with the
product's own server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import uuid
import warnings
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from tests.support.web import ALICE, BOB, CAROL, Credential

MEMBERS = {"number", "size", "extension_mandatory", "extension_optional", "additional_slave_SAE_IDs"}
KNOWN = (ALICE, BOB, CAROL)
NOT_FOUND = "one or more keys specified are not found on KME"
MOST_NUMBER, LOW_BIT, DEFAULT_BIT, HIGH_BIT, MOST_STORED, MOST_SLAVES = 16, 64, 256, 1024, 1000, 2


class Wrong(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Issued:
    """One key, and who may still fetch it."""

    key: bytes
    master: str
    named: tuple[str, ...]
    waiting: set[str] = field(default_factory=set)
    at_s: float = 0.0


class WrongKme:
    """The server. `defects` are names from `DEFECTS` of the tests; none = as the standard says."""

    def __init__(self, defects: Collection[str] = ()) -> None:
        self.defects = frozenset(defects)
        self.stored = 500
        self.issued: dict[str, Issued] = {}
        self.requests = 0

    def has(self, *names: str) -> bool:
        return not self.defects.isdisjoint(names)

    # --- HTTP ---------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        try:
            if self.has("hostile") and "enc_keys" in request.path:
                return await self._hostile(request)
            status, body = 200, await self._called(request)
        except Wrong as wrong:
            status, body = wrong.status, self._error(wrong)
        kind = "text/plain" if self.has("plain_text") else "application/json"
        headers = {} if self.has("cacheable") else {"Cache-Control": "no-store"}
        return web.Response(status=status, text=json.dumps(body), content_type=kind, headers=headers)

    def _error(self, wrong: Wrong) -> Any:
        if self.has("detail_for_message"):
            return {"detail": str(wrong)}
        return {"message": str(wrong), "details": [{"status": wrong.status}]}

    async def _called(self, request: web.Request) -> Any:
        path = request.raw_path if self.has("undecoded_path") else request.rel_url.raw_path
        parts = path.partition("?")[0].split("/")
        if parts[:4] != ["", "api", "v1", "keys"] or len(parts) != 6:
            raise Wrong(404, "no such path")
        sae, method = parts[4], parts[5]
        sae = sae.replace("%3A", ":") if self.has("undecoded_path") else unquote(sae)
        if self.has("always_503"):
            raise Wrong(503, "the stock is empty")
        if method == "status" and request.method == "GET":
            return self._status(self._caller(request, ALICE), sae)
        if method == "enc_keys" and request.method in ("GET", "POST"):
            self._check_verb(request.method)
            return self._enc(self._caller(request, ALICE), sae, await self._wish(request))
        if method == "dec_keys" and request.method in ("GET", "POST"):
            self._check_verb(request.method)
            return await self._dec(self._caller(request, BOB), sae, await self._asked_ids(request))
        raise Wrong(404 if method not in ("status", "enc_keys", "dec_keys") else 405, "no such method")

    def _check_verb(self, verb: str) -> None:
        if (verb == "GET" and self.has("only_post")) or (verb == "POST" and self.has("only_get")):
            raise Wrong(405, "no such verb")

    def _caller(self, request: web.Request, default: str) -> str:
        if self.has("header_identity") and "X-SAE-ID" in request.headers:
            return request.headers["X-SAE-ID"]
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert") or {}
        names = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
        return str(names[0]) if names else default

    async def _wish(self, request: web.Request) -> dict[str, Any]:
        if request.method == "GET":
            return {name: int(value) for name, value in request.query.items()}
        return await self._object(request, empty={})

    async def _asked_ids(self, request: web.Request) -> list[str]:
        if request.method == "GET":
            return request.query.getall("key_ID", [])
        asked = (await self._object(request, empty=None)).get("key_IDs")
        if not isinstance(asked, list) or not asked:
            raise Wrong(400, "key_IDs: expected a list")
        return [item.get("key_ID") for item in asked]

    async def _object(self, request: web.Request, empty: Any) -> dict[str, Any]:
        raw = await request.read()
        if not raw and empty is not None:
            return dict(empty)
        try:
            found = json.loads(raw.decode())
            if not isinstance(found, dict):
                raise ValueError("no object")
        except ValueError:
            raise Wrong(422 if self.has("malformed_422") else 400, "body: malformed") from None
        return found

    # --- status -------------------------------------------------------------------------------

    def _status(self, caller: str, slave: str) -> dict[str, Any]:
        if slave not in KNOWN:
            raise Wrong(400, "no such SAE")
        if self.has("status_takes"):
            self.stored -= 1
        found: dict[str, Any] = {
            "source_KME_ID": "kme-a",
            "target_KME_ID": "kme-b",
            "master_SAE_ID": BOB if self.has("master_is_other") else caller,
            "slave_SAE_ID": CAROL if self.has("slave_is_other") else slave,
            "key_size": DEFAULT_BIT,
            "stored_key_count": 300 if self.has("stored_stands") else self.stored,
            "max_key_count": 10 if self.has("stored_above_max") else MOST_STORED,
            "max_key_per_request": MOST_NUMBER,
            "max_key_size": HIGH_BIT,
            "min_key_size": LOW_BIT,
            "max_SAE_ID_count": 0 if self.has("multicast_off", "multicast_denied") else MOST_SLAVES,
        }
        if self.has("status_lacks"):
            del found["target_KME_ID"]
        if self.has("status_texts"):
            found["max_key_count"] = str(found["max_key_count"])
        return found

    # --- Get key ------------------------------------------------------------------------------

    def _enc(self, caller: str, slave: str, wish: dict[str, Any]) -> Any:
        number, size_bit = wish.get("number", 1), wish.get("size", DEFAULT_BIT)
        if set(wish) - MEMBERS and self.has("unknown_member_500"):
            raise Wrong(500, "unexpected member")
        self._check_extensions(wish)
        additional = self._additional(wish)
        number, size_bit = self._checked(number, size_bit)
        if number > self.stored:
            raise Wrong(400 if self.has("dry_400") else 503, "too few keys")
        self.stored -= number
        count = 1 if self.has("one_key_only") else number
        length = size_bit if self.has("bits_as_bytes") else size_bit // 8
        return self._container([self._new(caller, (slave, *additional), length) for _ in range(count)])

    def _new(self, master: str, named: tuple[str, ...], length_byte: int) -> tuple[str, bytes]:
        key_id = uuid.uuid4().hex if self.has("ids_without_hyphens") else str(uuid.uuid4())
        key = uuid.uuid4().bytes * 64
        now_s = asyncio.get_running_loop().time()
        self.issued[key_id] = Issued(key[:length_byte], master, named, set(named), now_s)
        return key_id, key[:length_byte]

    def _check_extensions(self, wish: dict[str, Any]) -> None:
        if wish.get("extension_mandatory") and not self.has("extensions_dropped"):
            raise Wrong(400, "not all extension_mandatory parameters are supported")
        if wish.get("extension_optional") and self.has("optional_refused"):
            raise Wrong(400, "no extensions please")

    def _additional(self, wish: dict[str, Any]) -> tuple[str, ...]:
        named = wish.get("additional_slave_SAE_IDs", [])
        if self.has("multicast_off") and named:
            raise Wrong(400, "no multicast")
        if len(named) > MOST_SLAVES and not self.has("many_slaves"):
            raise Wrong(400, "too many slaves")
        unknown = [name for name in named if name not in KNOWN]
        if unknown and not self.has("many_slaves", "multicast_denied"):
            raise Wrong(400, "no such SAE")
        return tuple(named)

    def _checked(self, number: Any, size_bit: Any) -> tuple[int, int]:
        wrong = self._refused_number(number) or self._refused_size(size_bit)
        if wrong and self.has("range_503"):
            raise Wrong(503, wrong)
        if wrong:
            raise Wrong(400, wrong)
        return min(int(number), MOST_NUMBER), min(max(int(size_bit), LOW_BIT), HIGH_BIT)

    def _refused_number(self, number: Any) -> str:
        if type(number) is not int or number < 1:
            return "" if self.has("lax_values") and str(number) == "1" else "number: expected an integer"
        return "number: too many" if number > MOST_NUMBER and not self.has("number_clipped") else ""

    def _refused_size(self, size_bit: Any) -> str:
        if type(size_bit) is not int or size_bit < 1:
            return "size: expected an integer"
        if size_bit % 8 and not self.has("size_rounded"):
            return "bad size" if self.has("other_size_text") else "size shall be a multiple of 8"
        if not LOW_BIT <= size_bit <= HIGH_BIT and not self.has("size_clipped"):
            return "size: out of range"
        return ""

    def _container(self, keys: list[tuple[str, bytes]]) -> Any:
        spelled = base64.urlsafe_b64encode if self.has("url_safe") else base64.b64encode
        entries = [{"key_ID": key_id, "key": spelled(key).decode()} for key_id, key in keys]
        if self.has("unpadded"):
            entries = [{**entry, "key": entry["key"].rstrip("=")} for entry in entries]
        return {"Keys" if self.has("capital_keys") else "keys": entries}

    # --- Get key with key IDs -----------------------------------------------------------------

    async def _dec(self, caller: str, master: str, key_ids: list[Any]) -> Any:
        missing = 404 if self.has("missing_404") else 400
        if len(set(key_ids)) != len(key_ids):
            raise Wrong(400, "key_IDs: one twice")
        entries = {key_id: self.issued.get(key_id) for key_id in key_ids}
        if self.has("partial_delivery"):
            entries = {key_id: entry for key_id, entry in entries.items() if entry}
        for entry in entries.values():
            if entry and caller not in entry.named and not self.has("anybody_fetches"):
                raise Wrong(400 if self.has("foreign_400") else 401, "not yours")
        if self.has("slow_fetch"):
            await asyncio.sleep(0.05)
        good = {i: e for i, e in entries.items() if e and e.master == master and self._waits(e, caller)}
        if len(good) != len(entries) or not good:
            if self.has("failure_takes"):
                for entry in good.values():
                    entry.waiting.discard(caller)
            raise Wrong(missing, "unknown key" if self.has("other_text") else NOT_FOUND)
        for entry in good.values():
            entry.waiting -= set(entry.named) if self.has("first_takes_all") else {caller}
        return self._container([(i, self._bytes_for(e, caller)) for i, e in good.items()])

    def _waits(self, entry: Issued, caller: str) -> bool:
        if self.has("late_announcement") and asyncio.get_running_loop().time() - entry.at_s < 0.2:
            return False
        return self.has("fetched_again", "anybody_fetches") or caller in entry.waiting

    def _bytes_for(self, entry: Issued, caller: str) -> bytes:
        if self.has("other_bytes") or (self.has("other_bytes_for_additional") and caller != entry.named[0]):
            return entry.key[::-1]
        return entry.key

    # --- hostile ------------------------------------------------------------------------------

    async def _hostile(self, request: web.Request) -> web.StreamResponse:
        """Answers that a careless client chokes on, in turn."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        turn = self.requests % 5
        if turn == 0:
            key = base64.b64encode(b"secret key bytes" * 2).decode()
            message = f"\x1b[2J key {key} was not found \n" * 50
            return web.json_response({"message": message, "keys": [{"key_ID": 7, "key": key}]}, status=200)
        if turn == 1:
            return web.Response(body=b"[" * 100_000, content_type="application/json")
        if turn == 2:
            return web.Response(body=b"\x1f\x8b" + b"\0" * 100, headers={"Content-Encoding": "gzip"})
        await response.prepare(request)
        try:
            for _ in range(10_000 if turn == 3 else 100):
                await response.write(b" " * 65_536 if turn == 3 else b"{")
                await asyncio.sleep(0 if turn == 3 else 0.02)
        except ConnectionError:
            pass
        return response


def server_context(credential: Credential, defects: Collection[str]) -> ssl.SSLContext:
    """TLS as the defects say."""
    context = credential.server_context()
    if "no_mutual_tls" in defects:
        context.verify_mode = ssl.CERT_NONE
    if "certificate_optional" in defects:
        context.verify_mode = ssl.CERT_OPTIONAL
    if "old_tls" in defects:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
    if "no_tls_1_3" in defects:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@asynccontextmanager
async def wrong_kme(credential: Credential, *defects: str) -> AsyncIterator[tuple[str, WrongKme]]:
    """The URL of such a server, and the server."""
    kme = WrongKme(defects)
    app = web.Application(client_max_size=1 << 16)
    app.router.add_route("*", "/{tail:.*}", kme.answer)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(credential, defects))
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"https://127.0.0.1:{port}", kme
    finally:
        await runner.cleanup()
