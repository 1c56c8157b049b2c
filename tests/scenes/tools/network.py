"""A running network from the outside: `multiplane up` as a process group, its files, its commands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.scenes.tools.client014 import Client014, tls_context
from tests.scenes.tools.wire import Gone, connect

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 60.0
TAIL_LINES = 40

# Full forms of the long scenes (hundreds of kills, every crash point five times).
FULL = os.environ.get("MULTIPLANE_FULL", "") not in ("", "0")


def command() -> list[str]:
    """The command under test: the one beside this Python, or MULTIPLANE_COMMAND (an installed wheel)."""
    chosen = os.environ.get("MULTIPLANE_COMMAND")
    if chosen:
        return chosen.split()
    return [str(Path(sys.executable).parent / "multiplane")]


class Failed(AssertionError):
    """The network did not do what it must; the message carries the tail of its logs."""


@dataclass(frozen=True)
class Kme:
    """A key manager as ready.json names it."""

    name: str
    url: str
    kme_id: str
    pid: int


@dataclass(frozen=True)
class Sae:
    """An application as ready.json names it."""

    name: str
    kme: str
    cert: str
    key: str
    urn: str


def until(what: str, check: Callable[[], bool], timeout_s: float, explain: Callable[[], str] = str) -> float:
    """Poll `check` until it holds; the seconds it took. Raises Failed with `explain()` when time is up."""
    started_s = time.monotonic()
    while not check():
        if time.monotonic() - started_s > timeout_s:
            raise Failed(f"not within {timeout_s:g} s: {what}\n{explain()}")
        time.sleep(0.02)
    return time.monotonic() - started_s


async def auntil(
    what: str, check: Callable[[], bool], timeout_s: float, explain: Callable[[], str] = str
) -> float:
    """`until`, for scenes whose traffic must go on meanwhile."""
    started_s = time.monotonic()
    while not check():
        if time.monotonic() - started_s > timeout_s:
            raise Failed(f"not within {timeout_s:g} s: {what}\n{explain()}")
        await asyncio.sleep(0.02)
    return time.monotonic() - started_s


class Network:
    """One network: a scenario, a state directory, and the process that runs it (or does not)."""

    def __init__(self, scenario: str, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.scenario = scenario
        self.folder = folder
        self.state = folder / "state"
        self.options = options
        self.env = env or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.pids_seen: set[int] = set()
        self._stamp = (0, 0)
        self._cached: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    # --- life ---------------------------------------------------------------------------------

    def launch(self, *more: str) -> subprocess.Popen[bytes]:
        """Start `multiplane up` in a session of its own, output to files; do not wait."""
        assert self.process is None, "it runs already"
        self.starts += 1
        self._stamp = self._ready_stamp()
        self._cached = {}
        arguments = ["up", self.scenario, "--state", str(self.state), *self.options, *more]
        with self._log("out").open("wb") as out, self._log("err").open("wb") as err:
            self.process = subprocess.Popen(
                [*command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **self.env},
                cwd=self.folder,
                start_new_session=True,
            )
        return self.process

    def start(self, *more: str, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Start and wait until every KME serves; the seconds it took. Raises Failed."""
        process = self.launch(*more)
        started_s = time.monotonic()
        while not self.is_ready():
            if process.poll() is not None:
                code = process.returncode
                self.process = None
                raise Failed(f"up ended with {code} before it was ready\n{self.tail()}")
            if time.monotonic() - started_s > timeout_s:
                explained = self.tail()
                self.stop(check=False)
                raise Failed(f"not ready within {timeout_s:g} s\n{explained}")
            time.sleep(0.02)
        return time.monotonic() - started_s

    def is_ready(self) -> bool:
        """Whether this run (not an earlier one) has written ready.json and its processes live."""
        if self._ready_stamp() == self._stamp:
            return False
        kmes = self.ready().get("kmes", {})
        return bool(kmes) and all(alive(kme["pid"]) for kme in kmes.values())

    def stop(self, *, check: bool = True) -> int:
        """End it with SIGTERM, the whole group with SIGKILL if it must be. Raises Failed on a bad end."""
        process, self.process = self.process, None
        if process is None:
            return 0
        self.pids_seen.add(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_TIMEOUT_S)
            late = False
        except subprocess.TimeoutExpired:
            late, code = True, -9
        self._sweep(process)
        if check and late:
            raise Failed(f"up did not end within {STOP_TIMEOUT_S:g} s of SIGTERM\n{self.tail()}")
        if check and code != 0:
            raise Failed(f"up ended with {code} on SIGTERM, expected 0\n{self.tail()}")
        return code

    def kill_all(self) -> None:
        """SIGKILL every process of this network at once, as a power cut of the host would (but the disk)."""
        process, self.process = self.process, None
        assert process is not None
        self.pids_seen.add(process.pid)
        self._sweep(process)

    def _sweep(self, process: subprocess.Popen[bytes]) -> None:
        """Leave nothing behind: the session we began and every site we ever saw as its child."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)
        for pid in self.pids_seen - {process.pid}:
            if alive(pid) and os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)

    # --- sites --------------------------------------------------------------------------------

    def ready(self) -> dict[str, Any]:
        """ready.json as it is now; {} while there is none. Raises Failed when it is half written."""
        path = self.state / "ready.json"
        try:
            text = path.read_text()
        except FileNotFoundError:
            return {}
        try:
            content: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise Failed(f"ready.json is not written atomically: {text!r}") from error
        self.pids_seen.update(kme["pid"] for kme in content.get("kmes", {}).values())
        return content

    def _ready_stamp(self) -> tuple[int, int]:
        try:
            stat = (self.state / "ready.json").stat()
        except FileNotFoundError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_ino)

    def kme(self, name: str) -> Kme:
        """A key manager as ready.json has it now."""
        return Kme(name=name, **{key: self.ready()["kmes"][name][key] for key in ("url", "kme_id", "pid")})

    @property
    def kme_names(self) -> list[str]:
        return sorted(self._stable()["kmes"])

    @property
    def saes(self) -> dict[str, Sae]:
        """All applications by plain alias."""
        fields = ("kme", "cert", "key", "urn")
        return {name: Sae(name, *(row[f] for f in fields)) for name, row in self._stable()["saes"].items()}

    def sae_at(self, site: str) -> Sae:
        """The first application of a site."""
        return next(sae for _, sae in sorted(self.saes.items()) if sae.kme == site)

    def _stable(self) -> dict[str, Any]:
        """ready.json read once a run: all but the pids stays as it is."""
        if not self._cached:
            self._cached = self.ready()
        return self._cached

    def url(self, site: str) -> str:
        url: str = self._stable()["kmes"][site]["url"]
        return url

    @property
    def ca(self) -> str:
        path: str = self._stable()["ca"]
        return path

    def context(self, sae: str) -> ssl.SSLContext:
        """TLS as that application."""
        found = self.saes[sae]
        return tls_context(self.ca, found.cert, found.key)

    def client(self, sae: str) -> Client014:
        """A client for that application at its own KME."""
        return Client014(self.url(self.saes[sae].kme), self.context(sae))

    def kill(self, site: str) -> int:
        """SIGKILL the process of one site; its pid. Raises Failed when it is not a process of its own."""
        pid = self.kme(site).pid
        assert self.process is not None
        if pid == self.process.pid:
            raise Failed(f"{site} is no process of its own (--spread per-node)\n{self.tail()}")
        if not descends_from(pid, self.process.pid):
            raise Failed(
                f"{site}: process {pid} of ready.json is no child of {self.process.pid}\n{self.tail()}"
            )
        os.kill(pid, signal.SIGKILL)
        return pid

    async def serves_again(self, site: str, old_pid: int, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Wait until `site` has another process than `old_pid` and takes TLS; the seconds it took."""
        context = self.context(self.sae_at(site).name)
        started_s = time.monotonic()
        while True:
            pid = self.kme(site).pid
            if pid != old_pid and alive(pid) and await _takes_tls(self.url(site), context):
                return time.monotonic() - started_s
            self.check_runs()
            if time.monotonic() - started_s > timeout_s:
                state = f"pid {pid}, was {old_pid}, alive {alive(pid)}"
                raise Failed(f"{site} does not serve within {timeout_s:g} s ({state})\n{self.tail()}")
            await asyncio.sleep(0.02)

    def check_runs(self) -> None:
        """Raises Failed when `up` itself has ended."""
        if self.process is None or self.process.poll() is not None:
            code = self.process.returncode if self.process is not None else "never started"
            raise Failed(f"up is not running: {code}\n{self.tail()}")

    # --- commands -----------------------------------------------------------------------------

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A CLI command on this network. Raises Failed when it ends other than with 0 and `check` is set."""
        done = run_cli(*arguments, "--state", str(self.state), env=self.env, cwd=self.folder)
        if check and done.returncode != 0:
            output = done.stdout + done.stderr
            raise Failed(f"{arguments} ended with {done.returncode}: {output}\n{self.tail()}")
        return done

    def cli_json(self, *arguments: str) -> Any:
        """What a command with `--json` prints. Raises Failed when it is no JSON."""
        printed = self.cli(*arguments, "--json").stdout
        try:
            return json.loads(printed)
        except ValueError as error:
            raise Failed(f"{' '.join(arguments)} --json printed no JSON: {printed!r}") from error

    async def acli_json(self, *arguments: str) -> Any:
        """`cli_json` beside running traffic."""
        return await asyncio.to_thread(self.cli_json, *arguments)

    async def acli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`cli` beside running traffic."""
        return await asyncio.to_thread(self.cli, *arguments)

    # --- logs ---------------------------------------------------------------------------------

    def _log(self, stream: str) -> Path:
        return self.folder / f"up-{self.starts}.{stream}"

    def printed(self) -> str:
        """What `up` has printed to standard output in this run."""
        return self._log("out").read_text(errors="replace")

    def logs(self) -> list[Path]:
        """Every file that `up` wrote its output to, and every log in the state directory."""
        return sorted({*self.folder.glob("up-*.*"), *self.state.rglob("*.log")})

    def tail(self) -> str:
        """The last lines of all logs, for the message of a failure."""
        parts = []
        for path in self.logs():
            lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            if lines:
                parts.append("\n".join([f"--- {path.name}", *lines]))
        return "\n".join(parts) or "(no logs)"


