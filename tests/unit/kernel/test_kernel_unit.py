"""Identifiers of service units: digests, order, and what is refused."""

from __future__ import annotations

import hashlib
import itertools
import random
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.unit import (
    Lifecycle,
    UnitId,
    endpoint_urn,
    lifecycle_of,
    lifecycle_urn,
    mint_nonce,
    unit_id,
)

ONE = "urn:qkd:madqci:ccips?=nonce=177923"
TWO = "urn:qkd:quditto:emulator:ipsec:controller?=nid=af33017"
THREE = "urn:qkd:lifecycle?=size=256&valid-until=1750708945"
UNIT = "41ab327febc27da863069d0410600bc3e898b2e3e733aff64f79410d9e1da8bd"
PAIR = "8efacb736e10f5820aa482c8283e11f4f9b6b7dce434673ef945ea7884238e8c"
NS_PER_S = 1_000_000_000


@pytest.mark.parametrize("urns", list(itertools.permutations([ONE, TWO, THREE])))
def test_digest_in_any_order(urns: tuple[str, ...]) -> None:
    """Vector 42."""
    unit = unit_id(urns)
    assert unit == UnitId((ONE, TWO), THREE)
    assert unit.unit_digest == UNIT
    assert unit.pair_digest == PAIR
    assert unit.uuid == "41ab327f-ebc2-8da8-a306-9d0410600bc3"
    assert unit.urns == (ONE, TWO, THREE)
    assert unit.line == f"{ONE} {TWO} {THREE}"
    assert len(unit.line) == 140


def test_spelling_does_not_count() -> None:
    other = unit_id(
        [
            "URN:QKD:lifecycle?=valid-until=1750708945&size=256",
            TWO.replace("urn:qkd", "urn:QKD"),
            ONE.replace("urn:qkd", "URN:qkd"),
        ]
    )
    assert other.unit_digest == UNIT
    assert other.line == f"{ONE} {TWO} {THREE}"


def test_nonce_key_is_never_rewritten() -> None:
    assert unit_id([ONE, TWO.replace("nid=", "nonce="), THREE]).unit_digest.startswith("4dd882c7")


def test_three_parties() -> None:
    unit = unit_id(
        [
            "urn:qkd:c?=nonce=3",
            "urn:qkd:a?=nonce=1",
            "urn:qkd:lifecycle?=size=1&valid-until=1",
            "urn:qkd:b?=nonce=2",
        ]
    )
    assert unit.unit_digest == "020ad3b9907c9aff58aaf0dfaa2ccc89ebdea6d5f1ec7f5fa8e24ed408bf1a0c"


def test_same_application_twice() -> None:
    """Vector 44."""
    unit = unit_id([ONE, "urn:qkd:madqci:ccips?=nonce=2", THREE])
    assert unit.unit_digest.startswith("51869c281d3bdaec")


def test_order_is_by_octets() -> None:
    urns = ["urn:qkd:a?=nonce=1", "urn:qkd:a-b?=nonce=1", "urn:qkd:a:b?=nonce=1"]
    assert unit_id([*urns, THREE]).endpoints == (urns[1], urns[2], urns[0])


# N + 1 URNs of units of many kinds: (parties, size in the lifecycle), digests by `sha256sum`.
LIFECYCLE = "urn:qkd:lifecycle?=size={}&valid-until=1767225610"
MANY = [
    pytest.param("ab", 256, "2284a43a9ba1990fe3960979146c79fc597e16a57952a91b1489bca9c283168a", id="key"),
    pytest.param("ab", 5, "f0ccaca2a7d9c46e80b0afd632706196b9048d2c763dd38cd2a621a20adc35ca", id="pairs"),
    pytest.param("abc", 10, "1d79c816b8d67b6ad4ad8bab5dc37f7c4fdd80f0054fc0fe45ff68fae30870a0", id="ghz"),
    pytest.param("abcd", 1, "e3ab7ba4cdec835ffad7ed7122a8be86560c3565fde5fa5845ce877ace6e8609", id="graph"),
    pytest.param("abcde", 7, "8b1ef1cb8b877532ac7890c9fbf8f6d7ab9f84c62a6db26e080285aedbf21c3b", id="pack"),
]


