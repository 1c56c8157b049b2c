"""What the two agents of a link say before they relay: hello both ways, then proof both ways.

A hello names the sender, a fresh nonce and the reserve it holds. A proof is a one-time tag over both hellos,
under a cell of the newest reserve that both hold: it shows, whatever the computing power of others, that this
is the agent with which an earlier epoch of this very link was shared. Without a common reserve (the
first epoch ever, rows that were lost, all cells used) the proof is empty: the greeting then rests on the
channel's own authentication alone, and is counted as `greeted_unproven`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from multiplane.fabric.resource.reserve import RESERVE, Cells, Mark, Reserve, ReserveRules
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.ports import Channel, Entropy, Put, Store
from multiplane.security.onetime import lock, unlock
from multiplane.security.sealing import Vault

RESERVE_KIND: Final = "link-reserve"
NONCE_BYTE: Final = 16
OFFER_LIMIT: Final = 8


class Hello(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who speaks, on which link, and what reserve it holds. `nonce`: 16 fresh bytes in hex."""

    link: str
    site: str
    nonce: str
    offer: tuple[Mark, ...]


class Proof(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Tag over both hellos in hex; empty without a common reserve."""

    tag: str


@dataclass(slots=True, kw_only=True)
class ReservePorts:
    """Where an agent keeps the reserves of its links, and what it sets aside."""

    store: Store
    vault: Vault
    entropy: Entropy
    rules: ReserveRules = RESERVE


class Reserves:
    """The reserves of one site's links, durable.

    Args:
        owner: of the rows.
        spawn: runs a coroutine in the background.
    """

    def __init__(
        self, ports: ReservePorts, owner: str, spawn: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._ports, self._owner, self.spawn = ports, owner, spawn
        self._reserves: dict[str, Reserve] = {}
        self._rows = dict(ports.store.scan(owner, RESERVE_KIND))

    def of(self, link: str, site: str, peer: str) -> Reserve:
        """The reserve of a link; a row that does not open counts as lost."""
        reserve = self._reserves.get(link)
        if reserve is None:
            reserve = self._reserves[link] = Reserve(site, peer)
            row = self._rows.pop(link, None)
            with suppress(MultiplaneError, msgspec.DecodeError):
                if row is not None:
                    reserve.load(self._ports.vault.open(row, self._place(link)))
        return reserve

    def filled(self, link: str, reserve: Reserve, epoch: int, key: bytes) -> None:
        """The reserve of a new epoch is here."""
        if reserve.fill(epoch, key):
            self.spawn(self._keep(link, reserve))

    async def _keep(self, link: str, reserve: Reserve) -> None:
        with suppress(MultiplaneError):  # it stays in memory, and goes to disk with the next change
            await self.write(link, reserve)

    async def write(self, link: str, reserve: Reserve) -> None:
        """Make the state of a reserve durable. Raises: Faulty, Busy, as the store does."""
        sealed = self._ports.vault.seal(self._ports.entropy.take(12), reserve.plain(), self._place(link))
        await self._ports.store.commit(self._owner, [Put(RESERVE_KIND, link, sealed)])

    def nonce(self) -> str:
        """Fresh for each greeting."""
        return self._ports.entropy.take(NONCE_BYTE).hex()

    def _place(self, link: str) -> bytes:
        return f"{self._owner}:{RESERVE_KIND}:{link}".encode()


class Greeting:
    """One greeting over one channel; `heard` takes messages until both ends have proven who they are.

    Args:
        done: told once, when this end may relay: whether the other end has proven itself.
        refused: told once instead, and why.
    """

    def __init__(
        self,
        reserves: Reserves,
        channel: Channel,
        *,
        link: str,
        site: str,
        peer: str,
        done: Callable[[bool], None],
        refused: Callable[[str], None],
    ) -> None:
        self._reserves, self._channel = reserves, channel
        self._link, self._site, self._peer = link, site, peer
        self._done, self._refused = done, refused
        self._reserve = reserves.of(link, site, peer)
        self._mine = Hello(link, site, reserves.nonce(), self._reserve.offer())
        self._theirs: Hello | None = None
        self._cells: Cells | None = None
        self._waits_for = 2
        self._heard = self._proven = False
        self._say(self._mine)

    def heard(self, message: bytes) -> bool:
        """Take a message; False when the greeting is over and it is none of it."""
        if self._heard:
            return False
        try:
            if self._theirs is None:
                self._hello(msgspec.msgpack.decode(message, type=Hello))
            else:
                self._heard = True
                self._proof(self._theirs, msgspec.msgpack.decode(message, type=Proof))
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            self._heard = True
            self._refused("greeting: expected a hello and a proof of this link")
        return True

    def _hello(self, hello: Hello) -> None:
        if (hello.link, hello.site) != (self._link, self._peer) or len(hello.offer) > OFFER_LIMIT:
            raise ValueError
        self._theirs = hello
        self._cells = self._reserve.agree(self._mine.offer, hello.offer)
        self._reserves.spawn(self._prove(hello, self._cells))

    async def _prove(self, theirs: Hello, cells: Cells | None) -> None:
        """Write the cell down as used, then use it."""
        tag = ""
        key = None if cells is None else self._reserve.take_outward(cells)
        if key is not None:
            with suppress(MultiplaneError):
                await self._reserves.write(self._link, self._reserve)
                tag = lock(key, self._said(self._site, theirs), b"").hex()
        self._say(Proof(tag))
        self._step()

    def _proof(self, theirs: Hello, proof: Proof) -> None:
        tag = bytes.fromhex(proof.tag)
        key = None if self._cells is None else self._reserve.peek_inward(self._cells)
        if tag and (key is None or unlock(key, self._said(self._peer, theirs), tag) != b""):
            self._refused("greeting: the proof does not fit the reserve")
            return
        self._proven = bool(tag)
        self._reserves.spawn(self._accept(self._cells if tag else None))

    async def _accept(self, cells: Cells | None) -> None:
        if cells is not None:
            self._reserve.use_inward(cells)
            try:
                await self._reserves.write(self._link, self._reserve)
            except MultiplaneError as error:
                self._refused(error.reason)
                return
        self._step()

    def _said(self, by: str, theirs: Hello) -> bytes:
        """What a proof covers: both hellos in order of site, and who proves."""
        return msgspec.msgpack.encode((by, *sorted((self._mine, theirs), key=lambda hello: hello.site)))

    def _say(self, message: Hello | Proof) -> None:
        with suppress(MultiplaneError):  # a channel that is gone says so itself
            self._channel.send(msgspec.msgpack.encode(message))

    def _step(self) -> None:
        """Both halves must be done: ours sent, theirs written down."""
        self._waits_for -= 1
        if not self._waits_for:
            self._done(self._proven)
