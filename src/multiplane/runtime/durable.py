"""Files that must be there after a loss of power: content and name are flushed before anybody goes on."""

from __future__ import annotations

import os
from pathlib import Path


def put_durably(path: Path, text: str) -> None:
    """Put a text file of mode 0600 in place at once, durably. Raises: OSError."""
    draft = path.with_suffix(".tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises: OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
