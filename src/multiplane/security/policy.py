"""Who may share keys with whom."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from multiplane.kernel.names import NID
from multiplane.kernel.nouns import Noun, Verdict
from multiplane.kernel.urn import Name, covers, labels_of, profile

ANY: Final = "*"


def check_prefix(prefix: str) -> None:
    """Raises: ValueError when `prefix` is neither labels without `urn:<nid>:` nor `*`."""
    if prefix != ANY and labels_of(prefix)[0] == "urn":
        raise ValueError(f"rule: expected labels without 'urn:<nid>:', or '*', got {prefix!r}")


class Rule(Noun, frozen=True, kw_only=True):
    """One line of a policy. `master` and `slave` are label prefixes, or `*` for everybody.

    `madqci:quijote` stands for `urn:qkd:madqci:quijote` and all below it.
    """

    master: str
    slave: str
    allow: bool

    def __post_init__(self) -> None:
        check_prefix(self.master)
        check_prefix(self.slave)


class PairingPolicy(Noun, frozen=True, kw_only=True):
    """Rules in order: the first that matches decides; where none does, the pair is allowed.

    `allow_self` lets an application be its own peer, as far as the rules do.
    """

    rules: tuple[Rule, ...] = ()
    allow_self: bool = False


@lru_cache(maxsize=65_536)
def may_pair(policy: PairingPolicy, master_urn: str, slave_urn: str, nid: str = NID) -> Verdict:
    """Whether the master may be issued keys to share with the slave. Names outside the profile may not."""
    try:
        master, slave = profile(master_urn, nid), profile(slave_urn, nid)
    except ValueError as error:
        return Verdict(allowed=False, reason=str(error))
    for name in (master, slave):
        if name.is_lifecycle:
            return Verdict(allowed=False, reason=f"{name.assigned} is reserved and names no application")
    if master.labels == slave.labels and not policy.allow_self:
        return Verdict(allowed=False, reason=f"{master.assigned} may not be its own peer")
    for place, rule in enumerate(policy.rules, start=1):
        if matches(rule.master, master) and matches(rule.slave, slave):
            verb = "allows" if rule.allow else "forbids"
            reason = f"rule {place} {verb} {master.assigned} to pair with {slave.assigned}"
            return Verdict(allowed=rule.allow, reason=reason)
    return Verdict(allowed=True, reason="no rule speaks against it")


def matches(prefix: str, name: Name) -> bool:
    """Whether a rule's prefix means an application."""
    return prefix == ANY or covers(prefix, name.nss)
