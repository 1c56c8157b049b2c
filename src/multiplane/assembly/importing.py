"""`multiplane import`: from the file of a map to a scenario file."""

from __future__ import annotations

import os
from pathlib import Path

from multiplane.kernel.errors import Refused
from multiplane.twin.maps.options import Options
from multiplane.twin.maps.planning import ImportReport, SpanReport, plan
from multiplane.twin.maps.reading import MAX_BYTES, read

__all__ = ["ImportReport", "Options", "SpanReport", "import_map"]


def import_map(file: Path, out: Path, options: Options, *, force: bool = False) -> ImportReport:
    """Read a map, write its scenario in one piece, and tell what was decided.

    Args: force: replace `out` if it is there.
    Raises: Refused(`input.map`, `input.exists`, `input.unreadable`, `input.unwritable`).
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        reason = f"{file}: {error.strerror}, expected the file of a map"
        raise Refused("input.unreadable", reason) from error
    if out.exists() and file.samefile(out):
        raise Refused("input.exists", f"{out}: is the map itself, expected another file for the scenario")
    made = plan(read(data, str(file)), options)
    try:
        _write(out, made.text, force=force)
    except FileExistsError as error:
        raise Refused("input.exists", f"{out}: is there already; --force replaces it") from error
    except OSError as error:
        reason = f"{out}: {error.strerror}, expected a file that can be written"
        raise Refused("input.unwritable", reason) from error
    return made.report


def _write(out: Path, text: str, *, force: bool) -> None:
    """Put a whole file in place at once; without `force` only where there is none."""
    draft = out.parent / f".{out.name}.{os.getpid()}"
    claimed = False
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
        if not force:
            out.open("x").close()  # fails if there is one, even one made just now
            claimed = True
        draft.replace(out)
    except OSError:
        if claimed:
            out.unlink(missing_ok=True)
        raise
    finally:
        draft.unlink(missing_ok=True)
