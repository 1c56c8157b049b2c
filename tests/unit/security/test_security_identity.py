"""Principals of certificates."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from multiplane.kernel.errors import Refused
from multiplane.security.identity import Peer, peer_of, valid_at

URN = "urn:qkd:madqci:quijote:kme"
START = datetime(2026, 1, 1, tzinfo=UTC)
START_NS = 1_767_225_600_000_000_000
DAY_NS = 86_400_000_000_000


def uri(value: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(value)


def dns(value: str) -> x509.GeneralName:
    return x509.DNSName(value)


def certificate(alternative: Sequence[x509.GeneralName] = (), common: Sequence[str] = ()) -> bytes:
    """A certificate valid for one day."""
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common])
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=1))
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    return builder.sign(key, None).public_bytes(Encoding.DER)


def test_peer_of_a_key_manager() -> None:
    """Host names and addresses beside the URI do not disturb, nor do several common names."""
    hosts = [dns("localhost"), dns("kme.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    der = certificate([*hosts, uri(URN)], ["quijote", "kme"])
    assert peer_of(der) == Peer(
        principal=URN,
        not_before_ns=START_NS,
        not_after_ns=START_NS + DAY_NS,
        issuer="CN=kme,CN=quijote",
        serial=1,
    )


@pytest.mark.parametrize(
    ("alternative", "common", "principal"),
    [
        pytest.param([uri(URN), dns("a.example")], ["b"], URN, id="uri-first"),
        pytest.param([dns("a.example")], ["b"], "a.example", id="then-dns"),
        pytest.param([], ["sae-1"], "sae-1", id="then-common-name"),
        pytest.param([x509.RFC822Name("a@example.org")], ["sae-1"], "sae-1", id="other-classes-do-not-count"),
    ],
)
def test_first_class_that_is_not_empty(
    alternative: list[x509.GeneralName], common: list[str], principal: str
) -> None:
    assert peer_of(certificate(alternative, common)).principal == principal


@pytest.mark.parametrize(
    ("alternative", "common", "code"),
    [
        pytest.param([uri(URN), uri("urn:qkd:b")], [], "identity.ambiguous", id="two-uris"),
        pytest.param([uri(URN), uri(URN)], [], "identity.ambiguous", id="the-same-twice"),
        pytest.param([dns("a"), dns("b")], ["c"], "identity.ambiguous", id="two-dns-names"),
        pytest.param([], ["a", "b"], "identity.ambiguous", id="two-common-names"),
        pytest.param([], [], "identity.missing", id="nothing"),
        pytest.param(
            [x509.IPAddress(ipaddress.ip_address("::1"))], [], "identity.missing", id="address-only"
        ),
        pytest.param([uri("")], ["a"], "identity.malformed", id="empty-uri"),
        pytest.param([uri("urn:qkd:a\nb")], [], "identity.malformed", id="line-feed"),
        pytest.param([uri("urn:qkd:" + "a" * 1024)], [], "identity.malformed", id="too-long"),
    ],
)
def test_refuses(alternative: list[x509.GeneralName], common: list[str], code: str) -> None:
    with pytest.raises(Refused) as error:
        peer_of(certificate(alternative, common))
    assert error.value.code == code


@given(st.binary(max_size=200))
def test_refuses_what_is_no_certificate(junk: bytes) -> None:
    with pytest.raises(Refused) as error:
        peer_of(junk)
    assert error.value.code == "identity.unreadable"


GENUINE = certificate([uri(URN)])


VERSION_AT = GENUINE.index(bytes.fromhex("a003020102")) + 4


@given(st.integers(0, len(GENUINE) - 1), st.integers(1, 255))
@example(VERSION_AT, 7)
@pytest.mark.filterwarnings("ignore:Parsed a serial number", "ignore:Attribute's length")
def test_damage_never_raises_anything_else(at: int, flip: int) -> None:
    damaged = bytes([*GENUINE[:at], GENUINE[at] ^ flip, *GENUINE[at + 1 :]])
    with contextlib.suppress(Refused):
        peer_of(damaged)


def test_validity_includes_both_ends() -> None:
    peer = Peer(principal=URN, not_before_ns=START_NS, not_after_ns=START_NS + DAY_NS)
    assert not valid_at(peer, START_NS - 1).allowed
    assert valid_at(peer, START_NS).allowed
    assert valid_at(peer, START_NS + DAY_NS).allowed
    late = valid_at(peer, START_NS + DAY_NS + 90_000_000_000)
    assert (late.allowed, late.reason) == (False, f"certificate of {URN} ended 90 s ago")
