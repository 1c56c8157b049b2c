"""ETSI GS QKD 014 V1.1.1 as a table over the north door: Get status, Get key, Get key with key IDs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from multiplane.api import north
from multiplane.api.wire.etsi014 import (
    EXTENSION_MANDATORY,
    MANDATORY_UNMET,
    NOT_FOUND,
    OPTIONAL_UNHANDLED,
    SIZE_MULTIPLE,
    KeyContainer,
    KeyIds,
    KeyRequest,
    Status,
    WireKey,
)
from multiplane.api.wire.web import Handler, Reply, Request, Route, failure
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.nouns import Noun
from multiplane.standards.etsi014_extensions import (
    Extensions,
    UnknownExtension,
    UnmetExtension,
    container,
    read,
)
from multiplane.standards.reading import BadRequest, bad_value, decoded, integer

ROOT: Final = "/api/v1/keys"
UNAUTHORISED: Final = frozenset({"key.not_yours", "north.not_allowed"})
EXACT: Final = {"key.not_found": NOT_FOUND, "key.size_multiple": SIZE_MULTIPLE}
NO_STORE: Final = (("Cache-Control", "no-store"),)

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class FaceProfile(Noun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where installations may differ.

    Args:
        unknown_key_status: answer to key ids that are not found, 400 (as the standard says) or 404 (as some
            clients expect).
        strict_optional: refuse requests with an `extension_optional` that is unknown or cannot be met, as
            the standard allows; else it is ignored.
    """

    unknown_key_status: int = 400
    strict_optional: bool = False

    def __post_init__(self) -> None:
        if self.unknown_key_status not in (400, 404):
            raise ValueError(f"unknown_key_status: expected 400 or 404, got {self.unknown_key_status}")


def routes(
    door: north.North, retry_after_s: Callable[[int], float], profile: FaceProfile | None = None
) -> tuple[Route, ...]:
    """The three methods, each by GET and (for keys) POST.

    Args:
        door: who issues and hands out keys.
        retry_after_s: turns simulated nanoseconds into wall seconds, for Retry-After.
        profile: where this installation differs.
    """
    profile = profile or FaceProfile()
    face = _Face(door, profile)

    def row(verb: str, path: str, handler: Handler, **shape: Any) -> Route:
        guarded = _guarded(handler, retry_after_s, profile.unknown_key_status)
        return Route(verbs=(verb,), path=f"{ROOT}/{path}", handler=guarded, **shape)

    enc, dec = "{slave_SAE_ID}/enc_keys", "{master_SAE_ID}/dec_keys"
    plain = (("number", "integer"), ("size", "integer"))
    return (
        row("GET", "{slave_SAE_ID}/status", face.status, summary="Get status", gives=Status),
        row("GET", enc, face.get_key, summary="Get key", query=plain, gives=KeyContainer),
        row("POST", enc, face.post_key, summary="Get key", takes=KeyRequest, gives=KeyContainer),
        row(
            "GET",
            dec,
            face.get_ids,
            summary="Get key with key IDs",
            query=(("key_ID", "string"),),
            gives=KeyContainer,
        ),
        row("POST", dec, face.post_ids, summary="Get key with key IDs", takes=KeyIds, gives=KeyContainer),
    )


