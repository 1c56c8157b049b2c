"""What a network needs of the machine it runs on, looked at before it starts."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from multiplane.assembly.findings import Finding, fail, ok, some, warn
from multiplane.kernel.errors import Refused
from multiplane.runtime.http_limits import Limits
from multiplane.twin.scenario import World

PYTHON: Final = ((3, 11), (3, 14))
"""First version that works, and first that is not known to."""
LEAST_FREE_BYTE: Final = 64 << 20
GOOD_FREE_BYTE: Final = 512 << 20
FD_PROCESS: Final = 32
"""A process at rest has 18 beside its listeners; the others are for files and commands that come and go."""
FD_OPERATIONS: Final = 65
"""The operations listener and the connections that it takes."""
FD_PER_CHILD: Final = 2
"""Of the process of the centre, for each process that it starts: its output, and its channel."""
FD_PER_PEER: Final = 3
"""Of the process of a site, for each other site: key managers' channels both ways, one between neighbours."""
LEAST_CLIENTS: Final = 16
"""Connections that each key manager must be able to take."""
DRIFT_WINDOW_S: Final = 0.5
MOST_DRIFT_S: Final = 0.05
LARGEST_LEAD_S: Final = 60.0


def descriptors(world: World, *, spread: bool) -> int:
    """File descriptors that the largest process of a network needs at least, a few clients included."""
    sites = len(world.sites)
    if spread:
        centre = FD_PROCESS + FD_OPERATIONS + FD_PER_CHILD * (sites + 1)
        return max(centre, FD_PROCESS + FD_PER_PEER * (sites - 1) + 1 + LEAST_CLIENTS)
    listeners = sum(1 for site in world.sites if site.saes)
    return FD_PROCESS + FD_OPERATIONS + (1 + LEAST_CLIENTS) * listeners


def server_limits(listeners: int, others: int, wanted: Limits) -> Limits:
    """Limits of each of `listeners` servers: all their clients together leave this process room to work.

    Args:
        others: descriptors that this process needs for other connections.
        wanted: what the settings say, as far as the descriptors reach.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = (soft - FD_PROCESS - others) // max(listeners, 1) - 1
    most = min(wanted.connections, max(LEAST_CLIENTS, each))
    return msgspec.structs.replace(wanted, connections=most, half_open=min(wanted.half_open, most))


def raise_descriptor_limit() -> int:
    """Use what the machine allows this process anyway; the limit then in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def require(world: World, state: Path, *, spread: bool) -> None:
    """Refuse to start where the machine lacks what the network needs.

    Raises: Refused(`host.descriptors`, `host.disk`).
    """
    need, limit = descriptors(world, spread=spread), raise_descriptor_limit()
    if limit < need:
        raise Refused(
            "host.descriptors",
            f"file descriptors: {world.name!r} needs {need}, this process may open {limit}: "
            f"run `ulimit -n {need}` first, or raise the hard limit",
        )
    free_byte = shutil.disk_usage(state).free
    if free_byte < LEAST_FREE_BYTE:
        raise Refused(
            "host.disk",
            f"{state}: {free_byte >> 20} MiB are free on its disk, expected {LEAST_FREE_BYTE >> 20}: "
            "free space or name another --state",
        )


def environment(state: Path) -> list[Finding]:
    """Python, operating system, TLS, random numbers, curl, free disk."""
    return [_python(), _system(), _tls(), _entropy(), _curl(), _disk(state)]


def _python() -> Finding:
    first, unknown = PYTHON
    here = sys.version_info[:2]
    name = f"Python {'.'.join(map(str, sys.version_info[:3]))}"
    if first <= here < unknown:
        return ok("host: python", name)
    return fail("host: python", name, "install Python 3.11 to 3.13 and make .venv again with it")


def _system() -> Finding:
    if sys.platform.startswith("linux"):
        return ok("host: system", f"Linux {os.uname().release}")
    return warn("host: system", sys.platform, "multiplane is tested on Linux")


def _tls() -> Finding:
    missing = [] if ssl.HAS_TLSv1_2 else ["1.2"]
    missing += [] if ssl.HAS_TLSv1_3 else ["1.3"]
    if missing:
        return fail(
            "host: tls", f"{ssl.OPENSSL_VERSION} lacks TLS {' and '.join(missing)}", "use another Python"
        )
    return ok("host: tls", f"{ssl.OPENSSL_VERSION}, TLS 1.2 and 1.3")


def _entropy() -> Finding:
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        return fail(
            "host: entropy", "the pool of the system is not filled yet", "wait, or start a random source"
        )
    return ok("host: entropy", "the random source of the system answers")


def _curl() -> Finding:
    if shutil.which("curl"):
        return ok("host: curl", "is there")
    return warn("host: curl", "is not there", "install curl, or fetch keys with `multiplane key get`")


def _disk(state: Path) -> Finding:
    there = next((path for path in (state, *state.parents) if path.is_dir()), Path("/"))
    free_byte = shutil.disk_usage(there).free
    found = f"{free_byte >> 20} MiB free"
    if free_byte < LEAST_FREE_BYTE:
        return fail("host: disk", found, f"free at least {LEAST_FREE_BYTE >> 20} MiB")
    if free_byte < GOOD_FREE_BYTE:
        return warn("host: disk", found, f"better have {GOOD_FREE_BYTE >> 20} MiB")
    return ok("host: disk", found)


def descriptor_limit(world: World, *, spread: bool) -> Finding:
    """Whether a process may open as many files as the network needs."""
    need, (_, hard) = descriptors(world, spread=spread), resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{hard} file descriptors, {world.name!r} needs {need}"
    if hard < need:
        return fail("host: descriptors", found, f"run `ulimit -n {need}` first, or raise the hard limit")
    return ok("host: descriptors", found)


def free_ports(ports: dict[str, int]) -> Finding:
    """Whether the ports that a network was given can be had."""
    taken = []
    for name, port in sorted(ports.items()):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(f"{port} ({name})")
    if taken:
        remedy = "end who holds them, or start with another --port-base"
        return fail("host: ports", f"taken: {some(taken)}", remedy)
    return ok("host: ports", f"{len(ports)} ports are free" if ports else "none chosen yet")


def port_in_use(port: int, of: str, error: OSError) -> Refused:
    """The refusal to start without a port that was remembered or asked for."""
    reason = (
        f"port {port} of {of}: {os.strerror(error.errno or 0)}: "
        "free it, name another --port-base, or delete network.json of the state directory"
    )
    return Refused("port.in_use", reason)


def clocks(latest_ns: int, wall_ns: int) -> list[Finding]:
    """Whether the wall clock runs evenly, and whether it is behind the network's own time."""
    begun_s, begun_wall_s = time.monotonic(), time.time()
    time.sleep(DRIFT_WINDOW_S)
    drift_s = abs((time.time() - begun_wall_s) - (time.monotonic() - begun_s))
    lead_s = (latest_ns - wall_ns) / 1e9
    steady = (
        ok("clock: steady", "wall and monotonic clock agree")
        if drift_s < MOST_DRIFT_S
        else warn(
            "clock: steady", f"the wall clock jumped by {drift_s:.2f} s", "let one service set the clock"
        )
    )
    if lead_s <= LARGEST_LEAD_S:
        return [steady, ok("clock: network", "not ahead of the wall clock")]
    remedy = "nothing, if it ran with --rate above 1; else set the clock of the machine"
    found = f"the network's time is {lead_s:.0f} s ahead of the wall clock"
    return [steady, warn("clock: network", found, remedy)]
