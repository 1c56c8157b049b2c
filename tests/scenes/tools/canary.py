"""Looks for marked key material in anything that is not the sealed store: raw or in any usual spelling."""

from __future__ import annotations

import base64
from pathlib import Path


class Canary:
    """Finds a mark, in every way that bytes get printed.

    Args:
        mark: 8 bytes that every 16 bytes of key hold at least once.
    """

    def __init__(self, mark: bytes) -> None:
        self.spellings = {
            "raw": [mark],
            "hex": [mark.hex().encode(), mark.hex().upper().encode(), mark.hex(":").encode()],
            "base64": _base64_cores(mark),
            "repr": [repr(mark)[2:-1].encode(), repr(bytearray(mark))[12:-2].encode()],
            "list": [", ".join(map(str, mark)).encode(), ",".join(map(str, mark)).encode()],
        }

    def find(self, content: bytes) -> list[str]:
        """Names of the spellings in which `content` holds the mark."""
        return [name for name, texts in self.spellings.items() if any(text in content for text in texts)]

    def find_in_tree(self, folder: Path) -> tuple[dict[str, list[str]], int]:
        """Files under `folder` that hold the mark, and how many bytes were searched."""
        leaks: dict[str, list[str]] = {}
        searched_byte = 0
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            content = path.read_bytes()
            searched_byte += len(content)
            if found := self.find(content):
                leaks[str(path.relative_to(folder))] = found
        return leaks, searched_byte


def _base64_cores(mark: bytes) -> list[bytes]:
    """The part of a mark's base64 that does not depend on its neighbours, at each of three alignments."""
    cores = []
    for shift in range(3):
        before = -(-shift * 8 // 6)
        bits = shift * 8 + len(mark) * 8
        text = base64.b64encode(b"\0" * shift + mark)
        core = text[before : bits // 6]
        cores += [core, core.replace(b"+", b"-").replace(b"/", b"_")]
    return cores
