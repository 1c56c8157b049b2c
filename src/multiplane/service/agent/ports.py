"""What every part of an agent for units works with."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from multiplane.api.fabric_units import FabricStates
from multiplane.api.north import North
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Entropy, Faults, Store, Timeline
from multiplane.security.policy import PairingPolicy
from multiplane.service.control import Directory
from multiplane.service.control.admission import Ground
from multiplane.service.control.kinds import Kinds
from multiplane.service.planes.units import UnitBroker, UnitLinks, UnitRules
from multiplane.service.telemetry import Counters


@dataclass(slots=True, kw_only=True)
class AgentPorts:
    """Ports, doors and rules of one agent; given by the assembly.

    Args:
        caller: this agent, as it introduces itself at doors: the element of its site.
        boot: its incarnation, durable before first use; rises with every start.
        states: the fabric's agent here; None at a site without quantum memories.
        keys: the key manager here; key_bit: size of its keys where none is named.
        directory: the register as it is now.
        spawn: runs a coroutine in the background; its end is awaited when the site closes.
    """

    caller: Caller
    site: str
    boot: int
    rules: UnitRules
    policy: PairingPolicy
    kinds: Kinds
    timeline: Timeline
    store: Store
    entropy: Entropy
    broker: UnitBroker
    links: UnitLinks
    states: FabricStates | None
    keys: North
    key_bit: int
    directory: Callable[[], Directory]
    counters: Counters
    faults: Faults
    spawn: Callable[[Coroutine[Any, Any, None]], None]

    @property
    def owner(self) -> str:
        """Owner of this agent's rows."""
        return self.caller.principal

    @property
    def ground(self) -> Ground:
        """What wishes are judged by now."""
        return Ground(self.rules, self.kinds, self.policy, self.directory(), self.key_bit)