def run_cli(
    *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, bounded in time."""
    try:
        return subprocess.run(
            [*command(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(
            f"{' '.join(arguments)} did not end within {COMMAND_TIMEOUT_S:g} s: {error.stdout!r}"
        ) from error


async def _takes_tls(url: str, context: ssl.SSLContext) -> bool:
    try:
        connection = await connect(url, context, 2.0)
    except Gone:
        return False
    await connection.close()
    return True


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return stat_fields(pid)[0] != "Z"
    except OSError:
        return False


def stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on: field 0 is the state, 1 the parent, 11 and 12 the CPU ticks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descends_from(pid: int, ancestor: int) -> bool:
    """Whether `ancestor` is among the parents of `pid`."""
    try:
        while pid > 1:
            pid = int(stat_fields(pid)[1])
            if pid == ancestor:
                return True
    except OSError:
        pass
    return False


def descendants(ancestor: int) -> list[int]:
    """`ancestor` and every process below it."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in sorted(pids) if pid == ancestor or descends_from(pid, ancestor)]


def command_line(pid: int) -> str:
    """The command line as `ps` shows it, empty when the process is gone."""
    return _proc(pid, "cmdline")


def environment(pid: int) -> str:
    """The environment a process was started with, empty when it is gone."""
    return _proc(pid, "environ")


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def running(
    scenario: str, folder: Path, *options: str, env: dict[str, str] | None = None
) -> Iterator[Network]:
    """A network for the length of a `with` block. A failure inside carries the tail of the logs."""
    network = Network(scenario, folder, *options, env=env)
    network.start()
    try:
        yield network
    except Failed:
        network.stop(check=False)
        raise
    except BaseException as error:
        error.add_note(network.tail())
        network.stop(check=False)
        raise
    network.stop()


def installed(scenario: str) -> str:
    """The text of a scenario that ships with the package. Raises Failed when it is not there."""
    import multiplane

    for root in multiplane.__path__:
        for path in sorted(Path(root).rglob(f"{scenario}.toml")):
            return path.read_text()
    raise Failed(f"no {scenario}.toml in the package")


def forget(folder: Path) -> None:
    """Remove a state directory."""
    shutil.rmtree(folder, ignore_errors=True)


def chunks(items: Sequence[str], size: int) -> Iterator[list[str]]:
    """Consecutive slices of at most `size`."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
