"""A scripted network, printed as a digest of all that was said and when, with the oracle's floats beside it.

`python -m tests.support.twin_script CLOCK MODEL`: CLOCK is `jump` or a rate, MODEL a state model. Every type
of link, both handshakes, every instruction, memories that age and cut off, key blocks under faults. What is
asked for is asked at simulated times, or by who has just heard something.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from multiplane.api import instructions as core
from multiplane.api.device import KeyBlock, LinkState, LinkStatus, SpanAlarm, SpanReading
from multiplane.api.instructions import Instruction, Report
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import element_urn
from multiplane.kernel.nouns import Caller, ends
from multiplane.physics import dense
from multiplane.runtime.clocks import JumpClock, PacedClock, run_virtual
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.lateness import Lateness
from multiplane.twin.engine import Twin
from multiplane.twin.oracle import Oracle
from multiplane.twin.profiles import PROFILES
from multiplane.twin.scenario import World, parse

T = TypeVar("T")
EPOCH_NS: Final = 1_767_225_600_000_000_000
MS_PS: Final = 10**9
BEGIN_PS: Final = 100 * MS_PS
SPAN_MS: Final = 1_100
STEP_MS: Final = 3
SITES: Final = "abcde"
LINKS: Final = ("a--b", "b--c", "c--d", "d--e")
_HEAD: Final = """
format = "multiplane-scenario/1"
name = "script"
domain = "script"
[defaults]
profile = "decoy-bb84-1ghz"
[[noise]]
name = "gates"
single_error_probability = 0.001
double_error_probability = 0.02
readout_flip_probability = 0.01
[[memory]]
name = "ion"
t1_s = 0.5
t2_s = 0.08
noise = "gates"
cutoff_s = 0.04
efficiency = 0.7
[[memory]]
name = "slow"
model = "depolarising"
lifetime_s = 0.2
cutoff_s = 0.03
operation_s = 0.0004
swap_success_probability = 0.8
"""
_ENTANGLED: Final = {
    "a--b": 'type = "single-click"\nbright_probability = 0.05\nvisibility = 0.9\nphase_spread_rad = 0.2\n'
    'memory = "ion"\nhandshake = "grant"',
    "b--c": 'type = "double-click"\ndark_probability = 0.0001\nvisibility = 0.95\nmemory = "ion"\n'
    'handshake = "request-poll"',
    "c--d": 'type = "source-between"\nmu = 0.1\nmemory = ["ion", "slow"]\nhandshake = "grant"\n'
    'attempts = "message"\nattempts_per_s = 5000.0\ndead_ns = 50.0',
    "d--e": 'type = "fixed"\nfidelity = 0.9\nsuccess_probability = 0.1\nmemory = "slow"\n'
    'handshake = "request-poll"\nattempts = "message"',
}
_HAPPENS: Final = """
[[fault]]
kind = "cut"
link = ["a", "b"]
at = ["300ms", "900ms"]
duration = "120ms"
[[fault]]
kind = "drift"
link = ["b", "c"]
loss_db = 3.0
from = "200ms"
until = "1s"
ramp = "400ms"
[[fault]]
kind = "device"
link = ["c", "d"]
site = "c"
rate_per_h = 20000.0
duration = "40ms"
[[attacker]]
kind = "intercept-resend"
link = ["d", "e"]
share = 0.05
every = "210ms"
duration = "90ms"
"""


def world(model: str) -> World:
    """The scripted world. Args: model: name of a state model."""
    parts = [_HEAD, f'[states]\nmodel = "{model}"']
    parts += [f'[[site]]\nname = "{site}"' for site in SITES]
    for link in LINKS:
        a, b = link.split("--")
        parts.append(f'[[link]]\na = "{a}"\nb = "{b}"\nlength_km = 15.0\nloss_db = 3.0')
        parts.append(f'[[entangled]]\na = "{a}"\nb = "{b}"\nmemories = 8\n{_ENTANGLED[link]}')
    return parse("\n".join([*parts, _HAPPENS]), "script.toml")


def now(call: Coroutine[Any, Any, T]) -> T:
    """The answer of a door that never waits."""
    try:
        call.send(None)
    except StopIteration as answer:
        value: T = answer.value
        return value
    raise AssertionError("the door waited")


class Record:
    """What was said, in order: a digest, and floats apart."""

    def __init__(self, clock: JumpClock | PacedClock, timeline: Dispatcher) -> None:
        self._clock = clock
        self._timeline = timeline
        self._digest = hashlib.sha256()
        self.said = 0
        self.early = 0
        self.counts: Counter[str] = Counter()
        self.floats: list[float] = []

    def add(self, due_ns: int, who: str, what: object, count: str) -> None:
        """Something is said to `who` that was due at `due_ns`; it happens at the base of the timeline."""
        self.early += due_ns > self._clock.now_ns()
        self.said += 1
        self.counts[count] += 1
        self._digest.update(msgspec.json.encode([self._timeline.base_ps(), due_ns, who, what]))

    def outcome(self, late: Lateness) -> dict[str, Any]:
        """Everything so far."""
        return {
            "digest": self._digest.hexdigest(),
            "said": self.said,
            "counts": dict(sorted(self.counts.items())),
            "floats": list(self.floats),
            "early": self.early + late.early,
            "late_p50_us": late.p50_us,
            "late_max_us": late.max_us,
        }


class Agent:
    """One end of the modules of a link: it opens room a little late, now and then too late."""

    def __init__(self, play: Play, site: str, link: str) -> None:
        self.play, self.link = play, link
        self.caller = play.caller(site)
        self.who = f"{site}/{link}"
        self.epoch = -1

    def attach(self) -> None:
        """Open a session and ask for key."""
        now(self.play.twin.qkd.attach(self.caller, self.link, self))
        now(self.play.twin.qkd.start(self.caller, self.link))

    def key_block(self, block: KeyBlock) -> None:
        digest = hashlib.sha256(block.key).hexdigest()
        said = [block.epoch, block.offset_byte, len(block.key), digest]
        self.play.record.add(block.made_ns, self.who, said, "block")
        self.play.record.floats.append(block.qber)
        limit_byte = block.offset_byte + len(block.key) + 400
        self.play.after(
            11 * MS_PS, self.play.twin.qkd.window, self.caller, self.link, block.epoch, limit_byte
        )

    def link_status(self, status: LinkStatus) -> None:
        said = [status.state.value, status.epoch, status.discarded_bit, status.reason]
        self.play.record.add(status.at_ns, self.who, said, status.state.value)
        self.play.record.floats += [status.rate_bit_per_s, status.qber]
        if status.state is LinkState.UP or status.epoch != self.epoch:
            self.epoch = status.epoch
            self.play.twin.qkd.window(self.caller, self.link, status.epoch, 500)


class Light:
    """The optical controller: it lights a link again when its span is whole."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.caller = Caller(principal="urn:qkd:script:controller", domain="script")
        self._paths = 0
        now(play.twin.optical.attach(self.caller, self))

    def light(self, link: str) -> None:
        """Over its own span."""
        self._paths += 1
        now(self.play.twin.optical.light(self.caller, f"path-{self._paths}", link, (link,)))

    def span_alarm(self, alarm: SpanAlarm) -> None:
        self.play.record.add(alarm.at_ns, "light", [alarm.span, alarm.lost], "alarm")
        if not alarm.lost:
            self.light(alarm.span)

    def span_reading(self, reading: SpanReading) -> None:
        self.play.record.add(0, "light", [reading.span, reading.lost], "reading")
        self.play.record.floats.append(reading.loss_db)


