"""Who a certificate speaks for. TLS has checked the chain; here the principal is read, without ambiguity."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Noun, Verdict
from multiplane.kernel.quantity import NS_PER_S

MAX_PRINCIPAL_CHARS: Final = 1024

_UNREADABLE: Final = (
    ValueError,
    TypeError,  # a common name of a type that it cannot have
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class Peer(Noun, frozen=True, kw_only=True):
    """The holder of a certificate.

    Args:
        principal: URN or plain name, as the certificate spells it.
        not_before_ns: first instant of validity, Unix nanoseconds.
        not_after_ns: last instant of validity, Unix nanoseconds.
        issuer, serial: who signed it (RFC 4514) under which number: by these a certificate is revoked.
    """

    principal: str
    not_before_ns: int
    not_after_ns: int
    issuer: str = ""
    serial: int = 0


def peer_of(certificate_der: bytes) -> Peer:
    """Read the peer from its certificate.

    The first class that is not empty counts: URI names, DNS names (both of the subject alternative name),
    common names of the subject. Other names never disturb: a key manager may carry DNS and IP names for
    clients that check hosts beside the URI that names it.

    Raises: Refused(`identity.unreadable`, `identity.missing`, `identity.malformed`), and
    Refused(`identity.ambiguous`) when the class that counts has several names.
    """
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        classes = _names(certificate)
    except _UNREADABLE as error:
        reason = f"certificate: expected X.509 in DER, got {len(certificate_der)} bytes: {error}"
        raise Refused("identity.unreadable", reason) from None
    return Peer(
        principal=_only(classes),
        not_before_ns=int(certificate.not_valid_before_utc.timestamp()) * NS_PER_S,
        not_after_ns=int(certificate.not_valid_after_utc.timestamp()) * NS_PER_S,
        issuer=certificate.issuer.rfc4514_string(),
        serial=certificate.serial_number,
    )


def valid_at(peer: Peer, wall_ns: int) -> Verdict:
    """Whether the certificate is valid at `wall_ns`, Unix nanoseconds by the wall clock, never simulated."""
    if wall_ns < peer.not_before_ns:
        early_s = (peer.not_before_ns - wall_ns) // NS_PER_S
        return Verdict(allowed=False, reason=f"certificate of {peer.principal} begins in {early_s} s")
    if wall_ns > peer.not_after_ns:
        late_s = (wall_ns - peer.not_after_ns) // NS_PER_S
        return Verdict(allowed=False, reason=f"certificate of {peer.principal} ended {late_s} s ago")
    return Verdict(allowed=True)


def _names(certificate: x509.Certificate) -> tuple[tuple[str, list[str]], ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        alternative = extension.value
    except x509.ExtensionNotFound:
        alternative = x509.SubjectAlternativeName([])
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return (
        ("URI name", alternative.get_values_for_type(x509.UniformResourceIdentifier)),
        ("DNS name", alternative.get_values_for_type(x509.DNSName)),
        ("common name", [str(name.value) for name in common]),
    )


def _only(classes: tuple[tuple[str, list[str]], ...]) -> str:
    for what, found in classes:
        if len(found) > 1:
            raise Refused("identity.ambiguous", f"certificate: expected one {what}, got {len(found)}")
        if found:
            principal = found[0]
            if not 0 < len(principal) <= MAX_PRINCIPAL_CHARS or not principal.isprintable():
                raise Refused(
                    "identity.malformed", f"certificate: expected a printable {what} of 1-1024 characters"
                )
            return principal
    raise Refused("identity.missing", "certificate: expected a URI, DNS or common name, got none")
