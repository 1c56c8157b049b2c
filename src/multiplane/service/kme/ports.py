"""What every part of a key manager works with."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from multiplane.api.service_fabric import FabricNode
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Bus, Entropy, Faults, Store, Timeline
from multiplane.security.policy import PairingPolicy
from multiplane.security.sealing import Vault
from multiplane.service.control import Directory
from multiplane.service.planes import KeyRules, PeerLinks, ServiceControl
from multiplane.service.resource.blocks import Sealer
from multiplane.service.resource.metering import Meter
from multiplane.service.telemetry import Counters


@dataclass(slots=True, kw_only=True)
class KmePorts:
    """Ports, doors and rules of one key manager; given by the assembly.

    Args:
        caller: this key manager, as it introduces itself at doors.
        boot: its incarnation, durable before first use; rises with every start.
        spawn: runs a coroutine in the background; its end is awaited when the key manager closes.
    """

    caller: Caller
    site: str
    boot: int
    rules: KeyRules
    policy: PairingPolicy
    timeline: Timeline
    store: Store
    entropy: Entropy
    vault: Vault
    bus: Bus
    fabric: FabricNode
    control: ServiceControl
    peers: PeerLinks
    faults: Faults
    counters: Counters
    directory: Directory
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.meter = Meter(self.rules.metering)

    @property
    def owner(self) -> str:
        """Owner of this key manager's rows."""
        return self.caller.principal

    def sealer(self) -> Sealer:
        """Seals rows of this key manager."""
        return sealer_of(self.owner, self.vault, self.entropy)


def sealer_of(owner: str, vault: Vault, entropy: Entropy) -> Sealer:
    """Seals rows with fresh nonces; what a row is, and whose, is authenticated."""

    def seal(plain: bytes, what: str) -> bytes:
        return vault.seal(entropy.take(12), plain, f"{owner}:{what}".encode())

    def unseal(sealed: bytes, what: str) -> bytes:
        return vault.open(sealed, f"{owner}:{what}".encode())

    return Sealer(seal, unseal)
