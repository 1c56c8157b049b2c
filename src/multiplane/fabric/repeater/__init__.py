"""The fabric's agent at a site with quantum memories: it does the site's part of jobs, over its devices.

Decisions are made in `resource` (link layer, network layer, ends, fusion); here they are carried out: asking
devices, telling neighbours (service `pairs`), waking up in time, handing states over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from multiplane.api.fabric_units import HeldState, StateListener, StateLost
from multiplane.api.instructions import (
    CoreInstruction,
    Discard,
    LinkSheet,
    QuantumDevice,
    Report,
)
from multiplane.api.states import Operated, Step, TraceRow
from multiplane.fabric.planes import Job, JobListener, JobState, PairReport
from multiplane.fabric.repeater.figures import Figures
from multiplane.fabric.repeater.neighbours import Events, Neighbours
from multiplane.fabric.resource.job_part import JobPart, check_job, windows
from multiplane.fabric.resource.memories import Cell, Memories, instruction_of, why_not
from multiplane.fabric.resource.pair_words import (
    Action,
    Around,
    Changed,
    Expire,
    Held,
    Key,
    Lost,
    PairMessage,
    Submit,
    Tell,
    Wake,
    key_of,
    request_id,
)
from multiplane.fabric.work import Work
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.names import controller_urn
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Channels, Timeline
from multiplane.kernel.quantity import NS_PER_S

REPORT_EVERY_NS: Final = NS_PER_S
"""At most so often a link of pairs is told of."""
SLACK: Final = 30
"""By so many times the lateness of device reports may what a chain does take longer than planned."""
MOST_TRACES: Final = 4096
MOST_JOBS: Final = 10_000
HERE: Final = Key("", 0, "")
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(PairMessage).decode


class RepeaterAgent:
    """Implements `planes.RepeaterControl`, `api.fabric_units.FabricStates` and
    `api.instructions.ReportListener`.

    Args: caller: the site's own element, as it appears to devices and peers.
    """

    def __init__(
        self,
        caller: Caller,
        site: str,
        timeline: Timeline,
        device: QuantumDevice,
        channels: Channels,
        *,
        bus: Bus,
    ) -> None:
        self._caller = caller
        self._site = site
        self._timeline = timeline
        self._device = device
        self._bus = bus
        self._sheets: dict[str, LinkSheet] = {}
        events = Events(self._met, self._cut, self._message, self._wanted)
        self._neighbours = Neighbours(caller, site, timeline, channels, events)
        self._parts: dict[str, JobPart] = {}
        self._listeners: dict[str, JobListener] = {}
        self._states: StateListener | None = None
        self._on_link: defaultdict[str, dict[str, JobPart]] = defaultdict(dict)
        self._memories = Memories()
        self._late_ns = 0
        self._around = Around(self._full, self._slack_ns)
        self._numbers = _numbered(timeline.now_ns())
        self._submissions: deque[CoreInstruction] = deque()
        self._submitting = False
        self._answers: dict[str, asyncio.Future[Report]] = {}
        self._traces: OrderedDict[tuple[str, str], tuple[TraceRow, ...]] = OrderedDict()
        self._figures: dict[str, Figures] = {}
        self._moved: set[str] = set()
        self._work = Work()
        self._ticking = False
        self._closed = False

    async def start(self) -> None:
        """Hear the devices, take channels from neighbours.

        Raises: as `QuantumDevice.subscribe`.
        """
        await self._device.subscribe(self._caller, self)
        await self._describe()
        self._neighbours.start()

    async def close(self) -> None:
        """Let go of channels and tasks."""
        self._closed = True
        await self._neighbours.close()
        for request, waiting in self._answers.items():
            if not waiting.done():
                waiting.set_result(self._refusal(request, "fabric.step", "the agent of this site has ended"))
        await self._work.close()

    async def _describe(self) -> None:
        for sheet in await self._device.describe(self._caller):
            self._sheets[sheet.link] = sheet
            self._figures.setdefault(sheet.link, Figures(self._timeline.now_ns()))
            peer = sheet.sites[1 - sheet.sites.index(self._site)]
            self._neighbours.add(peer, sheet.delay_ns)

    # RepeaterControl

    async def sheets(self, caller: Caller) -> tuple[LinkSheet, ...]:
        self._check_controller(caller)
        await self._describe()
        return tuple(self._sheets.values())

    async def take_on(self, caller: Caller, job: Job, listener: JobListener) -> JobState:
        """See `planes.RepeaterControl`."""
        self._check_controller(caller)
        known = self._parts.get(job.order_id)
        if known is not None and known.job.binding >= job.binding:
            if known.job.binding > job.binding:
                reason = f"binding: {job.binding}, expected more than {known.job.binding}"
                raise Refused("repeater.stale", reason)
            self._listeners[job.order_id] = listener
            return known.state
        check_job(job, self._site, self._sheets, self._timeline.now_ns())
        if known is not None:
            self._end(known, "replaced by a higher binding")
        self._reserve(job)
        part = self._parts[job.order_id] = JobPart(job, self._site, self._sheets, self._numbers, self._around)
        self._listeners[job.order_id] = listener
        for link in part.windows:
            self._on_link[link][job.order_id] = part
        if job.until_ns:
            self._timeline.at_ns(job.until_ns, self._deadline, part)
        for peer in part.peers():
            self._neighbours.reach(peer)
        self._perform(part, part.begin(self._timeline.now_ns()))
        self._note(*windows(job, self._site))
        return part.state

    def _reserve(self, job: Job) -> None:
        """Raises: Busy(`repeater.no_memory`)."""
        if len(self._parts) >= MOST_JOBS:
            raise Busy("repeater.no_memory", f"order_id: {MOST_JOBS} jobs are here, expected fewer")
        for link, needed in windows(job, self._site).items():
            free = self.free(link)
            if needed > free:
                reason = f"window: {needed} memories of {link} at {self._site}, expected at most {free}"
                raise Busy("repeater.no_memory", reason)

    def free(self, link: str) -> int:
        """Memories of a link at this site that no job has reserved and nobody holds."""
        reserved = sum(part.windows[link] for part in self._on_link[link].values())
        return self._room(link) - reserved - self._memories.on(link)

    def _full(self, link: str) -> bool:
        """Whether all memories of a link hold something."""
        used = sum(half.link == link for part in self._on_link[link].values() for half in part.halves())
        return used + self._memories.on(link) >= self._room(link)

    def _slack_ns(self) -> int:
        return SLACK * self._late_ns

    def _room(self, link: str) -> int:
        sheet = self._sheets[link]
        return sheet.memories[sheet.sites.index(self._site)]

    async def drop(self, caller: Caller, order_id: str, reason: str) -> None:
        """See `planes.RepeaterControl`."""
        self._check_controller(caller)
        part = self._parts.get(order_id)
        if part is not None:
            self._end(part, reason)

    async def jobs(self, caller: Caller) -> tuple[JobState, ...]:
        self._check_controller(caller)
        return tuple(part.state for part in self._parts.values())

    async def trace(self, caller: Caller, order_id: str, state: str) -> tuple[TraceRow, ...]:
        self._check_controller(caller)
        return self._traces.get((order_id, state), ())

    def _deadline(self, part: JobPart) -> None:
        if self._parts.get(part.job.order_id) is part:
            self._end(part, "its deadline has passed")

    def _end(self, part: JobPart, reason: str) -> None:
        """A part is over: what it has not handed over is freed."""
        order_id = part.job.order_id
        del self._parts[order_id]
        listener = self._listeners.pop(order_id, None)
        for link in part.windows:
            self._on_link[link].pop(order_id, None)
            self._figures[link].keep(part, link)
        self._perform(part, part.close(reason, self._timeline.now_ns()))
        if listener is not None:
            listener.job_changed(part.state)
        self._note(*part.windows)

    # FabricStates

    async def subscribe(self, caller: Caller, listener: StateListener) -> tuple[HeldState, ...]:
        """See `api.fabric_units.FabricStates`."""
        self._check_own_site(caller)
        self._states = listener
        return self._memories.held()

    async def operate(self, caller: Caller, steps: tuple[Step, ...]) -> Operated:
        """See `api.fabric_units.FabricStates`."""
        self._check_own_site(caller)
        bits: list[int] = []
        for step in steps:
            bits += await self._step(step)
        return Operated(bits=tuple(bits), at_ns=self._timeline.now_ns())

    async def _step(self, step: Step) -> tuple[int, ...]:
        if step.do == "prepare":
            self._memories.check_name(step.on, self._site)
        link = self._free_link() if step.do == "prepare" else ""
        cells = [] if step.do == "prepare" else [self._memories.at(address) for address in step.on]
        request = request_id(next(self._numbers), HERE)
        report = await self._ask(instruction_of(step, request, tuple(cell.handle for cell in cells), link))
        if not report.ok:
            raise why_not(step, report)
        if step.do == "prepare":
            self._memories.put(step.on[0], Cell(report.handles[0], link, None, 0))
        if step.do in ("measure", "discard"):
            for address in step.on:
                self._let_go(address)
        return report.bits

    def _free_link(self) -> str:
        """Raises: Busy(`fabric.no_memory`)."""
        for link in self._sheets:
            if self.free(link) > 0:
                return link
        raise Busy("fabric.no_memory", f"do: no free memory at {self._site}, expected one to prepare in")

    async def discard(self, caller: Caller, addresses: tuple[str, ...]) -> None:
        self._check_own_site(caller)
        for address in addresses:
            self._throw_away(address)

    def _throw_away(self, address: str) -> None:
        cell = self._let_go(address)
        if cell is not None:
            self._submit(Discard(request=request_id(next(self._numbers), HERE), handle=cell.handle))

    def _let_go(self, address: str) -> Cell | None:
        """The service holds a qubit no more: its memory is free for the job that made it."""
        cell = self._memories.take(address)
        if cell is None:
            return None
        part = None if cell.held is None else self._parts.get(cell.held.order_id)
        if part is not None and part.job.binding == cell.binding:
            self._perform(part, part.freed(cell.handle, self._timeline.now_ns()))
        self._note(cell.link)
        return cell

    def _hold(self, part: JobPart, action: Held) -> None:
        state = action.state
        self._traces[state.order_id, state.state] = action.rows
        while len(self._traces) > MOST_TRACES:
            self._traces.popitem(last=False)
        if action.handle:
            cell = Cell(action.handle, part.link_of(action.handle), state, part.job.binding)
            self._memories.put(state.address, cell)
            self._timeline.at_ns(state.expires_ns, self._expire, cell)
        if self._states is not None:
            self._states.state_held(state)

    def _expire(self, cell: Cell) -> None:
        """A state that nobody has used falls below its floor."""
        if cell.held is not None and self._memories.address_of(cell.handle) == cell.held.address:
            self._throw_away(cell.held.address)
            self._lost(cell.held, "its time is over")

    def _lost(self, held: HeldState, reason: str) -> None:
        if self._states is not None:
            lost = StateLost(order_id=held.order_id, state=held.state, address=held.address, reason=reason)
            self._states.state_lost(lost)

    # devices

    def report(self, report: Report) -> None:
        """See `api.instructions.ReportListener`."""
        key = key_of(report.request)
        if key is None or self._closed:
            return
        late_ns = self._timeline.now_ns() - report.due_ns
        self._late_ns = max(late_ns, self._late_ns - self._late_ns // 64)
        if report.ok and report.number:
            self._figures[report.link].pairs += 1
            self._note(report.link)
        waiting = self._answers.pop(report.request, None)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(report)
            return
        if not report.ok and report.handles:
            self._gone(report)
        part = self._parts.get(key.order_id)
        if part is not None and part.job.binding == key.binding:
            self._perform(part, part.report(report, self._timeline.now_ns()))
        elif report.ok and report.number:
            self._stray(key, report)

    def _gone(self, report: Report) -> None:
        """The devices have lost a qubit; if it was handed over, it is told."""
        address = self._memories.address_of(report.handles[0])
        cell = self._memories.take(address) if address else None
        if cell is not None and cell.held is not None:
            self._lost(cell.held, report.reason)

    def _stray(self, key: Key, report: Report) -> None:
        """A pair of a job that is over here, or not here yet."""
        for handle in report.handles:
            self._submit(Discard(request=request_id(next(self._numbers), HERE), handle=handle))
        sheet = self._sheets[report.link]
        peer = sheet.sites[1 - sheet.sites.index(self._site)]
        self._tell(
            peer,
            Expire(order_id=key.order_id, binding=key.binding, circuit=key.circuit, number=report.number),
        )

    async def _ask(self, instruction: CoreInstruction) -> Report:
        waiting: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._answers[instruction.request] = waiting
        self._submit(instruction)
        return await waiting

    def _submit(self, instruction: CoreInstruction) -> None:
        """One after the other: devices hear everything in the order in which it was decided."""
        self._submissions.append(instruction)
        if not self._submitting and not self._closed:
            self._submitting = True
            self._work.spawn(self._submit_all())

    async def _submit_all(self) -> None:
        while self._submissions:
            instruction = self._submissions.popleft()
            try:
                await self._device.submit(self._caller, instruction)
            except MultiplaneError as error:
                self.report(self._refusal(instruction.request, error.code, error.reason))
        self._submitting = False

    def _refusal(self, request: str, code: str, reason: str) -> Report:
        now_ns = self._timeline.now_ns()
        return Report(request=request, node=self._site, due_ns=now_ns, ok=False, code=code, reason=reason)

    # what parts decide

    def _perform(self, part: JobPart, actions: list[Action]) -> None:
        changed = False
        for action in actions:
            match action:
                case Submit(instruction=instruction):
                    self._submit(instruction)
                case Tell(peer=peer, message=message):
                    self._tell(peer, message)
                case Wake(at_ns=at_ns, then=then):
                    self._timeline.at_ns(at_ns, self._woken, part, then)
                case Held():
                    self._hold(part, action)
                case Lost(lost=lost):
                    self._spoilt(lost)
                case Changed():
                    changed = True
        listener = self._listeners.get(part.job.order_id)
        if changed and listener is not None and not part.closed:
            listener.job_changed(part.state)
            self._note(*part.windows)

    def _woken(self, part: JobPart, then: Any) -> None:
        if not part.closed and not self._closed:
            self._perform(part, part.woken(then, self._timeline.now_ns()))

    def _spoilt(self, lost: StateLost) -> None:
        """The other end has lost its part of a state that was handed over here."""
        if lost.address:
            cell = self._memories.take(lost.address)
            if cell is None:
                return
        if self._states is not None:
            self._states.state_lost(lost)

    # neighbours

    def _tell(self, peer: str, message: PairMessage) -> None:
        self._neighbours.tell(peer, _encode(message))

    def _met(self, peer: str) -> None:
        """The channel to a neighbour is there."""
        for part in list(self._parts.values()):
            if peer in part.peers():
                self._perform(part, part.begin(self._timeline.now_ns(), peer))

    def _cut(self, peer: str, reason: str) -> None:
        """It is gone; whether it is still wanted."""
        for part in list(self._parts.values()):
            if peer in part.peers():
                self._perform(part, part.cut(peer, reason, self._timeline.now_ns()))

    def _wanted(self, peer: str) -> bool:
        return any(peer in part.peers() for part in self._parts.values())

    def _message(self, peer: str, data: bytes) -> bool:
        """A word of a neighbour; False: it is none."""
        try:
            message = _decode(data)
        except msgspec.MsgspecError:
            return False
        part = self._parts.get(message.order_id)
        if part is not None and part.job.binding == message.binding:
            self._perform(part, part.heard(peer, message, self._timeline.now_ns()))
        return True

    # telemetry

    def _note(self, *links: str) -> None:
        """Something has changed on a link: one timer for all of the site."""
        self._moved.update(links)
        if not self._ticking and not self._closed and self._moved:
            self._ticking = True
            self._timeline.at_ns(self._timeline.now_ns() + REPORT_EVERY_NS, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        moved, self._moved = self._moved, set()
        for link in sorted(moved) if not self._closed else ():
            with contextlib.suppress(MultiplaneError):
                subject = f"{self._caller.domain}.fabric.telemetry.{self._site}.pairs"
                self._bus.publish(subject, self._report_of(link))

    def _report_of(self, link: str) -> PairReport:
        return self._figures[link].report(
            self._sheets[link],
            self._site,
            parts=list(self._on_link[link].values()),
            free=max(0, self.free(link)),
            now_ns=self._timeline.now_ns(),
        )

    # who may speak

    def _check_controller(self, caller: Caller) -> None:
        expected = controller_urn(self._caller.domain)
        if caller.domain != self._caller.domain or caller.principal != expected:
            raise Refused("repeater.not_allowed", f"caller: expected {expected!r}, got {caller.principal!r}")

    def _check_own_site(self, caller: Caller) -> None:
        expected = self._caller.principal
        if caller.principal != expected:
            raise Refused("repeater.not_allowed", f"caller: expected {expected!r}, got {caller.principal!r}")


def _numbered(boot_ns: int) -> Iterator[str]:
    """Names of requests that no earlier life of this site has used."""
    count = 0
    while True:
        count += 1
        yield f"{boot_ns:x}.{count:x}"
