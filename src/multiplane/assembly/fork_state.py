"""The state of a running network at one moment, and a study that begins in it.

What counts is taken over: the world, what each link shows, the key each link holds for each way, and every
stock of keys between two sites. Nothing of it is secret: the study makes key of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from contextlib import suppress
from math import inf
from typing import Final

import msgspec

from multiplane.api.device import LinkState
from multiplane.api.operator import CUT, LinkReport, NetworkMoment, StockFlight
from multiplane.assembly.study import Study
from multiplane.kernel.errors import MultiplaneError
from multiplane.kernel.names import element_urn, link_id
from multiplane.kernel.nouns import Noun, ends
from multiplane.kernel.ports import Change
from multiplane.kernel.quantity import BIT_PER_BYTE
from multiplane.service.kme.near import NearStock
from multiplane.service.kme.ports import sealer_of
from multiplane.service.planes import KeyRules, PairPhase
from multiplane.service.resource.blocks import BLOCK_BIT, BLOCK_BYTE
from multiplane.service.resource.inbound import InboundPool
from multiplane.service.resource.outbound import OutboundPool
from multiplane.twin.calibration import LinkTwin, Reading, calibrated
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.scenario import World, parse

LONGEST_START_S: Final = 60
_LOOK_S: Final = 1.0
_GREETED_WITHIN_S: Final = 2.0
_GREETING_LOOK_S: Final = 0.001
_SECRET_BYTE: Final = 32
_EPOCH: Final = 1


class StockNow(Noun, frozen=True, kw_only=True):
    """One stock from the key manager at `owner` to that at `peer`.

    Args:
        use_bit_per_s: key given out lately.
        flight: how it is being filled; None = as a stock that nobody has filled yet.
    """

    owner: str
    peer: str
    stock_bit: int
    use_bit_per_s: float = 0.0
    flight: StockFlight | None = None


class Moment(Noun, frozen=True, kw_only=True):
    """A network as its operator sees it at Unix time `at_ns` of its own.

    Args:
        scenario: the world as it was told at the start.
        stocks: those between two sites; what applications of one site share costs no link.
        rate: simulated seconds per wall second; 1 while its time stands still or is virtual.
    """

    scenario: str
    at_ns: int
    stocks: tuple[StockNow, ...]
    links: tuple[LinkReport, ...]
    rate: float = 1.0


def moment_of(told: NetworkMoment) -> Moment:
    """What the operator's door says of now."""
    report = told.report
    flights = {(flight.owner, flight.peer): flight for flight in told.flights}
    uses = {(outlook.owner, outlook.peer): outlook.use_bit_per_s for outlook in report.outlooks}
    stocks = [
        StockNow(
            owner=kme.name,
            peer=ledger.peer,
            stock_bit=ledger.stock_bit,
            use_bit_per_s=uses.get((kme.name, ledger.peer), 0.0),
            flight=flights.get((kme.name, ledger.peer)),
        )
        for kme in report.kmes
        for ledger in kme.ledgers
        if ledger.side == "near" and ledger.peer != kme.name
    ]
    return Moment(
        scenario=told.scenario,
        at_ns=report.at_ns,
        stocks=tuple(stocks),
        links=report.links,
        rate=report.rate if 0.0 < report.rate < inf else 1.0,
    )


def world_of(moment: Moment, policies: Policies = POLICIES) -> World:
    """The world of a moment, its links with the loss (or the rate) that they show while they are up.

    What the scenario lets happen is left out: what has happened shows, what is to come is the question.
    """
    world = parse(moment.scenario, "the running network", policies=policies)
    twins = {span.id: LinkTwin(span) for span in world.spans}
    for link in moment.links:
        reading = Reading(at_ns=moment.at_ns, rate_bit_per_s=link.rate_bit_per_s, qber=link.qber)
        if not link.source:  # fed by another network: what it shows says nothing of its loss
            twins[link_id(link.a, link.b)].note(reading)
    spans = calibrated(world, twins).spans
    return World(name=world.name, domain=world.domain, sites=world.sites, spans=spans)


def rules_of(moment: Moment) -> KeyRules:
    """Those of the network, where a request waits for stock by the client's clock, not by the network's."""
    rules = KeyRules()
    return msgspec.structs.replace(rules, cold_wait_s=rules.cold_wait_s * moment.rate)


