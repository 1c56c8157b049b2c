"""Keys at rest: sealed with AES-256-GCM under a key-encryption key.

The key-encryption key comes from outside (file, environment, command). A file beside the data protects
nothing: it only keeps keys out of backups that leave it behind.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from multiplane.kernel.errors import Faulty

KEK_BYTE: Final = 32
NONCE_BYTE: Final = 12
SEAL_OVERHEAD_BYTE: Final = NONCE_BYTE + 16


class Vault:
    """Seals and opens records.

    Args:
        kek: key-encryption key, 32 bytes.

    Raises: ValueError on another length.
    """

    __slots__ = ("_cipher",)

    def __init__(self, kek: bytes) -> None:
        if len(kek) != KEK_BYTE:
            raise ValueError(f"kek: expected {KEK_BYTE} bytes, got {len(kek)}")
        self._cipher = AESGCM(kek)

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """The record: nonce, ciphertext, tag: 28 bytes more than `plaintext`.

        Args:
            nonce: 12 bytes, never used before under this key (random: up to 2^32 records a key).
            aad: says where the record belongs, so that it opens nowhere else.

        Raises: ValueError when the nonce has another length.
        """
        if len(nonce) != NONCE_BYTE:
            raise ValueError(f"nonce: expected {NONCE_BYTE} bytes, got {len(nonce)}")
        return nonce + self._cipher.encrypt(nonce, plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """The plaintext of a record.

        Raises: Faulty(`seal.broken`) when the record is damaged, or of another key or place.
        """
        try:
            if len(sealed) < SEAL_OVERHEAD_BYTE:
                raise InvalidTag
            return self._cipher.decrypt(sealed[:NONCE_BYTE], sealed[NONCE_BYTE:], aad)
        except InvalidTag:
            reason = (
                f"record: expected one sealed here with this key, got {len(sealed)} bytes that do not open"
            )
            raise Faulty("seal.broken", reason) from None


def derive(kek: bytes, label: str) -> bytes:
    """A key of 32 bytes for one purpose or owner, by HKDF-SHA256 (RFC 5869).

    Raises: ValueError when `kek` is not 32 bytes long.
    """
    if len(kek) != KEK_BYTE:
        raise ValueError(f"kek: expected {KEK_BYTE} bytes, got {len(kek)}")
    return HKDF(algorithm=SHA256(), length=KEK_BYTE, salt=None, info=label.encode()).derive(kek)
