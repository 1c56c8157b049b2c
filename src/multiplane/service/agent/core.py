"""What the parts of an agent share: units that live here, their addresses, rows, the other agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from multiplane.kernel.errors import Faulty, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Change
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.unit import UnitId, endpoint_urn, mint_nonce, unit_id
from multiplane.service.agent.live import ENDED, Live
from multiplane.service.agent.ports import AgentPorts
from multiplane.service.control import Target
from multiplane.service.control.admission import Ground
from multiplane.service.planes.units import UnitPeer, UnitProposal
from multiplane.service.resource.addresses import AddressBook, Fate
from multiplane.service.resource.verdicts import Terms

COMMIT_S: Final = 5.0
_log: Final = structlog.get_logger("multiplane.service.agent")


class Core:
    """Units and addresses of one site."""

    def __init__(self, ports: AgentPorts) -> None:
        self.ports = ports
        self.units: dict[str, Live] = {}
        self.book = AddressBook()
        self.closing = False

    @property
    def now_ns(self) -> int:
        """Unix time, as the network lives it."""
        return self.ports.timeline.now_ns()

    @property
    def ground(self) -> Ground:
        """What wishes are judged by now."""
        return self.ports.ground

    @property
    def full(self) -> bool:
        """Whether as many units live here as may. Those that are over are remembered, and do not count."""
        most = self.ports.rules.max_units
        return (
            len(self.units) >= most and sum(live.state not in ENDED for live in self.units.values()) >= most
        )

    def of(self, caller: Caller, unit: str) -> Live:
        """A unit that the caller is an end of. Raises: Refused(`unit.unknown`)."""
        live = self.units.get(unit)
        if live is None or caller.principal not in live.mine:
            raise Refused("unit.unknown", f"unit {unit[:80]!r}: expected one that the caller is an end of")
        return live

    def application(self, caller: Caller) -> Target:
        """The caller as the register knows it. Raises: Refused(`north.not_allowed`)."""
        try:
            target = self.ports.directory().application(caller.principal)
        except Refused:
            reason = f"client certificate: {caller.principal[:200]} is no application: use an application's"
            raise Refused("north.not_allowed", reason) from None
        if target.kme.site != self.ports.site:
            alias = target.application.alias
            raise Refused(
                "north.not_allowed", f"application {alias}: expected at {target.kme.site}, not here"
            )
        return target

    def endpoints(self, proposal: UnitProposal) -> tuple[str, ...]:
        """Fresh endpoints of the parties here, in their order."""
        return tuple(
            endpoint_urn(party, mint_nonce(self.ports.entropy.take(12)))
            for party, site in zip(proposal.parties, proposal.sites, strict=True)
            if site == self.ports.site
        )

    # --- rows, timers, memories ----------------------------------------------------------------------------

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make rows durable. Raises: Faulty(`store.commit_failed`, `store.late`)."""
        try:
            async with asyncio.timeout(COMMIT_S):
                await self.ports.store.commit(self.ports.owner, changes)
        except TimeoutError:
            raise Faulty("store.late", f"the store did not answer within {COMMIT_S:g} s") from None

    def commit_soon(self, changes: Sequence[Change]) -> None:
        """Make rows durable that nothing waits for: what they say is known elsewhere, or worked out again."""

        async def later() -> None:
            with suppress(MultiplaneError):
                await self.commit(changes)

        if changes:
            self.ports.spawn(later())

    def at(self, due_ns: int, do: Callable[[str], None], unit: str) -> None:
        """Do something for a unit at a time, now if that is past, unless this agent has closed by then."""

        def timed() -> None:
            if not self.closing:
                do(unit)

        self.ports.timeline.at_ns(max(due_ns, self.now_ns), timed)

    async def pause(self, pause_ns: int) -> None:
        """Wait in the network's time."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ports.timeline.at_ns(
            self.now_ns + pause_ns, lambda: None if over.done() else over.set_result(None)
        )
        await over

    def free(self, addresses: Sequence[str]) -> None:
        """Let the fabric have its memories back."""
        states = self.ports.states
        if not addresses or states is None:
            return

        async def discard() -> None:
            with suppress(MultiplaneError):
                await states.discard(self.ports.caller, tuple(addresses))

        self.ports.spawn(discard())

    def end_all(self, live: Live, fate: Fate) -> None:
        """All that a unit holds here comes to its end."""
        self.free(self.book.end_all(live.digest, fate))

    # --- other agents --------------------------------------------------------------------------------------

    def notify(self, site: str, delay_ns: int, tell: Callable[[UnitPeer], None]) -> None:
        """Tell another agent something that it asks for if it does not hear it."""
        peer = self.ports.links.reached(site)
        if peer is not None:
            with suppress(MultiplaneError):
                tell(peer)
            return

        async def reach() -> None:
            with suppress(MultiplaneError):
                tell(await self.ports.links.reach(site, delay_ns))

        self.ports.spawn(reach())


def remote_sites(proposal: UnitProposal, here: str) -> tuple[str, ...]:
    """The other sites of a unit, each once."""
    return tuple(site for site in dict.fromkeys(proposal.sites) if site != here)


def terms_of(proposal: UnitProposal, digest: str, slack_s: float) -> Terms:
    """What a decider works by."""
    endless = bool(proposal.rate_per_s) or proposal.stock
    return Terms(
        unit=digest,
        ends=tuple(dict.fromkeys(proposal.sites)),
        sizes=tuple(0 if endless else part.size for part in proposal.parts),
        whole=len(proposal.parts) > 1,
        until_ns=min(proposal.valid_until_ns, proposal.at_ns or proposal.valid_until_ns),
        slack_ns=round(slack_s * NS_PER_S) if proposal.consumption != "tolerant" else 0,
        outlive_ns=proposal.at_ns,
    )


def name_of(proposal: UnitProposal, urns: Sequence[str]) -> UnitId:
    """The unit under a whole name, when it is the one that was proposed.

    Raises: Faulty(`unit.name`).
    """
    try:
        name = unit_id(urns)
        if sorted(name.assigned) != sorted(proposal.parties):
            raise ValueError(f"endpoints: expected those of {', '.join(proposal.parties)}")
        if name.lifecycle != proposal.lifecycle or proposal.endpoint not in name.endpoints:
            raise ValueError("expected the lifecycle and the first endpoint as they were proposed")
    except ValueError as error:
        raise Faulty("unit.name", str(error)) from error
    return name
