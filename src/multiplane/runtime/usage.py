"""What this process takes of the machine, read from the kernel (Linux)."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

_PAGE_BYTE: Final = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Processor time since the start, and resident memory, descriptors and threads of now."""

    cpu_s: float
    resident_byte: int
    open_fds: int
    threads: int


def usage() -> Usage:
    """What this process takes now.

    *Source*: proc(5), `statm` and `fd`.
    """
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Usage(
        cpu_s=time.process_time(),
        resident_byte=resident_pages * _PAGE_BYTE,
        open_fds=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
    )
