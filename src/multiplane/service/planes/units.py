"""Inner doors of the Service Stratum for service units of any kind, and their messages. Version 1.

`UnitPeer` is what the agents of two sites say to one another: the name of a unit is built with it, and what
became of each state is agreed upon. `UnitBroker` is what an agent asks of its domain: admission, and orders
for what the fabric makes.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

from multiplane.api.states import TraceRow
from multiplane.api.units import Offer, Part
from multiplane.kernel.nouns import Caller, Noun

_RULE_RANGES: Final = {
    "max_parties": (2, 64),
    "max_parts": (1, 64),
    "max_size": (1, 65_536),
    "max_units": (1, 1_000_000),
    "max_valid_s": (0.001, 1e9),
    "lease_s": (0.01, 3600.0),
    "keep_s": (1.0, 1e7),
    "events": (16, 1_000_000),
    "rate_per_s": (1e-6, 1e9),
    "burst": (1, 1_000_000_000),
    "sacrifice_share": (0.0, 0.9),
    "slack_s": (0.0, 3600.0),
    "stock_idle_s": (1.0, 1e7),
    "max_stock": (0, 4096),
}


class UnitRules(Noun, frozen=True, kw_only=True):
    """What a domain offers for units, and where it stops.

    Args:
        max_parties, max_parts, max_size: of one wish; `max_size` states in one part.
        max_units: live units at one site.
        max_valid_s: longest life of a unit.
        lease_s: how long an end that said ready waits before it asks for the verdict, and asks again.
        keep_s: how long a closed unit is remembered, so that whoever comes late learns its verdicts.
        events: kept for each unit and end.
        rate_per_s, burst: token bucket of each pair of applications, in states.
        sacrifice_share: of the states with a floor, measured to estimate their fidelity.
        slack_s: between the verdict and the end of a state's life, left to the application.
        stock_idle_s: a stock that nobody draws on for so long is let go of.
        max_stock: states of one stock at most.

    Raises: ValueError outside of `_RULE_RANGES`.
    """

    max_parties: int = 16
    max_parts: int = 8
    max_size: int = 1024
    max_units: int = 2048
    max_valid_s: float = 86_400.0
    lease_s: float = 1.0
    keep_s: float = 600.0
    events: int = 4096
    rate_per_s: float = 1000.0
    burst: int = 4096
    sacrifice_share: float = 0.1
    slack_s: float = 0.05
    stock_idle_s: float = 300.0
    max_stock: int = 8

    def __post_init__(self) -> None:
        for name, (least, most) in _RULE_RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: expected {least:g} to {most:g}, got {getattr(self, name)}")


# --- the name of a unit, and the fate of its states ---------------------------------------------------------


class UnitProposal(Noun, frozen=True, kw_only=True):
    """A unit as its first party proposes it to the others.

    Args:
        proposal: id, 32 hexadecimal digits, minted by the proposer.
        endpoint: URN of the first party, with its nonce.
        parties: assigned names of all applications, in the order of the wish; sites: where each is.
        valid_until_ns: the same moment as in `lifecycle`, not rounded up to a second.
        boot: incarnation of the proposer, who decides on the states.
        delay_ns: one way, between the proposer and the site that is asked.
        stock: a standing stock of the two agents, for units to come.
    """

    proposal: str
    endpoint: str
    parties: tuple[str, ...]
    sites: tuple[str, ...]
    lifecycle: str
    parts: tuple[Part, ...]
    valid_until_ns: int
    boot: int
    consumption: str
    at_ns: int = 0
    rate_per_s: float = 0.0
    fidelity: float = 0.0
    delay_ns: int = 0
    stock: bool = False


class UnitEndpoints(Noun, frozen=True, kw_only=True):
    """Endpoints, each with a fresh nonce, of the parties at the site that was asked, in their order."""

    endpoints: tuple[str, ...]


class UnitCommit(Noun, frozen=True, kw_only=True):
    """All nonces are known: the whole name.

    Args: given: states from stock that are delivered with it.
    """

    proposal: str
    urns: tuple[str, ...]
    given: tuple[Decision, ...] = ()


class UnitDigest(Noun, frozen=True, kw_only=True):
    """What the site asked has worked out and made durable."""

    digest: str


class Decision(Noun, frozen=True, kw_only=True):
    """The verdict on one state.

    Args:
        state: its name, the same at all ends.
        index: which of its part's states it is, from 0; -1 when it is not delivered.
        source: digest of the stock that it is taken from; empty when it was made for this unit.
    """

    part: int
    state: str
    index: int
    source: str = ""

    @property
    def delivered(self) -> bool:
        """Whether all ends have it."""
        return self.index >= 0


class Claim(Noun, frozen=True, kw_only=True):
    """An end holds its part of a state, until `expires_ns`."""

    part: int
    state: str
    expires_ns: int


class Ready(Noun, frozen=True, kw_only=True):
    """An end's claims.

    Args:
        boot: of the decider, as the end knows it: words to an earlier one are void.
        incarnation: of the end: what an earlier one claimed is void, it may be lost.
    """

    unit: str
    boot: int
    incarnation: int
    claims: tuple[Claim, ...]
    gone: tuple[str, ...] = ()
    """States that it said ready for and holds no longer."""
    recall: bool = False
    """Tell all that was delivered: the end has read its state again."""


class Verdicts(Noun, frozen=True, kw_only=True):
    """The decider's word.

    Args:
        boot: of the decider; an end that said ready to an earlier one says it again.
        closed: no more states are delivered; why, in `state` and `reason`. In an answer, all states that
            were asked for are among `decisions` then.
    """

    unit: str
    boot: int
    decisions: tuple[Decision, ...] = ()
    recalled: bool = False
    """All that was ever delivered is among them."""
    closed: bool = False
    state: str = ""
    reason: str = ""


class UnitPeer(Protocol):
    """The door of a site's agent for the agents of other sites."""

    async def propose(self, caller: Caller, proposal: UnitProposal) -> UnitEndpoints:
        """Mint the endpoints of the parties there. Said twice it counts once.

        Raises: Refused(`north.unknown_application`, `north.not_allowed`, `unit.kind`, `unit.parties`),
        Busy(`unit.full`).
        """
        ...

    async def commit(self, caller: Caller, commit: UnitCommit) -> UnitDigest:
        """Make the unit durable there. Raises: Busy(`unit.not_proposed`), Faulty(`unit.name`)."""
        ...

    def ready(self, caller: Caller, ready: Ready) -> None:
        """To the decider: what an end holds, and what it holds no more."""
        ...

    async def ask(self, caller: Caller, ready: Ready) -> Verdicts:
        """The same, and the verdicts on those states so far. A unit that is not known was never decided
        upon: it is closed."""
        ...

    def verdicts(self, caller: Caller, verdicts: Verdicts) -> None:
        """From the decider. What it says was durable before."""
        ...

    def leave(self, caller: Caller, unit: str, reason: str) -> None:
        """To the decider: a party has let go, no state can be delivered any more."""
        ...