class Station:
    """A node's program: it writes down what it hears, and measures every seventh pair at once."""

    def __init__(self, play: Play, name: str) -> None:
        self.play, self.name = play, name
        self.caller = play.caller(name)
        self.pairs: dict[str, dict[int, int]] = {link: {} for link in LINKS}
        self._asked: dict[str, str] = {}
        now(play.twin.quantum.subscribe(self.caller, self))

    def report(self, report: Report) -> None:
        """The topic."""
        count = report.code or self._asked.get(report.request, "heard")
        self.play.record.add(report.due_ns, self.name, report, count)
        if not (report.number and report.handles):
            return
        if not report.ok:
            self.pairs[report.link].pop(report.number, None)
            return
        self.pairs[report.link][report.number] = report.handles[0]
        self.play.look(self.name, report.handles[0])
        if report.number % 7 == 0:
            del self.pairs[report.link][report.number]
            self.perform(core.Measure, handle=report.handles[0], basis="xyz"[report.number % 3])

    def ask(self, kind: type[Instruction], **fields: Any) -> None:
        """Over the door; a refusal is an outcome too."""
        asked = self._new(kind, fields)
        try:
            now(self.play.twin.quantum.submit(self.caller, asked))
        except MultiplaneError as error:
            self.play.record.add(0, self.name, [asked.request, error.code], error.code)

    def perform(self, kind: type[Instruction], **fields: Any) -> Report | None:
        """In this process, with the answer at once."""
        asked = self._new(kind, fields)
        try:
            answer = self.play.twin.quantum.perform(self.name, asked)
        except MultiplaneError as error:
            self.play.record.add(0, self.name, [asked.request, error.code], error.code)
            return None
        self.play.record.add(0, self.name, answer, kind.__name__)
        return answer

    def take(self, link: str) -> int:
        """The handle of its oldest pair on a link, or one that nobody has."""
        pairs = self.pairs[link]
        return pairs.pop(next(iter(pairs))) if pairs else 1_000_003

    def _new(self, kind: type[Instruction], fields: dict[str, Any]) -> Any:
        request = f"{self.name}{len(self._asked)}"
        self._asked[request] = kind.__name__
        return kind(request=request, **fields)