@pytest.mark.parametrize(("parties", "size", "digest"), MANY)
def test_names_of_many_parties(parties: str, size: int, digest: str) -> None:
    """All orders of URNs and parameters, and all spellings of scheme and namespace, are one name."""
    ends = [f"urn:qkd:madqci:{party}?=nonce={place:024x}" for place, party in enumerate(parties)]
    urns = [*ends, LIFECYCLE.format(size)]
    for order in itertools.islice(itertools.permutations(urns), 0, None, 1 if len(parties) < 5 else 7):
        assert unit_id(order).unit_digest == digest
    swapped = f"urn:qkd:lifecycle?=valid-until=1767225610&size={size}"
    assert unit_id([*(end.replace("urn:qkd", "URN:Qkd") for end in ends), swapped]).unit_digest == digest
    legacy = [end.replace("nonce=", "nid=") for end in ends]
    assert len({unit_id([*legacy[:n], *urns[n:]]).unit_digest for n in range(len(ends) + 1)}) == len(ends) + 1


LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=3)
NONCE = st.text(string.ascii_letters + string.digits + "-._~", min_size=1, max_size=6)


@given(
    st.lists(st.tuples(LABEL, st.sampled_from(["nonce", "nid"]), NONCE), min_size=2, max_size=8, unique=True),
    st.randoms(use_true_random=False),
)
def test_a_name_is_its_set_of_urns(ends: list[tuple[str, str, str]], rng: random.Random) -> None:
    """Whatever the parties: order does not count, every octet does, and no other spelling is let in."""
    urns = [f"urn:qkd:app:{label}?={key}={nonce}" for label, key, nonce in ends]
    shuffled = rng.sample([*urns, THREE], len(urns) + 1)
    unit = unit_id(shuffled)
    assert unit.urns == (*sorted(urns, key=str.encode), THREE)
    lines = "".join(f"{urn}\n" for urn in ("qsu-v1", *unit.urns))
    assert unit.unit_digest == hashlib.sha256(lines.encode()).hexdigest()
    chosen = rng.choice(urns)
    others = [urn for urn in [*urns, THREE] if urn != chosen]
    at = rng.randrange(len("urn:qkd:"), len(chosen))
    if chosen[at] not in ":?=":
        encoded = f"{chosen[:at]}%{ord(chosen[at]):02X}{chosen[at + 1 :]}"
        with pytest.raises(ValueError, match="expected"):
            unit_id([*others, encoded])
    with pytest.raises(ValueError, match="labels: expected"):
        unit_id([*others, chosen.replace(":app:", ":App:")])
    head, _, nonce = chosen.rpartition("=")
    other_case = f"{head}={nonce.swapcase()}"
    if other_case not in urns:
        assert unit_id([*others, other_case]).pair_digest != unit.pair_digest
    with pytest.raises(ValueError, match="one of 'nonce' and 'nid'"):
        unit_id([*others, f"{chosen}&{'nid' if '?=nonce' in chosen else 'nonce'}=1"])


