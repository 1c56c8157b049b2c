"""Client of ETSI GS QKD 014 over mutual TLS: `KeyClient` for asyncio, `KeyClient.sync` for everyone else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import msgspec

from multiplane.api.north import Key
from multiplane.api.wire.etsi014 import KeyContainer, KeyId, KeyIds, KeyRequest, Status
from multiplane.sdk.wire import Message, OverWire, Wire, decoded_answer

LOST: Final = "its keys may be gone, ask for others"


class KeyClient(OverWire):
    """An application at one key manager, as an asynchronous context manager.

    Args:
        url: base of the key manager (`https://127.0.0.1:9443`).
        ca: PEM file of the authority that signed the key manager's certificate.
        cert, key: PEM files of the application's own certificate and private key; they say who it is.
        timeout_s: bound of one request, > 0.

    Every method raises Refused (400; 401 with code `http.unauthorised`), Busy (503; `retry_after_ns` in wall
    nanoseconds), Faulty, or Unknown when the connection broke after the request was sent: its keys may be
    gone. `retry_for_s` waits out Busy for so long before raising it.

    Raises: Refused(`client.credentials`) when a file is missing or is not what it should be.
    """

    def __init__(
        self, url: str, ca: str | Path, cert: str | Path, key: str | Path, *, timeout_s: float = 30.0
    ) -> None:
        base = url.rstrip("/") + "/api/v1/keys"
        self._wire = Wire(base, ca, cert, key, timeout_s=timeout_s, lost=LOST)

    @staticmethod
    def sync(
        url: str, ca: str | Path, cert: str | Path, key: str | Path, *, timeout_s: float = 30.0
    ) -> SyncKeyClient:
        """The same client without asyncio: `with KeyClient.sync(...) as client`."""
        return SyncKeyClient(KeyClient(url, ca, cert, key, timeout_s=timeout_s))

    async def status(self, peer: str) -> Status:
        """What there is to get with `peer` (URN or alias), now."""
        return await self._call("GET", f"{_quoted(peer)}/status", None, Status, 0.0)

    async def enc_keys(
        self,
        peer: str,
        number: int = 1,
        size_bit: int = 0,
        *,
        others: Sequence[str] = (),
        retry_for_s: float = 0.0,
    ) -> tuple[Key, ...]:
        """Fresh keys shared with `peer` and `others`; `size_bit` 0 takes the key manager's default."""
        wish = KeyRequest(number=number, size=size_bit or msgspec.UNSET, additional_slaves=tuple(others))
        return _keys(await self._call("POST", f"{_quoted(peer)}/enc_keys", wish, KeyContainer, retry_for_s))

    async def dec_keys(self, master: str, ids: Sequence[str], *, retry_for_s: float = 0.0) -> tuple[Key, ...]:
        """The keys that `master` got under these ids; each can be had once."""
        wish = KeyIds(key_ids=[KeyId(key_id=key_id) for key_id in ids])
        return _keys(await self._call("POST", f"{_quoted(master)}/dec_keys", wish, KeyContainer, retry_for_s))

    async def _call(
        self, verb: str, path: str, wish: msgspec.Struct | None, gives: type[Message], retry_for_s: float
    ) -> Message:
        return decoded_answer(await self._wire.patient(verb, path, wish, retry_for_s), gives)


class SyncKeyClient:
    """`KeyClient` for code without an event loop; not for use inside one, nor from two threads."""

    def __init__(self, client: KeyClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._client.__aexit__(kind, error, trace))
        finally:
            self._runner.close()

    def status(self, peer: str) -> Status:
        """As `KeyClient.status`."""
        return self._runner.run(self._client.status(peer))

    def enc_keys(
        self,
        peer: str,
        number: int = 1,
        size_bit: int = 0,
        *,
        others: Sequence[str] = (),
        retry_for_s: float = 0.0,
    ) -> tuple[Key, ...]:
        """As `KeyClient.enc_keys`."""
        asked = self._client.enc_keys(peer, number, size_bit, others=others, retry_for_s=retry_for_s)
        return self._runner.run(asked)

    def dec_keys(self, master: str, ids: Sequence[str], *, retry_for_s: float = 0.0) -> tuple[Key, ...]:
        """As `KeyClient.dec_keys`."""
        return self._runner.run(self._client.dec_keys(master, ids, retry_for_s=retry_for_s))


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _keys(container: KeyContainer) -> tuple[Key, ...]:
    return tuple(Key(key_id=item.key_id, key=item.key) for item in container.keys)
