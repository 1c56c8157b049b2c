"""Certificate revocation lists: who is turned away although a certificate is still in date.

A list holds what is revoked for ever, so an authentic one that has ended still counts: its end only says that
a later one should have come. What is damaged, signed by somebody else or older than the list in force is
refused, and the last good one stays in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from multiplane.kernel.errors import Refused
from multiplane.kernel.quantity import NS_PER_S

_PEM_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_PEM_END: Final = b"-----END X509 CRL-----"
_NEVER_NS: Final = 1 << 63
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """What the lists in force say.

    Args:
        certificates: issuer (RFC 4514) and serial number of each revoked certificate.
        begun: for each issuer, when its list was made, Unix nanoseconds.
        end_ns: when the first list should have been followed by another one, Unix nanoseconds.
    """

    certificates: frozenset[tuple[str, int]] = frozenset()
    begun: dict[str, int] = {}
    end_ns: int = _NEVER_NS


NOBODY: Final = Revoked()


def read_revoked(data: bytes, authorities: Sequence[x509.Certificate], since: Revoked = NOBODY) -> Revoked:
    """The revoked certificates of a file: one list in DER, or any number in PEM.

    Args:
        data: content of the file.
        authorities: who may sign lists.
        since: what was in force before: no issuer's list may be older.

    Raises: Refused(`pki.revocation`) with what is wrong; the caller adds which file.
    """
    certificates: set[tuple[str, int]] = set()
    begun: dict[str, int] = {}
    end_ns = _NEVER_NS
    try:
        for one in _parse(data):
            issuer = one.issuer.rfc4514_string()
            if not any(_signed(one, authority) for authority in authorities):
                reason = f"expected a list signed by the authority, got one of {issuer!r}"
                raise Refused("pki.revocation", reason)
            begun[issuer] = _ns(one.last_update_utc)
            if begun[issuer] < since.begun.get(issuer, 0):
                reason = f"expected a list later than the one in force, got {issuer!r}"
                raise Refused("pki.revocation", reason)
            if one.next_update_utc is not None:
                end_ns = min(end_ns, _ns(one.next_update_utc))
            certificates.update((issuer, entry.serial_number) for entry in one)
    except _UNREADABLE as error:
        reason = f"expected revocation lists in PEM or one in DER, got {len(data)} bytes: {error}"
        raise Refused("pki.revocation", reason) from None
    lost = since.begun.keys() - begun.keys()
    if lost:
        raise Refused("pki.revocation", f"expected a list of {sorted(lost)}, which had one before")
    return Revoked(certificates=frozenset(certificates), begun=begun, end_ns=end_ns)


def make_list(
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    serials: Iterable[int],
    begin: datetime,
    life: timedelta,
) -> bytes:
    """A list in PEM, signed by an authority.

    Args:
        certificate, key: of the authority.
        serials: serial numbers of the revoked certificates.
        begin: now, whole seconds; also the number of the list.
        life: how long nobody need look for a later one.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate.subject)
        .last_update(begin)
        .next_update(begin + life)
        .add_extension(x509.CRLNumber(int(begin.timestamp())), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for serial in sorted(set(serials)):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _parse(data: bytes) -> list[x509.CertificateRevocationList]:
    if _PEM_BEGIN not in data:
        return [x509.load_der_x509_crl(data)]
    if data.count(_PEM_BEGIN) != data.count(_PEM_END):
        raise ValueError("a list is cut off")
    parts = [part for part in data.split(_PEM_END) if _PEM_BEGIN in part]
    return [x509.load_pem_x509_crl(part + _PEM_END + b"\n") for part in parts]


def _signed(one: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    if one.issuer != authority.subject:
        return False
    try:
        return one.is_signature_valid(key)  # type: ignore[arg-type]  # any other kind of key raises
    except (TypeError, ValueError):
        return False


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NS_PER_S
