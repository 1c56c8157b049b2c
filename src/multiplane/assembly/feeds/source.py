"""The key manager of the other network at one end of a fed link: what it grants, and its keys, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final, Protocol

from multiplane.api.north import Key
from multiplane.api.wire.etsi014 import Status
from multiplane.assembly.feeds.line import MOST_KEYS
from multiplane.assembly.feeds.settings import FeedEnd
from multiplane.kernel.errors import Faulty, MultiplaneError
from multiplane.kernel.nouns import Noun
from multiplane.kernel.quantity import NS_PER_S, bit_from_byte
from multiplane.sdk.client import KeyClient

TIMEOUT_S: Final = 10.0
LARGEST_KEY_BIT: Final = 4096
BATCH_S: Final = 1.0
"""A batch holds at most what the source is counted on for in so long."""
RETRY_S: Final = (0.1, 60.0)
"""Least and most that is waited after an answer 503, whatever it says."""


class Keys(Protocol):
    """What of a client of ETSI GS QKD 014 a feed uses; see `sdk.client.KeyClient`."""

    async def status(self, peer: str) -> Status: ...

    async def enc_keys(self, peer: str, number: int, size_bit: int) -> tuple[Key, ...]: ...

    async def dec_keys(self, master: str, ids: Sequence[str]) -> tuple[Key, ...]: ...


Connect = Callable[[FeedEnd], AbstractAsyncContextManager[Keys]]


def connect(end: FeedEnd) -> AbstractAsyncContextManager[Keys]:
    """A client with the certificates that lie in the files now. Raises: Refused(`client.credentials`)."""
    return KeyClient(end.url, end.ca, end.cert, end.key, timeout_s=TIMEOUT_S)


class Terms(Noun, frozen=True, kw_only=True):
    """What a source grants in one request: keys of `size_byte`, at most `most`."""

    size_byte: int
    most: int

    def number(self, room_byte: int, rate_bit_per_s: float) -> int:
        """How many keys to ask for now, 0 when there is no room for one."""
        worth = max(1, int(rate_bit_per_s * BATCH_S / bit_from_byte(self.size_byte)))
        return min(self.most, room_byte // self.size_byte, worth)


def terms_of(status: Status) -> Terms:
    """The largest keys that a source makes, up to 4096 bit.

    Raises: Faulty(`feed.status`) when what it says of itself cannot be.
    """
    size_bit = min(status.max_key_size, LARGEST_KEY_BIT) // 8 * 8
    if size_bit < max(8, status.min_key_size) or status.max_key_per_request < 1:
        reason = (
            f"status: sizes {status.min_key_size} to {status.max_key_size} bit, "
            f"{status.max_key_per_request} keys in a request: expected a multiple of 8 in range, and keys"
        )
        raise Faulty("feed.status", reason)
    return Terms(size_byte=size_bit // 8, most=min(status.max_key_per_request, MOST_KEYS))


def checked(keys: Sequence[Key], terms: Terms, number: int) -> tuple[Key, ...]:
    """The keys of an answer to a request for `number`. Raises: Faulty(`feed.keys`) when they are not."""
    if not 1 <= len(keys) <= number or len({key.key_id for key in keys}) != len(keys):
        raise Faulty("feed.keys", f"answer: expected 1 to {number} different keys, got {len(keys)}")
    for key in keys:
        if len(key.key) != terms.size_byte:
            got, want = bit_from_byte(len(key.key)), bit_from_byte(terms.size_byte)
            raise Faulty("feed.keys", f"answer: expected keys of {want} bit, got one of {got}")
    return tuple(keys)


def in_order(keys: Sequence[Key], ids: Sequence[str], size_byte: int) -> bytes:
    """The bytes of the keys with these ids. Raises: Faulty(`feed.keys`) when it is not all of them."""
    found = {key.key_id: key.key for key in keys}
    if set(found) != set(ids) or len(keys) != len(ids):
        raise Faulty("feed.keys", f"answer: expected the {len(ids)} keys asked for, got {len(keys)} keys")
    if any(len(key) * len(ids) != size_byte for key in found.values()):
        raise Faulty("feed.keys", f"answer: expected {bit_from_byte(size_byte)} bit in {len(ids)} keys")
    return b"".join(found[key_id] for key_id in ids)


class Source:
    """The key manager at one end. After a failure it is met anew: other certificates may lie in the files.

    Raises from every method what `KeyClient` raises, and Faulty(`feed.status`, `feed.keys`).
    """

    def __init__(self, end: FeedEnd, connect: Connect = connect) -> None:
        self._end, self._connect = end, connect
        self._open = AsyncExitStack()
        self._client: Keys | None = None
        self._terms: Terms | None = None

    async def terms(self) -> Terms:
        """What it grants."""
        if self._terms is None:
            self._terms = terms_of(await (await self._met()).status(self._end.peer_sae_id))
        return self._terms

    async def draw(self, number: int) -> tuple[Key, ...]:
        """Up to `number` fresh keys, shared with the other end."""
        terms = await self.terms()
        keys = await (await self._met()).enc_keys(
            self._end.peer_sae_id, number, bit_from_byte(terms.size_byte)
        )
        return checked(keys, terms, number)

    async def collect(self, ids: Sequence[str], size_byte: int) -> bytes:
        """The keys that the other end has drawn under these ids, `size_byte` in all."""
        keys = await (await self._met()).dec_keys(self._end.peer_sae_id, ids)
        return in_order(keys, ids, size_byte)

    async def forget(self) -> None:
        """Hang up; the next call meets it anew."""
        self._client = self._terms = None
        await self._open.aclose()

    async def _met(self) -> Keys:
        if self._client is None:
            self._client = await self._open.enter_async_context(self._connect(self._end))
        return self._client


def pause_s(error: MultiplaneError) -> float:
    """Seconds to wait after an answer that says to come again."""
    least_s, most_s = RETRY_S
    return min(max(error.retry_after_ns / NS_PER_S, least_s), most_s)