async def begin(study: Study, moment: Moment) -> None:
    """Bring a fresh study of `world_of(moment)` into the state of the moment; returns when it has begun.

    Ways lead around broken links. These work when it returns, since the two sides of a stock agree over them:
    `break_links` comes when each stock has been used.
    """
    up = [link for link in moment.links if link.state == LinkState.UP.value]
    for link in up:
        head_start_bit = 2 * max(link.stock_ab_bit, link.stock_ba_bit)
        study.centre.twin.qkd.head_start(link_id(link.a, link.b), head_start_bit)
    broken = [ends(link.a, link.b) for link in moment.links if link.state in (LinkState.FAULTED.value, CUT)]
    for link_ends in broken:
        await study.scenario.cut(study.centre.caller, link_ends)
    await _ready(study, {link_id(link.a, link.b) for link in up}, moment.stocks)
    for link_ends in broken:
        await study.scenario.restore(study.centre.caller, link_ends)
    await _ready(study, {link_id(link.a, link.b) for link in up}, moment.stocks)
    for link in up:
        _level(study, link)
    for stock in moment.stocks:
        await _place(study, stock)
    nears = [(study.sites[stock.owner].kme.near(stock.peer), stock) for stock in moment.stocks]
    for near, stock in nears:
        if stock.flight is not None:
            near.filling.rest()
        near.wake()
    await _serving([near for near, _ in nears])
    for near, stock in nears:
        if stock.flight is not None:
            await near.filling.resume(near.pool, stock.flight)
            near.wake()


async def break_links(study: Study, moment: Moment) -> None:
    """Break what was broken at the moment, in a study whose stocks and units are agreed."""
    for link in moment.links:
        if link.state == CUT:
            await study.scenario.cut(study.centre.caller, ends(link.a, link.b))
        elif link.state == LinkState.FAULTED.value:
            await study.scenario.fail_device(study.centre.caller, ends(link.a, link.b), link.a)


async def _ready(study: Study, links: Set[str], stocks: Sequence[StockNow]) -> None:
    """Wait until these links are up and all pairs can be carried between, or for as long as that may take."""
    await asyncio.gather(*(_opened(study, stock) for stock in stocks))
    for _ in range(LONGEST_START_S):
        reports = study.centre.fabric.links()
        if links <= {link_id(link.a, link.b) for link in reports if link.state == LinkState.UP.value}:
            return
        await asyncio.sleep(_LOOK_S)


async def _opened(study: Study, stock: StockNow) -> None:
    """Open the pair of a stock, without beginning the stock; one that cannot be opened stays as it is."""
    for _ in range(LONGEST_START_S):
        with suppress(MultiplaneError):
            state = await study.centre.control.open_pair(study.sites[stock.owner].caller, stock.peer)
            if state.phase is not PairPhase.OPENING:
                return
        await asyncio.sleep(_LOOK_S)


async def _serving(nears: Sequence[NearStock]) -> None:
    """Wait until both sides of each stock have agreed: a request before then fills it to the high mark."""
    stop_s = asyncio.get_running_loop().time() + _GREETED_WITHIN_S
    while asyncio.get_running_loop().time() < stop_s:
        if all(near.serving for near in nears):
            return
        await asyncio.sleep(_GREETING_LOOK_S)


def _level(study: Study, link: LinkReport) -> None:
    """Leave each way of a link with the key that it held."""
    name, ab_byte, ba_byte = (
        link_id(link.a, link.b),
        link.stock_ab_bit // BIT_PER_BYTE,
        link.stock_ba_bit // BIT_PER_BYTE,
    )
    with suppress(KeyError):  # the copy goes without this link
        study.sites[link.a].agent.burn_down(name, ab_byte, ba_byte)
        study.sites[link.b].agent.burn_down(name, ba_byte, ab_byte)


async def _place(study: Study, stock: StockNow) -> None:
    """Put whole blocks in both stores, in the form in which the two key managers keep them."""
    domain, count = study.world.domain, stock.stock_bit // BLOCK_BIT + 1
    owner, peer = study.sites[stock.owner].parts, study.sites[stock.peer].parts
    secret = owner.entropy.take(_SECRET_BYTE)
    near_urn, far_urn = element_urn(domain, stock.owner), element_urn(domain, stock.peer)
    near_sealer = sealer_of(near_urn, owner.vault, owner.entropy)
    far_sealer = sealer_of(far_urn, peer.vault, peer.entropy)
    near = OutboundPool(stock.owner, stock.peer, _EPOCH, secret, near_sealer)
    far = InboundPool(stock.peer, stock.owner, _EPOCH, secret, far_sealer)
    near.known = True
    near_rows: list[Change] = [near.row()]
    far_rows: list[Change] = [far.row()]
    for _ in range(count):
        block = owner.entropy.take(BLOCK_BYTE)
        sequence = near.send(block, study.clock.now_ns(), 0)
        near_rows += near.stored(sequence)
        far_rows += far.accept(sequence, block) or ()
    await study.store.commit(far_urn, far_rows)
    await study.store.commit(near_urn, near_rows)


def surplus_bit(stock: StockNow) -> int:
    """What the last of the blocks placed holds beyond the stock, > 0: to be given out at the beginning."""
    return BLOCK_BIT - stock.stock_bit % BLOCK_BIT