class UnitLinks(Protocol):
    """How an agent reaches the agent of another site: given by the assembly over Channels."""

    async def reach(self, site: str, delay_ns: int) -> UnitPeer:
        """Raises: Busy(`channel.unreachable`)."""
        ...

    def reached(self, site: str) -> UnitPeer | None:
        """The agent there, if a channel to it is open."""
        ...


# --- admission and orders -----------------------------------------------------------------------------------


class UnitCase(Noun, frozen=True, kw_only=True):
    """A wish that was found well-formed, as it comes before the broker.

    Args:
        see `api.units.Wish`; `valid_s` > 0 is how long it shall live, `fixed` whether the wish said so.
        stock: it is one, of the two agents.
        stocked: its states lie ready, with this quality.
    """

    parties: tuple[str, ...]
    sites: tuple[str, ...]
    parts: tuple[Part, ...]
    valid_s: float
    fixed: bool
    rate_per_s: float
    consumption: str
    at_ns: int = 0
    via: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    stock: bool = False
    stocked: Offer | None = None


class Admitted(Enum):
    """What the broker says to a case."""

    YES = "yes"
    LESS = "less"
    """Not this, but `offer` could be had."""
    NO = "no"


class Admission(Noun, frozen=True, kw_only=True):
    """The broker's answer.

    Args:
        offer: promised, or what could be had.
        delays_ns: one way, of the classical path from the first site to each site of the case.
    """

    answer: Admitted
    offer: Offer
    delays_ns: tuple[int, ...]
    code: str = ""
    reason: str = ""


