"""The optical layer of the world: spans, the quantum paths switched over them, cuts and alarms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from multiplane.api.device import OpticalListener, SpanAlarm, SpanReading
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Timeline
from multiplane.kernel.quantity import PS_PER_NS
from multiplane.physics import fibre
from multiplane.physics.tampered_bb84 import Tampering, together
from multiplane.twin.modules import Modules, ignored
from multiplane.twin.scenario import Span, World

CUT: Final = "cut"
"""The cause of a loss of light by the hand of the operator."""


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
        self._lost: defaultdict[str, set[str]] = defaultdict(set)  # causes, by span
        self._done: defaultdict[str, dict[str, Tampering]] = defaultdict(dict)  # by span and cause
        self._paths: dict[str, _Path] = {}
        self._path_ids: dict[str, str] = {}  # by link
        self._listeners: dict[str, OpticalListener] = {}
        self.on_change: Callable[[str], None] = ignored
        """Told of each span whose light is not what it was."""

    async def attach(self, caller: Caller, listener: OpticalListener) -> tuple[SpanReading, ...]:
        self._listeners[caller.principal] = listener
        return tuple(self._reading(span) for span in self._spans)

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
        self._modules.connect(link, *self._light(path))

    async def darken(self, caller: Caller, path_id: str) -> None:  # noqa: ARG002
        if path_id in self._paths:
            self._remove(path_id, "path disconnected")

    def is_lost(self, span: str) -> bool:
        """Whether no light passes."""
        return bool(self._lost.get(span))

    def loss_db(self, span: str) -> float:
        """What the fibre loses from end to end, with all that is done to it."""
        return self._spans[span].loss_db + sum(done.loss_db for done in self._done.get(span, {}).values())

    def done(self, span: str) -> Tampering:
        """All that is done to its light."""
        return together(self._done.get(span, {}).values())

    def causes(self, span: str) -> tuple[str, ...]:
        """Why the span is not as the scenario says, in order of name."""
        return tuple(sorted({*self._lost.get(span, ()), *self._done.get(span, ())}))

    def set_loss(self, span: str, loss_db: float) -> None:
        """The fibre itself loses `loss_db` from now on; what is done to it comes on top."""
        self._spans[span] = msgspec.structs.replace(self._spans[span], loss_db=loss_db)
        self._changed(span)

    def do(self, span: str, cause: str, done: Tampering | None) -> None:
        """Do something to the light of a span for `cause`, in place of what it did before; None = nothing."""
        if done is None:
            if cause not in self._done.get(span, {}):
                return
            del self._done[span][cause]
        else:
            self._done[span][cause] = done
        self._changed(span)

    def cut(self, span: str, cause: str = CUT) -> None:
        """No light passes, for one more cause: its paths are gone at once, alarms come as fast as light."""
        dark = self.is_lost(span)
        self._lost[span].add(cause)
        if dark:
            return
        self.on_change(span)
        self._alarm_later(span, lost=True)
        for path_id, path in list(self._paths.items()):
            if span in path.spans:
                del self._paths[path_id], self._path_ids[path.link]
                delay_ps = fibre.delay_ps(sum(self._spans[part].length_km for part in path.spans))
                self._modules.fail(path.link, f"light lost on span {span}", delay_ps)

    def restore(self, span: str, cause: str = CUT) -> None:
        """That cause is gone; when it was the last, light passes, and paths must be lit again."""
        if cause in self._lost.get(span, ()):
            self._lost[span].discard(cause)
            if not self.is_lost(span):
                self.on_change(span)
                self._alarm_later(span, lost=False)

    def _light(self, path: _Path) -> tuple[float, Tampering]:
        """The loss of the fibres of a path, and what is done to its light."""
        loss_db = sum(self._spans[span].loss_db for span in path.spans)
        return loss_db, together(done for span in path.spans for done in self._done.get(span, {}).values())

    def _changed(self, span: str) -> None:
        """Paths over the span get other light from now on, and the optical layer measures it anew."""
        self.on_change(span)
        for path in self._paths.values():
            if span in path.spans:
                self._modules.change(path.link, *self._light(path))
        for listener in self._listeners.values():
            self._timeline.at_ps(self._timeline.base_ps(), listener.span_reading, self._reading(span))

    def _reading(self, span: str) -> SpanReading:
        loss_db = self.loss_db(span)
        return SpanReading(
            span=span, length_km=self._spans[span].length_km, loss_db=loss_db, lost=self.is_lost(span)
        )

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
        if lost := sorted(span for span in path.spans if self.is_lost(span)):
            raise Busy("device.span_lost", f"spans: {', '.join(lost)} lost, expected spans with light")

    def _remove(self, path_id: str, reason: str) -> None:
        link = self._paths.pop(path_id).link
        del self._path_ids[link]
        self._modules.disconnect(link, reason)

    def _alarm_later(self, span: str, *, lost: bool) -> None:
        delay_ps = fibre.delay_ps(self._spans[span].length_km)
        self._timeline.at_ps(self._timeline.base_ps() + delay_ps, self._alarm, self._spans[span], lost)

    def _alarm(self, span: Span, lost: bool) -> None:
        reason = "loss of light" if lost else ""
        at_ns = self._timeline.epoch_ns + self._timeline.base_ps() // PS_PER_NS
        alarm = SpanAlarm(span=span.id, lost=lost, at_ns=at_ns, reason=reason)
        for listener in list(self._listeners.values()):
            listener.span_alarm(alarm)
