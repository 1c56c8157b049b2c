"""The optical layer of the world: spans, the quantum paths switched over them, cuts and alarms."""

from __future__ import annotations

from typing import NamedTuple

from multiplane.api.device import OpticalListener, SpanAlarm, SpanReading
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Timeline
from multiplane.physics import fibre
from multiplane.twin.modules import Modules
from multiplane.twin.scenario import Span, World


class _Path(NamedTuple):
    link: str
    spans: tuple[str, ...]


class Optics:
    """All spans and paths; implements `api.device.OpticalDevice`. A span has the id of the link on it.

    A link has one path at a time: lighting another takes the first away. A path that loses a span is gone.
    """

    def __init__(self, world: World, timeline: Timeline, modules: Modules) -> None:
        self._timeline = timeline
        self._modules = modules
        self._spans = {span.id: span for span in world.spans}
        self._lost: set[str] = set()
        self._paths: dict[str, _Path] = {}
        self._path_ids: dict[str, str] = {}  # by link
        self._listeners: dict[str, OpticalListener] = {}

    async def attach(self, caller: Caller, listener: OpticalListener) -> tuple[SpanReading, ...]:
        self._listeners[caller.principal] = listener
        return tuple(
            SpanReading(
                span=span.id, length_km=span.length_km, loss_db=span.loss_db, lost=span.id in self._lost
            )
            for span in self._spans.values()
        )

    async def light(
        self,
        caller: Caller,  # noqa: ARG002
        path_id: str,
        link: str,
        spans: tuple[str, ...],
    ) -> None:
        path = _Path(link, tuple(spans))
        if path_id in self._paths:
            if self._paths[path_id] != path:
                raise Refused(
                    "device.path_exists", f"path_id: {path_id!r} is another path, expected a new id"
                )
            return
        self._check(path)
        if link in self._path_ids:
            self._remove(self._path_ids[link], "path replaced")
        self._paths[path_id] = path
        self._path_ids[link] = path_id
        self._modules.connect(link, sum(self._spans[span].loss_db for span in spans))

    async def darken(self, caller: Caller, path_id: str) -> None:  # noqa: ARG002
        if path_id in self._paths:
            self._remove(path_id, "path disconnected")

    def is_lost(self, span: str) -> bool:
        """Whether the fibre is cut."""
        return span in self._lost

    def cut(self, span: str) -> None:
        """Cut the fibre: its paths are gone at once, alarms come as fast as light."""
        if span in self._lost:
            return
        self._lost.add(span)
        self._alarm_later(span, lost=True)
        for path_id, path in list(self._paths.items()):
            if span in path.spans:
                del self._paths[path_id], self._path_ids[path.link]
                delay_ps = fibre.delay_ps(sum(self._spans[part].length_km for part in path.spans))
                self._modules.fail(path.link, f"light lost on span {span}", delay_ps)

    def restore(self, span: str) -> None:
        """Splice the fibre; paths must be lit again."""
        if span in self._lost:
            self._lost.discard(span)
            self._alarm_later(span, lost=False)

    def _check(self, path: _Path) -> None:
        """Every span exists, carries light, and together they lead from one end of the link to the other."""
        odd: set[str] = set(self._modules.ends(path.link))
        for span in path.spans:
            if span not in self._spans:
                raise Refused("device.unknown_span", f"spans: unknown {span!r}, expected <site>--<site>")
            odd ^= set(self._spans[span].sites)
        if odd or len(set(path.spans)) != len(path.spans):
            reason = f"spans: {', '.join(path.spans) or 'none'} do not lead from end to end of {path.link}"
            raise Refused("device.broken_path", f"{reason}, expected a chain")
        if lost := sorted(self._lost.intersection(path.spans)):
            raise Busy("device.span_lost", f"spans: {', '.join(lost)} lost, expected spans with light")

    def _remove(self, path_id: str, reason: str) -> None:
        link = self._paths.pop(path_id).link
        del self._path_ids[link]
        self._modules.disconnect(link, reason)

    def _alarm_later(self, span: str, *, lost: bool) -> None:
        delay_ps = fibre.delay_ps(self._spans[span].length_km)
        self._timeline.at_ps(self._timeline.now_ps() + delay_ps, self._alarm, self._spans[span], lost)

    def _alarm(self, span: Span, lost: bool) -> None:
        reason = "loss of light" if lost else ""
        alarm = SpanAlarm(span=span.id, lost=lost, at_ns=self._timeline.now_ns(), reason=reason)
        for listener in list(self._listeners.values()):
            listener.span_alarm(alarm)
