"""Who may pair with whom."""

from __future__ import annotations

import msgspec
import pytest

from multiplane.security.policy import PairingPolicy, Rule, may_pair

A = "urn:qkd:madqci:quijote:vpn"
B = "urn:qkd:madqci:quevedo:vpn"
C = "urn:qkd:madqci2:quijote:vpn"


def test_default_is_everybody_with_every_other() -> None:
    assert may_pair(PairingPolicy(), A, B).allowed
    assert may_pair(PairingPolicy(), B, A).allowed
    assert not may_pair(PairingPolicy(), A, A).allowed


def test_self_pair_is_about_the_application_not_its_spelling() -> None:
    for other in (A.replace("urn:qkd", "URN:QKD"), A + "?=nonce=1"):
        verdict = may_pair(PairingPolicy(), A, other)
        assert (verdict.allowed, verdict.reason) == (False, f"{A} may not be its own peer")
    assert may_pair(PairingPolicy(allow_self=True), A, A).allowed


def test_first_match_wins() -> None:
    policy = PairingPolicy(
        rules=(
            Rule(master="madqci:quijote", slave="madqci", allow=True),
            Rule(master="madqci", slave="*", allow=False),
        )
    )
    assert may_pair(policy, A, B).allowed
    verdict = may_pair(policy, B, A)
    assert (verdict.allowed, verdict.reason) == (False, f"rule 2 forbids {B} to pair with {A}")
    assert may_pair(policy, C, A).allowed, "madqci2 is not below madqci"
    assert not may_pair(policy, A, C).allowed


def test_rules_hold_for_self_pairs_too() -> None:
    policy = PairingPolicy(rules=(Rule(master="*", slave="*", allow=False),), allow_self=True)
    assert not may_pair(policy, A, A).allowed


@pytest.mark.parametrize(
    "name", ["", "sae-1", "urn:qkd:MADQCI:x", "urn:other:madqci:x", "urn:qkd:madqci%3Ax"]
)
def test_names_outside_the_profile_may_not(name: str) -> None:
    for master, slave in ((name, B), (B, name)):
        verdict = may_pair(PairingPolicy(), master, slave)
        assert not verdict.allowed
        assert verdict.reason


def test_lifecycle_is_no_application() -> None:
    assert not may_pair(PairingPolicy(), A, "urn:qkd:lifecycle").allowed


def test_namespace_is_a_setting() -> None:
    assert may_pair(PairingPolicy(), "urn:etsi:qkd:a", "urn:etsi:qkd:b", nid="etsi").allowed


@pytest.mark.parametrize("side", ["", "madqci:", "madqci:*", "MadQCI", "urn:qkd:madqci"])
def test_rule_refuses_what_would_never_match(side: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Rule(master=side, slave="*", allow=False)
    with pytest.raises(ValueError, match="expected"):
        Rule(master="*", slave=side, allow=False)


def test_policy_reads_from_settings() -> None:
    text = b'{"rules": [{"master": "*", "slave": "madqci", "allow": false}]}'
    policy = msgspec.json.decode(text, type=PairingPolicy)
    assert not may_pair(policy, C, A).allowed
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text.replace(b"madqci", b"madqci:"), type=PairingPolicy)
