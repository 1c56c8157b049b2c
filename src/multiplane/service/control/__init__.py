"""Control plane: prefix routes of applications, admission of key requests, phases of pairs. Pure."""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

from multiplane.api.north import KeyRequest
from multiplane.api.service_connectivity import ClassicalPath
from multiplane.api.service_fabric import OrderPhase, OrderState
from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.urn import covers, profile
from multiplane.security.policy import PairingPolicy, may_pair
from multiplane.service.planes import Application, KeyRules, KmeEntry, PairPhase, PairState, Register

LONGEST_S: Final = 3600.0


class Target(NamedTuple):
    """An application and where it is served."""

    application: Application
    kme: KmeEntry


class Directory:
    """The register, as a key manager routes by it: a URN under a site's prefix goes to that site's KME."""

    def __init__(self, register: Register) -> None:
        self.register = register

    # Most registers of a large network are replaced before anybody asks: what is looked up is made then.

    @cached_property
    def _targets(self) -> dict[str, Target]:
        return {
            name: Target(application, kme)
            for kme in self.register.kmes
            for application in kme.applications
            for name in (application.urn, application.alias)
        }

    @cached_property
    def _prefixes(self) -> list[tuple[str, KmeEntry]]:
        kmes = self.register.kmes
        return sorted(
            ((kme.urn.removeprefix("urn:").split(":", 1)[1].rsplit(":", 1)[0], kme) for kme in kmes),
            key=lambda entry: -len(entry[0]),
        )

    def application(self, name: str) -> Target:
        """The application under a URN or an alias.

        Raises: Refused(`north.unknown_application`).
        """
        target = self._targets.get(name)
        if target is None:
            raise Refused(
                "north.unknown_application",
                f"application {name[:200]!r}: expected the URN or the alias of one of this network",
            )
        return target

    def route(self, urn: str) -> KmeEntry | None:
        """The key manager with the longest prefix that covers a URN (parameters are passed over).

        Raises: ValueError when `urn` is not a URN of the profile.
        """
        name = profile(urn).nss
        return next((kme for prefix, kme in self._prefixes if covers(prefix, name)), None)


class Admitted(NamedTuple):
    """A key request with all defaults filled in; `others` are the slaves beside the first."""

    target: Target
    size_bit: int
    number: int
    others: tuple[Target, ...] = ()


def admit(
    rules: KeyRules, policy: PairingPolicy, directory: Directory, master: str, request: KeyRequest
) -> Admitted:
    """Decide on a key request of application `master`.

    Raises: Refused(`north.unknown_application`, `north.not_allowed`, `key.number`, `key.size`,
    `key.size_multiple`, `key.additional`, `key.valid_s`).
    """
    target = directory.application(request.peer)
    others = _others(rules, directory, master, target, request.others) if request.others else ()
    for slave in (target, *others):
        verdict = may_pair(policy, master, slave.application.urn)
        if not verdict.allowed:
            raise Refused("north.not_allowed", f"peer {slave.application.alias}: {verdict.reason}")
    size_bit = request.size_bit or rules.default_size_bit
    if size_bit % 8:
        raise Refused("key.size_multiple", f"size: expected a multiple of 8, got {size_bit}")
    if not rules.min_size_bit <= size_bit <= rules.max_size_bit:
        raise Refused(
            "key.size", f"size: expected {rules.min_size_bit} to {rules.max_size_bit} bits, got {size_bit}"
        )
    if not 1 <= request.number <= rules.max_number:
        raise Refused("key.number", f"number: expected 1 to {rules.max_number}, got {request.number}")
    if request.valid_s > rules.longest_valid_s:
        raise Refused(
            "key.valid_s", f"valid_s: expected at most {rules.longest_valid_s}, got {request.valid_s}"
        )
    return Admitted(target, size_bit, request.number, others)


def _others(
    rules: KeyRules, directory: Directory, master: str, first: Target, names: tuple[str, ...]
) -> tuple[Target, ...]:
    """The slaves beside the first: known, and all ends different."""

    def refused(expected: str, got: object) -> Refused:
        return Refused("key.additional", f"additional_slave_SAE_IDs: expected {expected}, got {got}")

    if not rules.max_additional:
        raise refused("none, as max_SAE_ID_count is 0", len(names))
    if len(names) > rules.max_additional:
        raise refused(f"at most {rules.max_additional}", len(names))
    others = tuple(directory.application(name) for name in names)
    seen = {master: "the caller", first.application.urn: "the slave of the path"}
    for name, other in zip(names, others, strict=True):
        if other.application.urn in seen:
            raise refused("each application once", f"{name[:200]!r}, {seen[other.application.urn]}")
        seen[other.application.urn] = "a second time"
    return others


def pair_state(peer_site: str, order: OrderState, path: ClassicalPath | None) -> PairState:
    """What a key manager is told of a pair: ready when key can be carried and the peer can be spoken to."""
    phase = {
        OrderPhase.PREPARING: PairPhase.OPENING,
        OrderPhase.READY: PairPhase.READY,
        OrderPhase.UNREACHABLE: PairPhase.UNREACHABLE,
    }[order.phase]
    reason = order.reason
    if path is None:
        phase, reason = PairPhase.UNREACHABLE, reason or "no classical path between the sites"
    return PairState(
        peer_site=peer_site,
        phase=phase,
        delay_ns=path.delay_ns if path else 0,
        rate_bit_per_s=order.rate_bit_per_s,
        expected_ns=order.expected_ns,
        reason=reason,
    )


def come_back(peer: str, state: PairState | None, code: str, cold: str, missing_bit: int) -> Busy:
    """When to try again: when the links are up, and what lacks has come at the rate of the route.

    Args: cold: why a stock is not open, for the code `key.cold`.
    """
    if state is not None and state.phase is PairPhase.UNREACHABLE:
        return Busy("key.route_lost", f"{peer}: {state.reason}", retry_after_ns=5 * NS_PER_S)
    expected_ns = max(state.expected_ns if state else 0, NS_PER_S)
    if state is not None and state.rate_bit_per_s > 0:
        expected_ns += round(min(max(missing_bit, 0) / state.rate_bit_per_s, LONGEST_S) * NS_PER_S)
    reason = cold if code == "key.cold" else "the stock is being filled"
    return Busy(code, f"{peer}: {reason}", retry_after_ns=expected_ns)