class _Face:
    """The handlers: each turns one request into one call at the north door."""

    def __init__(self, door: north.North, profile: FaceProfile) -> None:
        self._door = door
        self._strict = profile.strict_optional
        self._key_request = msgspec.json.Decoder(KeyRequest)
        self._key_ids = msgspec.json.Decoder(KeyIds)

    async def status(self, request: Request) -> Reply:
        found = await self._door.key_status(request.caller, request.params["slave_SAE_ID"])
        shown = Status(
            source_kme=found.source_kme,
            target_kme=found.target_kme,
            master_sae=found.master,
            slave_sae=found.slave,
            key_size=found.key_size_bit,
            stored_key_count=found.stored_key_count,
            max_key_count=found.max_key_count,
            max_key_per_request=found.max_key_per_request,
            max_key_size=found.max_key_size_bit,
            min_key_size=found.min_key_size_bit,
            max_sae_id_count=found.max_additional,
        )
        return Reply(status=200, body=msgspec.json.encode(shown))

    async def post_key(self, request: Request) -> Reply:
        return await self._issue(request, decoded(self._key_request, request.body or b"{}"))

    async def get_key(self, request: Request) -> Reply:
        named = dict(request.query)
        if "extension_mandatory" in named:
            raise BadRequest(EXTENSION_MANDATORY, field="extension_mandatory", expected="a POST body")
        if "additional_slave_SAE_IDs" in named:
            raise bad_value("additional_slave_SAE_IDs", named["additional_slave_SAE_IDs"], "a POST body")
        number, size = integer(request, "number"), integer(request, "size")
        return await self._issue(request, KeyRequest(number=number or 1, size=size or msgspec.UNSET))

    async def post_ids(self, request: Request) -> Reply:
        asked = decoded(self._key_ids, request.body)
        return await self._collect(request, tuple(item.key_id for item in asked.key_ids))

    async def get_ids(self, request: Request) -> Reply:
        return await self._collect(request, tuple(value for name, value in request.query if name == "key_ID"))

    async def _issue(self, request: Request, asked: KeyRequest) -> Reply:
        wish = north.KeyRequest(
            peer=request.params["slave_SAE_ID"],
            number=asked.number,
            size_bit=0 if asked.size is msgspec.UNSET else asked.size,
            others=asked.additional_slaves,
        )
        if not asked.extension_mandatory and not asked.extension_optional:
            return _container(await self._door.issue_keys(request.caller, wish))
        try:
            must = read(asked.extension_mandatory)
        except UnknownExtension as error:
            raise BadRequest(EXTENSION_MANDATORY, **error.detail("extension_mandatory")) from None
        except UnmetExtension as error:
            raise BadRequest(MANDATORY_UNMET, **error.detail("extension_mandatory")) from None
        return await self._issue_extended(request, wish, must, self._optional(asked, must))

    def _optional(self, asked: KeyRequest, must: Extensions) -> Extensions:
        """What else is wished for; in strict mode all of it must be understood."""
        try:
            return read(asked.extension_optional, must, lenient=not self._strict)
        except (UnknownExtension, UnmetExtension) as error:
            raise BadRequest(OPTIONAL_UNHANDLED, **error.detail("extension_optional")) from None

    async def _issue_extended(
        self, request: Request, wish: north.KeyRequest, must: Extensions, may: Extensions
    ) -> Reply:
        """Issue with all that is wished for (`may`); with what is mandatory alone, if that cannot be met."""
        try:
            keys = await self._door.issue_keys(request.caller, may.asked(wish))
        except Refused as error:
            if error.code != "key.valid_s":
                raise
            if may.valid_s == must.valid_s:
                raise BadRequest(MANDATORY_UNMET, code=error.code, reason=error.reason) from None
            if self._strict:
                raise BadRequest(OPTIONAL_UNHANDLED, code=error.code, reason=error.reason) from None
            less = msgspec.structs.replace(may, valid_s=must.valid_s)
            return await self._issue_extended(request, wish, must, less)
        return _container(keys, container(may, keys[0].unit))

    async def _collect(self, request: Request, key_ids: tuple[str, ...]) -> Reply:
        names = tuple(key_id.lower() for key_id in key_ids)
        if not names:
            raise bad_value("key_IDs", 0, "one or more key_ID")
        if len(set(names)) != len(names):
            raise bad_value("key_IDs", len(names), "each key_ID once")
        for name in names:
            if not _UUID.fullmatch(name):
                raise bad_value("key_ID", name, "a UUID of 36 characters")
        master = request.params["master_SAE_ID"]
        return _container(await self._door.collect_keys(request.caller, master, names))


def _guarded(handler: Handler, retry_after_s: Callable[[int], float], unknown_key_status: int) -> Handler:
    async def guarded(request: Request) -> Reply:
        try:
            return await handler(request)
        except BadRequest as bad:
            return bad.reply
        except MultiplaneError as error:
            return of_error(error, retry_after_s, unknown_key_status)

    return guarded


def of_error(
    error: MultiplaneError, retry_after_s: Callable[[int], float], unknown_key_status: int = 400
) -> Reply:
    """The standard's answer to a kernel error: 400, 401 or 503; another one to unknown keys if told so."""
    detail: dict[str, Any] = {"code": error.code, "kind": error.kind, "reason": error.reason}
    if isinstance(error, Refused):
        status = 401 if error.code in UNAUTHORISED else 400
        if error.code == "key.not_found":
            status = unknown_key_status
        return failure(status, EXACT.get(error.code, error.reason), detail)
    if not isinstance(error, Busy):
        return failure(503, error.reason, detail, headers=(("Retry-After", "1"),))
    wait_s = max(1, math.ceil(retry_after_s(error.retry_after_ns)))
    detail["retry_after_s"] = wait_s
    return failure(503, error.reason, detail, headers=(("Retry-After", str(wait_s)),))


def _container(keys: Iterable[north.Key], extension: dict[str, Any] | None = None) -> Reply:
    shown = KeyContainer(
        keys=[WireKey(key_id=key.key_id, key=key.key) for key in keys],
        key_container_extension=extension or msgspec.UNSET,
    )
    return Reply(status=200, body=msgspec.json.encode(shown), headers=NO_STORE)
