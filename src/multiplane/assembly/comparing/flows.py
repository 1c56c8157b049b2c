"""Requests for pairs on the twin's engine, served in one of sixteen ways.

Devices, chance, decay and swaps are the twin's. Control is a model: messages take the delays of their links
and are counted end to end; what heralds say is not counted.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

from multiplane.api.instructions import Discard, Generate, Report, Swap
from multiplane.api.policy import PairLink, RouteAsk
from multiplane.assembly.comparing.ways import Way
from multiplane.fabric.control.ways import Ground, hops_cost, seconds_cost
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id
from multiplane.kernel.ports import Timeline
from multiplane.kernel.quantity import PS_PER_S
from multiplane.twin.quantum.engine import Quantum

MANY: Final = 10**9


class Ask(NamedTuple):
    """Somebody at `a` wishes for a pair with `b` at `at_ps`."""

    a: str
    b: str
    at_ps: int


class Served(NamedTuple):
    """A request that was: how long it waited, and the fidelity of its pair when both ends knew."""

    wait_s: float
    fidelity: float


class Eye(Protocol):
    """Knows true states."""

    def fidelity(self, node: str, handle: int) -> float: ...


class _Pair:
    """A pair of one link. `halves`: handle by site, of those that have heard; `flow`: whose it is."""

    def __init__(self, link: str) -> None:
        self.link = link
        self.halves: dict[str, int] = {}
        self.flow: _Flow | None = None
        self.lost = False


class _Flow:
    """A request that is served. `pairs`: by link of the route; `at`: place of its token (connectionless)."""

    def __init__(self, ask: Ask, route: tuple[str, ...]) -> None:
        self.ask, self.route = ask, route
        self.pairs: dict[str, _Pair] = {}
        self.swapped: set[str] = set()
        self.at = 0
        self.waiting: set[str] = set()
        self.ended = False

    @property
    def links(self) -> tuple[str, ...]:
        """Along the route."""
        return tuple(link_id(a, b) for a, b in pairwise(self.route))


class Flows:
    """Serves requests. Attributes: served; messages: sent for control; ended: of requests."""

    def __init__(self, quantum: Quantum, timeline: Timeline, eye: Eye, ground: Ground, way: Way) -> None:
        self._quantum, self._timeline, self._eye, self._ground, self._way = (
            quantum,
            timeline,
            eye,
            ground,
            way,
        )
        self.served: list[Served] = []
        self.messages = 0
        self.ended = 0
        self._pairs: dict[tuple[str, int], _Pair] = {}
        self._stock: dict[str, deque[_Pair]] = {link: deque() for link in quantum.links}
        self._takers: dict[str, list[_Flow]] = {link: [] for link in quantum.links}
        self._reserved: Counter[str] = Counter()
        self._queue: deque[_Flow] = deque()
        self._live: dict[_Flow, None] = {}
        self._requests = 0
        self._edges = False
        means_ps = [hop.mean_s * PS_PER_S for hops in ground.hops.values() for hop in hops.values()]
        self._slot_ps = round(sorted(means_ps)[len(means_ps) // 2])
        self._centre = min(ground.sites(), key=lambda site: max(self._far_ps(site).values()))

    def start(self, asks: Sequence[Ask], patience_ps: int) -> None:
        """Listen to all nodes; requests come at their times and give up after `patience_ps`."""
        for site in self._quantum.nodes:
            self._quantum.listen(site, self)
        if self._way.proactive:
            for link, made in self._quantum.links.items():
                self._generate(made.facts.sites[0], link, 0)
        for ask in asks:
            self._timeline.at_ps(ask.at_ps, self._asked, ask, patience_ps)
        if self._way.synchronous:
            self._timeline.at_ps(self._slot_ps, self._edge, self._slot_ps)

    # requests

    def _asked(self, ask: Ask, patience_ps: int) -> None:
        way = self._way

        def free(link: PairLink) -> int:
            left = min(link.memories) - self._reserved[link.link]
            return left if way.connected and way.central else MANY

        cost = seconds_cost if way.central else hops_cost
        wanted = RouteAsk(ask.a, ask.b, free)
        routes = self._ground.cheapest(cost, wanted)
        route = next(iter(routes), ()) or next(iter(self._ground.cheapest(cost, wanted._replace(free=_any))))
        flow = _Flow(ask, route)
        self._live[flow] = None
        self._timeline.at_ps(ask.at_ps + patience_ps, self._give_up, flow)
        if way.connected:
            self._queue.append(flow)
            self._admit()
        else:
            delay_ps = 0
            if way.central:
                self.messages += 2
                delay_ps = 2 * self._far_ps(self._centre)[ask.a]
            self._timeline.at_ps(self._now_ps + delay_ps, self._begin, flow)

    def _admit(self) -> None:
        """Those for whom all of their route is free, in turn, have it reserved."""
        for flow in list(self._queue):
            room = {link: self._quantum.links[link].facts.memories for link in flow.links}
            if all(self._reserved[link] < room[link] for link in flow.links):
                self._queue.remove(flow)
                self._reserved.update(flow.links)
                self._timeline.at_ps(self._now_ps + self._set_up(flow), self._begin, flow)

    def _set_up(self, flow: _Flow) -> int:
        """Messages that tell the sites of a route, and how long they take."""
        if not self._way.central:
            self.messages += 2 * (len(flow.route) - 1)
            return self._length_ps(flow.route)
        far_ps = self._far_ps(self._centre)
        self.messages += 1 + 2 * len(flow.route)
        return far_ps[flow.ask.a] + max(far_ps[site] for site in flow.route)

    def _begin(self, flow: _Flow) -> None:
        if not flow.ended:
            for link in flow.links if self._way.connected else flow.links[:1]:
                self._want(flow, link)

    def _give_up(self, flow: _Flow) -> None:
        if not flow.ended:
            self._end(flow)

    def _end(self, flow: _Flow) -> None:
        flow.ended = True
        self.ended += 1
        del self._live[flow]
        if flow in self._queue:
            self._queue.remove(flow)
        elif self._way.connected:
            self._reserved.subtract(flow.links)
        self._let_go(flow)
        self._admit()

    # pairs

    def _want(self, flow: _Flow, link: str) -> None:
        """The next pair of a link is this flow's; the oldest goes first, or two that want one another's links
        would give way to one another for ever."""
        if self._stock[link]:
            self._give(flow, self._stock[link].popleft())
            return
        flow.waiting.add(link)
        insort(self._takers[link], flow, key=_age)
        if not self._way.proactive:
            self._generate(self._quantum.links[link].facts.sites[0], link, 1)

    def _generate(self, site: str, link: str, pairs: int) -> None:
        self._requests += 1
        asked = Generate(request=f"flow-{self._requests}", link=link, pairs=pairs, corrected=True)
        self._quantum.perform(site, asked)

    def report(self, report: Report) -> None:
        """A node hears of a half, or that it was thrown away."""
        if not report.number or not report.handles:
            if report.handles:
                self._thrown(report.node, report.handles[0])
            return
        key = report.link, report.number
        if not report.ok:
            self._thrown(report.node, report.handles[0])
            return
        pair = self._pairs.setdefault(key, _Pair(report.link))
        if pair.lost:
            del self._pairs[key]
            self._discard(report.node, report.handles[0])
            return
        pair.halves[report.node] = report.handles[0]
        if len(pair.halves) == 2:
            del self._pairs[key]
            self._known(pair)

    def _known(self, pair: _Pair) -> None:
        takers = self._takers[pair.link]
        if takers:
            self._give(takers.pop(0), pair)
        elif self._way.proactive:
            self._stock[pair.link].append(pair)
        else:
            self._drop(pair)

    def _give(self, flow: _Flow, pair: _Pair) -> None:
        flow.waiting.discard(pair.link)
        flow.pairs[pair.link] = pair
        pair.flow = flow
        if not self._way.synchronous or self._edges:
            self._go_on(flow)

    def _thrown(self, site: str, handle: int) -> None:
        """A half is lost: what it was part of begins anew."""
        for key, pair in list(self._pairs.items()):
            if pair.halves.get(site) == handle:
                pair.lost, self._pairs[key] = True, pair
                del pair.halves[site]
                return
        for stock in self._stock.values():
            for pair in [pair for pair in stock if pair.halves.get(site) == handle]:
                stock.remove(pair)
                self._drop(pair)
                return
        for flow in list(self._live):
            if any(pair.halves.get(site) == handle for pair in flow.pairs.values()):
                self._again(flow)
                return

    def _again(self, flow: _Flow) -> None:
        self._let_go(flow)
        flow.at = 0
        self._begin(flow)

    def _let_go(self, flow: _Flow) -> None:
        """Everything that a flow holds or waits for."""
        for link in flow.waiting:
            self._takers[link].remove(flow)
        for pair in flow.pairs.values():
            self._drop(pair)
        flow.waiting.clear()
        flow.pairs.clear()
        flow.swapped.clear()

    def _drop(self, pair: _Pair) -> None:
        for site, handle in pair.halves.items():
            self._discard(site, handle)
        pair.halves.clear()

    def _discard(self, site: str, handle: int) -> None:
        with suppress(Refused):  # gone already
            self._quantum.perform(site, Discard(request="", handle=handle))

    # swaps

    def _edge(self, now_ps: int) -> None:
        """The edge of a slot: what is there is swapped, and what reactive links made is thrown away."""
        self._edges = True
        for flow in list(self._live):
            self.messages += 2 * len(flow.pairs)
            self._go_on(flow)
        self._edges = False
        if not self._way.proactive and self._way.connected:
            for flow in [flow for flow in self._live if flow.pairs and flow.waiting]:
                self._again(flow)
        self._timeline.at_ps(now_ps + self._slot_ps, self._edge, now_ps + self._slot_ps)

    def _go_on(self, flow: _Flow) -> None:
        """Swap wherever pairs are there on both sides; move the token on; tell both ends at last."""
        if self._way.connected and self._way.synchronous and len(flow.pairs) < len(flow.links):
            return
        for before, site, after in zip(flow.route, flow.route[1:], flow.route[2:], strict=False):
            near, far = flow.pairs.get(link_id(before, site)), flow.pairs.get(link_id(site, after))
            if near is None or far is None or site in flow.swapped:
                continue
            asked = Swap(request="", left=near.halves.pop(site), right=far.halves.pop(site), corrected=True)
            report = self._quantum.perform(site, asked)
            self.messages += 2
            if report is None or not report.ok:
                self._again(flow)
                return
            flow.swapped.add(site)
        if len(flow.pairs) == len(flow.links):
            inner = len(flow.links) > 1
            self._timeline.at_ps(
                self._now_ps + (self._length_ps(flow.route) if inner else 0),
                self._deliver,
                flow,
                len(flow.swapped),
            )
        elif not self._way.connected and len(flow.pairs) == flow.at + 1:
            flow.at += 1
            self.messages += 1
            due_ps = self._now_ps + self._length_ps(flow.route[flow.at - 1 : flow.at + 1])
            self._timeline.at_ps(due_ps, self._step, flow, flow.at)

    def _step(self, flow: _Flow, at: int) -> None:
        """The token has come to the next site of its route."""
        if not flow.ended and flow.at == at and flow.links[at] not in flow.waiting:
            self._want(flow, flow.links[at])

    def _deliver(self, flow: _Flow, swaps: int) -> None:
        if flow.ended or len(flow.pairs) < len(flow.links) or len(flow.swapped) != swaps:
            return
        half = flow.pairs[flow.links[0]].halves.get(flow.ask.a)
        if half is None:
            return
        wait_s = (self._now_ps - flow.ask.at_ps) / PS_PER_S
        self.served.append(Served(wait_s, self._eye.fidelity(flow.ask.a, half)))
        self._end(flow)

    # distances

    @property
    def _now_ps(self) -> int:
        return self._timeline.base_ps()

    def _length_ps(self, route: Sequence[str]) -> int:
        return round(sum(self._ground.hops[a][b].delay_s for a, b in pairwise(route)) * PS_PER_S)

    def _far_ps(self, site: str) -> dict[str, int]:
        """One-way delay to each other site."""
        table = self._ground.table(_delay_cost, site).left
        return {other: round(delay_s * PS_PER_S) for other, delay_s in table.items()}


def _age(flow: _Flow) -> int:
    return flow.ask.at_ps


def _delay_cost(link: PairLink) -> float:
    return link.delay_s


def _any(link: PairLink) -> int:  # noqa: ARG001
    return MANY
