"""The operator's desk: one look at the whole network, whichever layout it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from multiplane.api.operator import DoorMessage, KmeReport, LinkReport, NetworkReport, UnitRecord
from multiplane.assembly.centre import Centre
from multiplane.kernel.errors import Busy, Faulty, MultiplaneError, Refused, Unknown
from multiplane.kernel.names import link_id
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Clock
from multiplane.service.planes import KmeControl

DARK: Final = LinkReport(
    a="",
    b="",
    state="dark",
    rate_bit_per_s=0.0,
    qber=0.0,
    stock_bit=0,
    discarded_bit=0,
    length_km=0.0,
    loss_db=0.0,
)
"""A link that the fabric knows nothing of."""


class OperatorDesk:
    """Implements `api.operator.Operator`.

    Args:
        kmes: the key managers that can be asked now, by site.
        secret: whether keys are secret (False: they come from a seed).
        stop: shuts the network down.
    """

    def __init__(
        self,
        centre: Centre,
        clock: Clock,
        kmes: Callable[[], Mapping[str, KmeControl]],
        *,
        secret: bool,
        stop: Callable[[], None],
    ) -> None:
        self._centre, self._clock, self._kmes = centre, clock, kmes
        self._secret, self._stop = secret, stop

    async def report(self, caller: Caller) -> NetworkReport:
        """Everything at once; key managers that do not answer are missing."""
        del caller
        reports = await asyncio.gather(*(self._report_of(kme) for _, kme in sorted(self._kmes().items())))
        world = self._centre.world
        known = {link_id(link.a, link.b): link for link in self._centre.fabric.links()}
        links = []
        for span in world.spans:
            a, b = span.sites
            link = known.get(span.id, DARK)
            links.append(
                msgspec.structs.replace(link, a=a, b=b, length_km=span.length_km, loss_db=span.loss_db)
            )
        return NetworkReport(
            domain=world.domain,
            scenario=world.name,
            at_ns=self._clock.now_ns(),
            rate=self._clock.rate,
            secret=self._secret,
            table_version=self._centre.fabric.table_version,
            kmes=tuple(report for report in reports if report is not None),
            links=tuple(links),
        )

    async def _report_of(self, kme: KmeControl) -> KmeReport | None:
        try:
            return await kme.report(self._centre.caller)
        except MultiplaneError:
            return None

    async def unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        """Ask every key manager for a unit; those that do not answer are missing."""
        del caller
        found: list[UnitRecord] = []
        for _, kme in sorted(self._kmes().items()):
            with suppress(Busy, Faulty, Unknown):
                found += await kme.find_unit(self._centre.caller, name)
        if not found:
            raise Refused(
                "unit.not_found",
                f"{name[:200]!r}: expected a key id, a unit digest or an endpoint URN of this network",
            )
        return tuple(found)

    async def messages(self, caller: Caller, after_seq: int) -> tuple[DoorMessage, ...]:
        """Calls between strata since `after_seq`."""
        del caller
        return self._centre.messages.after(after_seq)

    async def stop(self, caller: Caller) -> None:
        """Shut down cleanly."""
        del caller
        self._stop()
