"""A public line between two ends: everybody may hear what is said, and a changed word shows at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Noun
from multiplane.security.onetime import PAD_OVERHEAD_BYTE, lock, unlock

M = TypeVar("M", bound=Noun)

SHARED_BYTE: Final = 2 * PAD_OVERHEAD_BYTE
"""Key that two ends must share before they can make more: a tag each way."""


class Line:
    """What ends 0 and 1 say to one another, and at last one tag each way over all of it.

    Args:
        shared: `SHARED_BYTE` of key that both have and that is spent here.
        carry: what arrives of a message.
    """

    def __init__(self, shared: bytes, carry: Callable[[bytes], bytes] = bytes) -> None:
        self._cells = shared[:PAD_OVERHEAD_BYTE], shared[PAD_OVERHEAD_BYTE:]
        self._carry = carry
        self._said = bytearray(), bytearray()  # as either end knows it

    def say(self, end: int, message: M) -> M:
        """What the other end hears when this one speaks. Raises: ValueError: no such message."""
        sent = msgspec.json.encode(message)
        heard = self._carry(sent)
        for side, text in ((end, sent), (1 - end, heard)):
            self._said[side].extend(b"%d %d " % (end, len(text)) + text)
        return msgspec.json.decode(heard, type=type(message))

    def close(self) -> None:
        """Each end proves what it said and heard. Raises: Refused(`app.forged`): they differ."""
        for end, cell in enumerate(self._cells):
            tag = self._carry(lock(cell, bytes(self._said[end]), b""))
            if unlock(cell, bytes(self._said[1 - end]), tag) is None:
                raise forged()


def forged() -> Refused:
    """Somebody changed a word: there is no key."""
    return Refused("app.forged", "public line: one end heard what the other never said: no key")