@pytest.mark.parametrize(
    ("urns", "says"),
    [
        pytest.param([ONE, TWO], "one lifecycle URN, got 0", id="43-no-lifecycle"),
        pytest.param([ONE, THREE], "two or more endpoint URNs, got 1", id="43-one-endpoint"),
        pytest.param([ONE, ONE, THREE], "different endpoints", id="43-duplicate"),
        pytest.param([ONE, TWO, THREE, THREE], "one lifecycle URN, got 2", id="43-two-lifecycles"),
        pytest.param([ONE, ONE.upper().replace("MADQCI:CCIPS?=NONCE", "madqci:ccips?=nonce"), THREE],
                     "different endpoints", id="duplicate-in-other-spelling"),
        pytest.param([ONE, "urn:qkd:b", THREE], "nonce at every endpoint", id="endpoint-without-nonce"),
        pytest.param([ONE, "urn:qks:b?=nonce=1", THREE], "namespace 'qkd'", id="mixed-namespaces"),
        pytest.param([ONE, TWO, "urn:qkd:lifecycle?=size=256"], "valid-until: expected", id="bad-lifecycle"),
    ],
)  # fmt: skip
def test_refuses(urns: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        unit_id(urns)


@pytest.mark.parametrize(
    ("q", "says"),
    [
        pytest.param("size=0256&valid-until=1", "size: expected a positive whole", id="45-leading-zero"),
        pytest.param("size=0&valid-until=1", "size: expected a positive whole", id="45-zero"),
        pytest.param("size=256", "valid-until: expected a positive whole", id="45-missing"),
        pytest.param("size=-1&valid-until=1", "size: expected a positive whole", id="negative"),
        pytest.param("size=1.5&valid-until=1", "size: expected a positive whole", id="fraction"),
    ],
)
def test_lifecycle_refuses(q: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        lifecycle_of(f"urn:qkd:lifecycle?={q}")


def test_lifecycle_of_an_application() -> None:
    with pytest.raises(ValueError, match="expected urn:qkd:lifecycle"):
        lifecycle_of("urn:qkd:a?=size=1&valid-until=1")


def test_lifecycle_in_the_past() -> None:
    """Vector 45, last case: two seconds between clocks are borne, one nanosecond more is not."""
    lifecycle = lifecycle_of(THREE)
    assert lifecycle == Lifecycle(size_bit=256, valid_until_s=1_750_708_945)
    end_ns = 1_750_708_945 * NS_PER_S
    assert not lifecycle.past(end_ns)
    assert not lifecycle.past(end_ns + 2 * NS_PER_S)
    assert lifecycle.past(end_ns + 2 * NS_PER_S + 1)
    assert lifecycle.past(end_ns + 1, tolerance_s=0)


@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_lifecycle_roundtrip(size_bit: int, valid_until_s: int) -> None:
    assert lifecycle_of(lifecycle_urn(size_bit, valid_until_s)) == Lifecycle(size_bit, valid_until_s)


def test_making_urns() -> None:
    assert lifecycle_urn(256, 1_750_708_945) == THREE
    assert endpoint_urn("URN:QKD:madqci:ccips", "177923") == ONE
    assert mint_nonce(bytes(range(12))) == "000102030405060708090a0b"
    for size_bit, valid_until_s in ((0, 1), (1, 0), (-8, 1)):
        with pytest.raises(ValueError, match="positive"):
            lifecycle_urn(size_bit, valid_until_s)
    with pytest.raises(ValueError, match="12 bytes or more, got 11"):
        mint_nonce(bytes(11))
    for urn in (ONE, "urn:qkd:lifecycle"):
        with pytest.raises(ValueError, match="assigned name"):
            endpoint_urn(urn, "1")
    for nonce in ("", "a&size=1", "%41", "1\n"):
        with pytest.raises(ValueError, match="nonce: expected"):
            endpoint_urn("urn:qkd:a", nonce)


@given(st.binary(min_size=12, max_size=16), st.binary(min_size=12, max_size=16))
def test_minted_units(nonce_a: bytes, nonce_b: bytes) -> None:
    a = endpoint_urn("urn:qkd:madqci:quijote:vpn", mint_nonce(nonce_a))
    b = endpoint_urn("urn:qkd:madqci:quevedo:vpn", mint_nonce(nonce_b))
    unit = unit_id([a, b, lifecycle_urn(256, 1_750_708_945)])
    assert unit == unit_id(reversed(unit.urns))
    assert unit.pair_digest == unit_id([b, a, lifecycle_urn(128, 1)]).pair_digest
    assert unit.unit_digest != unit_id([b, a, lifecycle_urn(128, 1)]).unit_digest
    parsed = uuid.UUID(unit.uuid)
    assert (parsed.version, parsed.variant, str(parsed)) == (8, uuid.RFC_4122, unit.uuid)
    free = 0xFFFFFFFFFFFF0FFF3FFFFFFFFFFFFFFF
    assert parsed.int & free == int(unit.unit_digest[:32], 16) & free
