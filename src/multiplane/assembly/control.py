"""Client side of a running network's control socket: the operator's, the scenario's and the pace's door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from multiplane.api.instructions import QuantumDesk
from multiplane.api.operator import Operator
from multiplane.api.pace import Pace
from multiplane.api.scenario import Scenario
from multiplane.kernel.nouns import Caller
from multiplane.runtime.control_socket import connect_control
from multiplane.runtime.doors import remote
from multiplane.runtime.session import Session

SOCKET_NAME: Final = "control.sock"
OPERATOR_DOOR: Final = "operator"
SCENARIO_DOOR: Final = "scenario"
PACE_DOOR: Final = "pace"
QUANTUM_DOOR: Final = "quantum"

# The file's permission is the authentication; the network sets the caller of such a session itself.
LOCAL_OPERATOR: Final = Caller(principal="urn:qkd:local:operator", domain="local")


class Control(msgspec.Struct, frozen=True):
    """The doors of a running network, as long as the session is open; `on_closed` takes whom to tell then."""

    operator: Operator
    scenario: Scenario
    pace: Pace
    quantum: QuantumDesk
    on_closed: Callable[[Callable[[str], None]], None]


@asynccontextmanager
async def control(state: Path) -> AsyncIterator[Control]:
    """Open the doors of the network that runs on a state directory.

    Raises: Refused(`control.not_running`, `control.path_too_long`).
    """
    channel = await connect_control(state / SOCKET_NAME)
    session = Session(channel)
    try:
        yield Control(
            operator=remote(Operator, session, OPERATOR_DOOR),
            scenario=remote(Scenario, session, SCENARIO_DOOR),
            pace=remote(Pace, session, PACE_DOOR),
            quantum=remote(QuantumDesk, session, QUANTUM_DOOR),
            on_closed=session.on_closed,
        )
    finally:
        channel.close("done")
