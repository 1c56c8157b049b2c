"""Link layer: one wish for pairs of one link, for one circuit, at one of the link's two ends.

The lower end of the link on the path says CREATE; the upper one asks the devices, for as many pairs as
memories of the circuit's window are free at both ends. OK is the herald, which both ends hear.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from multiplane.api.instructions import Cancel, Discard, Generate, LinkSheet, Report
from multiplane.api.states import TraceRow
from multiplane.fabric.planes import Circuit
from multiplane.fabric.resource.distilling import Distiller
from multiplane.fabric.resource.pacing import Pace
from multiplane.fabric.resource.pair_words import (
    CODES,
    DOWN,
    Create,
    Desk,
    Distil,
    Distilled,
    Error,
    ErrorCode,
    Expire,
    Half,
    PairMessage,
    Tell,
)
from multiplane.fabric.resource.quality import Pair, fresh, gates_of, of_memory, purified, rested
from multiplane.kernel.quantity import NS_PER_MS, NS_PER_S

SILENT_MEANS: Final = 30
"""A link that makes nothing for so many mean times has failed: it happens by chance once in 10^13 times."""
REMEMBERED: Final = 256
RETRY_NS: Final = 200 * NS_PER_MS
"""After devices have refused, they are asked again."""


class LinkEvents(NamedTuple):
    """What the network layer hears of its link.

    Args: ready: a pair of all rounds is there; failed: ERR of a link, an empty reason = over.
    """

    ready: Callable[[Half], None]
    failed: Callable[[str, str], None]


class LinkWish:
    """One end of it.

    Args:
        side: `DOWN` at the upper end of the link, which leads.
        enough: no more pairs than this that nothing has broken, 0 = without end.
        window, rounds: of this link in the circuit.
    """

    def __init__(
        self,
        desk: Desk,
        circuit: Circuit,
        place: int,
        side: int,
        *,
        sheet: LinkSheet,
        enough: int,
        events: LinkEvents,
    ) -> None:
        at = place if side == DOWN else place - 1
        self.desk, self.circuit, self.side, self.sheet = desk, circuit, side, sheet
        self.site = circuit.path[place]
        self.peer = circuit.path[place + 1 if side == DOWN else place - 1]
        self.leads = side == DOWN
        self.closed = False
        self.paused = False
        self.halves: dict[int, Half] = {}
        self.handed: dict[int, Half] = {}
        self._events = events
        self._window = circuit.window[at]
        rounds = circuit.rounds[at]
        self._rounds = rounds
        name = f"{desk.order_id}/{desk.binding}/{circuit.circuit}/{sheet.link}"
        self._distiller = Distiller(desk, self, name, rounds, circuit.protocol, leads=self.leads)
        self._seq = self._heard = self._far_seq = self._far_heard = 0
        self._asked: dict[str, int] = {}
        self._far_held: set[int] = set()
        self._unheard: set[int] = set()
        self._gone: dict[int, None] = {}
        self._made = 0
        self._enough = enough
        self._good: dict[int, None] = {}
        self._settled = 0
        self._pace: Pace | None = None
        self._failed = self._watching = self._far_full = self._waking = False
        self._gates = gates_of(sheet, self.site), gates_of(sheet, self.peer)
        mean_ns = sheet.attempt_ns / sheet.success_probability
        self._patience_ns = round(SILENT_MEANS * mean_ns) + 10 * sheet.delay_ns + NS_PER_MS

    # the wish

    def begin(self) -> None:
        """The job is taken on here, or the neighbour is back: the lower end says what it wishes."""
        if not self.leads and not self.closed and not self.paused:
            self._create()

    def pause(self, paused: bool) -> None:
        """No more pairs for now, or again."""
        self.paused = paused
        if paused:
            self._cancel()
        elif self.leads:
            self._fill()
        else:
            self._create()

    def close(self) -> None:
        """Never more."""
        self.closed = True
        self._cancel()

    def _create(self) -> None:
        self._seq += 1
        self._tell(
            Create(
                order_id=self.desk.order_id,
                binding=self.desk.binding,
                circuit=self.circuit.circuit,
                seq=self._seq,
                held=tuple(self.halves),
                heard=self._heard,
                full=self.desk.full(self.sheet.link),
            )
        )

    def _cancel(self) -> None:
        for request in self._asked:
            self.desk.drop(request)
            self.desk.ask(Cancel(request=self.desk.request(), generate=request))
        self._asked.clear()

    def _fill(self) -> None:
        """Ask for as many pairs as both ends have room for."""
        if not self.leads or self.closed or self.paused or not self._far_seq:
            return
        taken = len(self._far_held.union(self.halves, self._unheard)) + sum(self._asked.values())
        room = self._window - taken
        if self._enough and len(self._good) >= self._enough:
            self._cancel()
            return
        if self.circuit.rate_per_s:
            room = min(room, self._due())
        if room <= 0:
            return
        request = self.desk.request(self.circuit.circuit)
        self._asked[request] = room
        asked = Generate(
            request=request,
            link=self.sheet.link,
            pairs=room,
            deadline_ns=self.circuit.until_ns,
            corrected=self._rounds > 0,
        )
        self.desk.ask(asked, self._refused)
        self._watch_silence()

    def _due(self) -> int:
        """Pairs to ask for at the pace of the order; the next are asked for when they are due."""
        now_ns, circuit = self.desk.now_ns, self.circuit
        if self._pace is None:
            used = 1 << circuit.end_rounds  # of each state
            self._pace = Pace(used * circuit.rate_per_s, used * circuit.burst, now_ns)
        made = self._settled + len(self._good)
        held = sum(half.level >= self._rounds for half in self.halves.values())
        under_way = len(self.halves) - held + sum(self._asked.values())
        room = (self._pace.due(now_ns, made, held) << self._rounds) - under_way
        if room <= 0 and not self._waking:
            self._waking = True
            self.desk.wake(self._pace.next_ns(made + -(-under_way >> self._rounds)), self._next_due)
        return room

    def _next_due(self, now_ns: int) -> None:  # noqa: ARG002
        self._waking = False
        self._fill()

    def _refused(self, report: Report) -> None:
        """The devices would not, or will no more."""
        if self._asked.pop(report.request, None) is None:
            return
        code = CODES.get(report.code, ErrorCode.OTHER)
        late = code == ErrorCode.NOTIME
        if late and report.link:  # the devices had taken it on
            code = ErrorCode.TIMEOUT
        self._fail(code, f"{report.code}: {report.reason}")
        if not late:
            self.desk.wake(RETRY_NS, self._try_again)

    def _try_again(self, now_ns: int) -> None:  # noqa: ARG002
        self._fill()

    def _fail(self, code: ErrorCode, reason: str) -> None:
        reason = f"link {self.sheet.link}: {code.name} {code.value}, {reason}"
        self._failed = True
        self._events.failed(self.sheet.link, reason)
        self._tell(
            Error(
                order_id=self.desk.order_id,
                binding=self.desk.binding,
                circuit=self.circuit.circuit,
                code=code.value,
                reason=reason,
            )
        )

    def _watch_silence(self) -> None:
        """One timer, from the first wish on."""
        if self.leads and not self._watching:
            self._watching = True
            self.desk.wake(self._patience_ns, partial(self._look_if_silent, self._made))

    def _look_if_silent(self, made: int, now_ns: int) -> None:  # noqa: ARG002
        self._watching = False
        if not self._asked or self.closed:
            return
        if self._far_full or self.desk.full(self.sheet.link):
            self._watch_silence()
        elif self._made == made and not self._failed:
            self._fail(ErrorCode.TIMEOUT, f"no pair for {self._patience_ns / NS_PER_S:.3g} s")
        elif self._made != made:
            self._watch_silence()

    # what comes

    def heard(self, message: PairMessage) -> None:
        """A word of the other end."""
        match message:
            case Create() if self.leads and message.seq > self._far_seq:
                self._far_seq = message.seq
                self._far_held = set(message.held)
                self._far_full = message.full
                self._far_heard = message.heard
                self._unheard = {number for number in self._unheard if number > message.heard}
                self._fill()
            case Distil():
                if not self.leads:
                    self._distiller.begun(message.kept, message.sacrificed, message.bit, message.at_ns)
            case Distilled():
                if self.leads:
                    self._distiller.done(message.kept, message.sacrificed, message.bit)
            case Error():
                self._failed = True
                self._events.failed(self.sheet.link, message.reason)
            case _:
                pass

    def report(self, report: Report) -> None:
        """Of a pair: it came, or it went before this site heard of it."""
        if report.number <= self._heard or (not report.ok and not report.number):
            return
        self._made += 1
        if self._failed:
            self._failed = False
            self._watch_silence()
            self._events.failed(self.sheet.link, "")
        self._heard = max(self._heard, report.number)
        if self.leads:
            self._count(report.request, report.number)
        if not report.ok:
            self.expire(report.number)
            self._freed()
            return
        (handle,) = report.handles
        half = Half(
            handle=handle,
            link=self.sheet.link,
            side=self.side,
            number=report.number,
            shared=report.number,
            since_ns=report.since_ns,
            seen_ps=None if report.tag_ps is None else 1000 * report.since_ns + report.tag_ps,
            known_ns=report.due_ns,
            frame=0 if self._rounds else report.bits[0] + 2 * report.bits[1],
            pair=fresh(self.sheet),
            row=TraceRow(
                what="pair",
                name=f"{self.sheet.link}/{report.number}",
                site=" ".join(self.sheet.sites),
                at_ns=report.since_ns,
                bits=report.bits,
            ),
        )
        self.halves[half.number] = half
        if self.closed or self.paused or report.number in self._gone:
            self.release(half)
        else:
            self._distiller.add(half)

    def _count(self, request: str, number: int) -> None:
        self._unheard.add(number)
        counts = self._enough or (self.circuit.rate_per_s and not self._rounds)
        if counts and number not in self._gone:
            self._came_good(number)
        left = self._asked.get(request, 0) - 1
        if left > 0:
            self._asked[request] = left
        else:
            self._asked.pop(request, None)
            self.desk.drop(request)
        if self._enough and len(self._good) >= self._enough:
            self._cancel()

    def _came_good(self, number: int) -> None:
        """A pair that counts, until something breaks it; of endless ones the old count for good."""
        self._good[number] = None
        if not self._enough and len(self._good) > REMEMBERED:
            del self._good[next(iter(self._good))]
            self._settled += 1

    # halves

    def gone(self, half: Half) -> None:
        """Its memory is free."""
        half.gone = True
        self._distiller.drop(half)
        for held in (self.halves, self.handed):
            if held.get(half.number) is half:
                del held[half.number]
                self._freed()

    def hand_over(self, half: Half) -> None:
        """It is the service's: it counts in the window no more."""
        if self.halves.pop(half.number, None) is half:
            self.handed[half.number] = half
            self._freed()

    def _freed(self) -> None:
        if self.closed or self.paused:
            return
        if self.leads:
            self._fill()
        else:
            self._create()

    def release(self, half: Half) -> None:
        """Free its memory."""
        if not half.gone:
            self.desk.ask(Discard(request=self.desk.request(), handle=half.handle))
            self.gone(half)

    def expire(self, number: int) -> None:
        """Tell the other end that a pair is broken."""
        self.replace(number)
        self._tell(
            Expire(
                order_id=self.desk.order_id,
                binding=self.desk.binding,
                circuit=self.circuit.circuit,
                number=number,
            )
        )

    def expired(self, number: int) -> Half | None:
        """The other end said so: the half that this end has of it, if it has not swapped it."""
        self.replace(number)
        half = self.halves.get(number)
        if number > self._heard:
            self._gone[number] = None
            if len(self._gone) > REMEMBERED:
                del self._gone[next(iter(self._gone))]
        self._distiller.missing(number)
        return half

    def replace(self, number: int) -> None:
        """A pair came to nothing: another may be made in its place."""
        if number in self._good:
            del self._good[number]
            self._fill()

    def _tell(self, message: PairMessage) -> None:
        self.desk.put(Tell(self.peer, message))

    # distilling.Pool

    def tell_begun(self, kept: Half, sacrificed: Half, bit: int, at_ns: int) -> None:
        self._tell(
            Distil(
                order_id=self.desk.order_id,
                binding=self.desk.binding,
                circuit=self.circuit.circuit,
                kept=kept.number,
                sacrificed=sacrificed.number,
                bit=bit,
                at_ns=at_ns,
            )
        )

    def tell_done(self, kept: int, sacrificed: int, bit: int) -> None:
        self._tell(
            Distilled(
                order_id=self.desk.order_id,
                binding=self.desk.binding,
                circuit=self.circuit.circuit,
                kept=kept,
                sacrificed=sacrificed,
                bit=bit,
            )
        )

    def improved(self, kept: Half, sacrificed: Half, at_ns: int) -> Pair:
        row = TraceRow(
            what="purify",
            name=f"{kept.row.name}+{sacrificed.number}",
            site=" ".join(self.sheet.sites),
            parts=(kept.row.name, sacrificed.row.name),
            at_ns=at_ns,
        )
        kept.rows += [kept.row, *sacrificed.rows, sacrificed.row]
        kept.row = row
        pairs = self._aged(kept, at_ns), self._aged(sacrificed, at_ns)
        return purified(pairs, self.circuit.protocol, self._gates)

    def _aged(self, half: Half, at_ns: int) -> Pair:
        pair = half.pair
        for site in self.sheet.sites:
            pair = rested(pair, of_memory(self.sheet, site), at_ns - half.known_ns)
        return pair

    def pure(self, half: Half) -> None:
        if self._rounds and self.leads and self.circuit.rate_per_s:
            self._came_good(half.number)
        self._events.ready(half)

    def used(self, kept: Half, sacrificed: Half) -> None:  # noqa: ARG002
        self.gone(sacrificed)

    def broken(self, half: Half) -> None:
        self.expire(half.number)
        self.release(half)
