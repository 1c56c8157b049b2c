"""The operations listener of a network: metrics and probes over mutual TLS, for the operator alone."""

from __future__ import annotations

from typing import Final

from multiplane.api.operator import Operator
from multiplane.assembly.layout import Ground, trust_of, wall_ns
from multiplane.assembly.ready import ReadyOperations
from multiplane.assembly.site import HOST, identify
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import controller_urn, operator_urn
from multiplane.runtime.faults import NoFaults
from multiplane.runtime.http import HttpServer
from multiplane.runtime.http_access import Access
from multiplane.runtime.http_limits import Limits
from multiplane.runtime.trust import Trust
from multiplane.standards import operations

LIMITS: Final = Limits(half_open=16, connections=64)
CLOSE_S: Final = 0.5


class OperationsListener:
    """One for the network, in the process that holds the centre; it outlives all that it tells of.

    Args:
        trusts: those that are looked at while the network runs; gets one more.
    """

    def __init__(self, ground: Ground, trusts: list[Trust]) -> None:
        self._ground, self._trusts = ground, trusts
        self._server: HttpServer | None = None

    async def start(self, door: Operator) -> ReadyOperations:
        """Serve; answers what goes into ready.json. Raises: Refused(`port.in_use`)."""
        ground = self._ground
        domain = ground.world.domain
        trust = trust_of(ground.pki.authority, ground.pki.controller)
        server = HttpServer(
            operations.routes(door, {operator_urn(domain), controller_urn(domain)}),
            trust.server,
            identify(domain, trust),
            wall_ns,
            faults=NoFaults(),
            limits=LIMITS,
            access=Access("operations", log=ground.settings.access_log),
        )
        port = ground.settings.ops_port or ground.state.ports(["operations"], None)["operations"]
        try:
            bound = await server.start(HOST, port)
        except OSError as error:
            reason = (
                f"port {port} of operations: {error.strerror or error}: free it, or name another --ops-port"
            )
            raise Refused("port.in_use", reason) from error
        self._server = server
        trust.on_change.append(lambda: server.renew(trust.server))
        self._trusts.append(trust)
        operator = ground.pki.operator
        return ReadyOperations(
            url=f"https://{HOST}:{bound}",
            cert=str(operator.certificate.resolve()),
            key=str(operator.key.resolve()),
        )

    async def close(self) -> None:
        """Stop; nothing when it never started."""
        if self._server is not None:
            await self._server.stop(CLOSE_S)