class UnitOpening(Noun, frozen=True, kw_only=True):
    """Orders to place for one part of a unit whose name is committed.

    Args:
        unit: digest; part: place among its parts.
        round: 0 at first; higher ones make up for states that were lost on the way.
        number: states; 0 = until it is closed.
        until_ns: after it nothing is of use; hold_ns: how long each state shall last after delivery.
    """

    unit: str
    part: int
    round: int
    number: int
    until_ns: int
    hold_ns: int
    sites: tuple[str, ...]
    wish: Part
    consumption: str
    rate_per_s: float = 0.0
    via: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()


class UnitNews(Noun, frozen=True, kw_only=True):
    """What the fabric says of a unit's order, without what carries it.

    Args:
        order_id: of `order_id(opening)`; phase: value of `api.fabric_units.QuiPhase`.
        binding: rises when it is carried by something else.
    """

    order_id: str
    phase: str
    binding: int
    fidelity: float
    estimated_fidelity: float
    fidelity_error: float
    reason: str = ""


class UnitNewsListener(Protocol):
    def unit_news(self, news: UnitNews) -> None: ...

    def began_anew(self) -> None:
        """The broker knows no orders: those under way are to be opened again."""
        ...


class UnitBroker(Protocol):
    """The domain's door for the agents of its sites."""

    async def subscribe(self, caller: Caller, listener: UnitNewsListener) -> None:
        """Hear of the orders that this agent's site is an end of; again after a restart."""
        ...

    async def admit(self, caller: Caller, case: UnitCase) -> Admission:
        """Policy, buckets, what is attainable. Takes tokens when the answer is yes; reserves nothing.

        Raises: Refused(`north.not_allowed`, `unit.route`), Busy(`unit.over_rate`).
        """
        ...

    async def open(self, caller: Caller, opening: UnitOpening) -> UnitNews:
        """Order it. Idempotent. Raises: Refused(`unit.unattainable`), Busy(`unit.no_memory`)."""
        ...

    async def close(self, caller: Caller, unit: str, orders: tuple[str, ...]) -> None:
        """Withdraw the orders of a unit: those that the broker knows, and `orders`. Idempotent.

        Raises: Refused(`unit.site`).
        """
        ...

    async def trace(self, caller: Caller, order: str, state: str) -> tuple[TraceRow, ...]:
        """What went into a state."""
        ...


def order_id(unit: str, part: int, round_: int) -> str:
    """Id of an order: says whose it is."""
    return f"{unit}.{part}.{round_}"


def state_name(order: str, state: str) -> str:
    """Name of a state within its unit: the fabric's names are unique for one order only."""
    return f"{order.partition('.')[2]}:{state.removeprefix(order).removeprefix('/')}"


def stock_name(stock: str, state: str) -> str:
    """Name that a state of a stock has in the unit that it is handed over to."""
    return f"{stock[:16]}/{state}"


def unit_of(order: str) -> tuple[str, int]:
    """Unit and part that an order is for. Raises: ValueError when it is none of ours."""
    unit, part, _ = order.split(".")
    return unit, int(part)