class Play:
    """The script on a twin."""

    def __init__(self, clock: JumpClock | PacedClock, timeline: Dispatcher, model: str) -> None:
        self.timeline = timeline
        self.record = Record(clock, timeline)
        profiles = {
            name: msgspec.structs.replace(
                profile,
                provisioning_ps=30 * MS_PS,
                calibration_ps=20 * MS_PS,
                block_interval_ps=7 * MS_PS,
            )
            for name, profile in PROFILES.items()
        }
        self.twin = Twin(world(model), timeline, bytes(range(32)), 3, profiles)
        self.oracle = Oracle(self.twin.quantum)
        self.stations = {name: Station(self, name) for name in SITES}
        self.agents = [Agent(self, site, link) for link in LINKS for site in link.split("--")]
        self.optics = Light(self)

    def caller(self, site: str) -> Caller:
        """The elements of a site."""
        return Caller(principal=element_urn("script", site), domain="script")

    def after(self, delay_ps: int, handler: Callable[..., Any], *args: Any) -> None:
        """Do something later, counted from when what happens now was due."""
        self.timeline.at_ps(self.timeline.base_ps() + delay_ps, handler, *args)

    def look(self, node: str, handle: int) -> None:
        """Note the true state of a pair."""
        try:
            self.record.floats += [*self.oracle.pair(node, handle), self.oracle.fidelity(node, handle)]
        except (MultiplaneError, ValueError):
            self.record.floats.append(-1.0)

    def begin(self) -> None:
        """Everything that is due at `BEGIN_PS`."""
        self.twin.start()
        for agent in self.agents:
            agent.attach()
        for number, link in enumerate(LINKS):
            self.after(number * MS_PS, self.optics.light, link)
        self.stations["a"].ask(core.Generate, link="a--b", pairs=0)
        self.stations["e"].ask(core.Generate, link="d--e", pairs=40, keep=False, basis="x")
        self.after(400 * MS_PS, self.agents[0].attach)
        self.after(600 * MS_PS, self.error, ("c", "d"), 0.01)
        for number in range(1, SPAN_MS // STEP_MS):
            # Off any grid, so that nothing else is due at the same picosecond.
            self.after(number * STEP_MS * MS_PS + number, self.step, number)

    def error(self, both: tuple[str, str], flip_probability: float) -> None:
        """The hand of fate."""
        now(self.twin.scenario.set_error(self.optics.caller, ends(*both), flip_probability))

    def step(self, number: int) -> None:
        """One of what people do with pairs; before it, new ones are asked for."""
        for link in LINKS[1:]:
            if number % 2:
                self.stations[link[number % 4 // 2 * 3]].ask(core.Generate, link=link, pairs=1)
        (self.swap, self.purify, self.fuse, self.measure, self.teleport, self.sundry)[number % 6](number)

    def swap(self, number: int) -> None:
        node, left, right = (("b", *LINKS[:2]), ("c", *LINKS[1:3]), ("d", *LINKS[2:]))[number // 6 % 3]
        here = self.stations[node]
        here.ask(core.Swap, left=here.take(left), right=here.take(right), corrected=bool(number // 6 % 2))
        for site in "ae":
            for pairs in self.stations[site].pairs.values():
                for handle in pairs.values():
                    self.look(site, handle)

    def purify(self, number: int) -> None:
        link = LINKS[number // 6 % 4]
        near, far = (self.stations[site] for site in link.split("--"))
        both = [each for each in near.pairs[link] if each in far.pairs[link]][:2]
        if len(both) < 2:
            return
        protocol = core.PROTOCOLS[number // 24 % 2]
        for station, delay_ps in ((near, 0), (far, 77_777_777)):
            kept, gone = station.pairs[link][both[0]], station.pairs[link].pop(both[1])
            asked = {"exchange": f"x{number}", "kept": kept, "sacrificed": gone, "protocol": protocol}
            self.after(delay_ps, lambda station=station, asked=asked: station.ask(core.Purify, **asked))

    def fuse(self, number: int) -> None:
        """A GHZ state of b, c and d out of two pairs; one of its qubits is turned and measured later."""
        here, far = self.stations["c"], self.stations["d"]
        if not (here.pairs["b--c"] and here.pairs["c--d"]):
            return
        kept, number_ = here.take("b--c"), next(iter(here.pairs["c--d"]))
        joined, third = here.take("c--d"), far.pairs["c--d"].pop(number_, 0)
        answer = here.perform(core.Fuse, kept=kept, joined=joined)
        if answer is None or not third:
            return
        if answer.bits[0]:
            far.ask(core.Gate, gate="x", handles=(third,))
        partner = self.twin.quantum.nodes["c"].qubits[kept].state
        others = [(qubit.node.name, qubit.handle) for qubit in getattr(partner, "qubits", ()) if qubit.handle]
        if len(others) == 3:
            matrix = self.oracle.density(others)
            self.record.floats += [float(dense.overlap(matrix, dense.ghz(3))), *np.diag(matrix).real.tolist()]
        for gate in ("h", "s", "t") if number % 12 == 2 else ("h",):
            here.ask(core.Gate, gate=gate, handles=(kept,))
        self.after(MS_PS, lambda: here.ask(core.Measure, handle=kept, basis="y"))

    def measure(self, number: int) -> None:
        for site in "ae" if number % 12 == 3 else "a":
            station = self.stations[site]
            for pairs in station.pairs.values():
                for handle in list(pairs.values()):
                    self.look(site, handle)
                    station.ask(core.Measure, handle=handle, basis="xyz"[number // 6 % 3])
                pairs.clear()

    def teleport(self, number: int) -> None:
        here = self.stations["d"]
        made = here.perform(core.Prepare, link="d--e", state=core.STATES[number // 6 % 6])
        # Preparing takes time here: the handle comes with the report.
        assert made is None
        half = here.take("d--e")

        def send() -> None:
            prepared = [
                qubit.handle for qubit in self.twin.quantum.nodes["d"].qubits.values() if not qubit.number
            ]
            if prepared:
                here.ask(core.Teleport, qubit=prepared[0], half=half, corrected=True)

        self.after(MS_PS, send)

    def sundry(self, number: int) -> None:
        a, b = self.stations["a"], self.stations["b"]
        a.ask(core.PrepareSend, link="a--b", state="+i", keep=number % 12 == 5, basis="y")
        b.ask(core.Query, link="b--c")
        b.ask(core.Gate, gate="cx", handles=(b.take("a--b"), b.take("b--c")))
        b.ask(core.Move, handle=b.take("a--b"), link="b--c")
        b.ask(core.Discard, handle=b.take("a--b"))
        b.ask(
            core.Generate,
            link="b--c",
            deadline_ns=EPOCH_NS + BEGIN_PS // 1000 + number * STEP_MS * 10**6 + 2_500_000,
        )


async def follow(clock: JumpClock | PacedClock, model: str) -> dict[str, Any]:
    """Run the script and tell what was said. It begins when all is built, at the same time on any clock."""
    timeline = Dispatcher(clock)
    if isinstance(clock, PacedClock):
        clock.pause()
    play = Play(clock, timeline, model)
    over: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def end() -> None:
        over.set_result(play.record.outcome(timeline.statistics()))

    timeline.at_ps(BEGIN_PS, play.begin)
    timeline.at_ps(BEGIN_PS + SPAN_MS * MS_PS, end)
    if isinstance(clock, PacedClock):
        clock.resume()
    ticking = asyncio.ensure_future(timeline.run())
    await asyncio.wait((ticking, over), return_when=asyncio.FIRST_COMPLETED)
    if ticking.done():
        ticking.result()
    ticking.cancel()
    return await over


def run(pace: str, model: str) -> dict[str, Any]:
    """The script. Args: pace: `jump` or a rate; model: a state model."""
    if pace == "jump":
        return run_virtual(lambda clock: follow(clock, model), EPOCH_NS)

    async def main() -> dict[str, Any]:
        return await follow(PacedClock(EPOCH_NS, float(pace)), model)

    return asyncio.run(main())


def features() -> list[str]:
    """What numpy could do with this processor and may, beyond what it needs."""
    umath: Any = importlib.import_module("numpy._core._multiarray_umath")
    return [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]]


if __name__ == "__main__":
    sys.stdout.write(json.dumps({**run(*sys.argv[1:3]), "features": features()}) + "\n")
