"""Keys at rest."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.errors import Faulty
from multiplane.security.sealing import SEAL_OVERHEAD_BYTE, Vault, derive

KEK = bytes(range(32))
NONCE = bytes(range(12))
AAD = b"quijote/stock/7"


@given(st.binary(min_size=12, max_size=12), st.binary(max_size=200), st.binary(max_size=50))
def test_roundtrip(nonce: bytes, plaintext: bytes, aad: bytes) -> None:
    sealed = Vault(KEK).seal(nonce, plaintext, aad)
    assert len(sealed) == len(plaintext) + SEAL_OVERHEAD_BYTE
    assert sealed == nonce + AESGCM(KEK).encrypt(nonce, plaintext, aad)
    assert Vault(KEK).open(sealed, aad) == plaintext


SEALED = Vault(KEK).seal(NONCE, b"thirty-two bytes of key material", AAD)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, flip: int) -> None:
    with pytest.raises(Faulty):
        Vault(KEK).open(bytes([*SEALED[:at], SEALED[at] ^ flip, *SEALED[at + 1 :]]), AAD)


@pytest.mark.parametrize(
    ("kek", "sealed", "aad"),
    [
        pytest.param(KEK[::-1], SEALED, AAD, id="other-key"),
        pytest.param(KEK, SEALED, b"quevedo/stock/7", id="other-place"),
        pytest.param(KEK, SEALED[:-1], AAD, id="cut"),
        pytest.param(KEK, SEALED[:27], AAD, id="shorter-than-a-seal"),
        pytest.param(KEK, b"", AAD, id="empty"),
    ],
)
def test_broken_says_so_without_material(kek: bytes, sealed: bytes, aad: bytes) -> None:
    with pytest.raises(Faulty) as error:
        Vault(kek).open(sealed, aad)
    assert error.value.code == "seal.broken"
    assert error.value.__suppress_context__
    assert str(error.value) == (
        "seal.broken: record: expected one sealed here with this key, "
        f"got {len(sealed)} bytes that do not open"
    )


def test_sizes() -> None:
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match=f"kek: expected 32 bytes, got {size}"):
            Vault(bytes(size))
        with pytest.raises(ValueError, match=f"kek: expected 32 bytes, got {size}"):
            derive(bytes(size), "quijote")
    with pytest.raises(ValueError, match="nonce: expected 12 bytes, got 11"):
        Vault(KEK).seal(bytes(11), b"", b"")


def test_key_is_not_shown() -> None:
    vault = Vault(KEK)
    assert repr(KEK)[2:-1] not in repr(vault)
    assert not hasattr(vault, "__dict__")


def test_derived_keys_differ_by_label() -> None:
    keys = {derive(KEK, label) for label in ("", "quijote", "quevedo")}
    assert len(keys | {KEK}) == 4
    assert {len(key) for key in keys} == {32}
    assert derive(KEK, "quijote") in keys
