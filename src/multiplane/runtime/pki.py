"""A development PKI made on the spot: one authority, one P-256 certificate per site, application and office.

For laptops and test beds. The authority's key lies beside everything else, so whoever reads the folder can
be anybody; in operation, bring certificates of an authority of your own.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.names import controller_urn, element_urn, operator_urn, slug
from multiplane.runtime.durable import flush_folder

LEAF_LIFE: Final = timedelta(days=365)
AUTHORITY_LIFE: Final = timedelta(days=5 * 365)
RENEW_BEFORE: Final = timedelta(days=7)
SKEW: Final = timedelta(minutes=5)  # clocks of two hosts may differ by this much
LOOPBACK: Final = ("localhost", "127.0.0.1")
CIPHERS_TLS12: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # TLS 1.3 has AEAD suites only


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Where the certificate and the key of one principal lie."""

    principal: str
    certificate: Path
    key: Path


class Pki(msgspec.Struct, frozen=True, kw_only=True):
    """What `ensure_pki` made or found: `kmes` by site, `saes` by alias."""

    authority: Path
    controller: Credentials
    operator: Credentials
    kmes: dict[str, Credentials]
    saes: dict[str, Credentials]


class Authority(NamedTuple):
    """A certificate that signs others, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Issued(NamedTuple):
    """A certificate and its key, PEM; `repr` shows neither."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "Issued(<certificate>, <key>)"


def ensure_pki(folder: Path, domain: str, sites: Mapping[str, Sequence[str]], wall_ns: int) -> Pki:
    """Make what is missing of a domain's PKI, renew what ends within 7 days, keep the rest.

    Args:
        folder: gets `ca.pem`, `ca.key`, `controller.*`, `operator.*`, `kme/<site>.*` and `sae/<alias>.*`;
            keys have mode 0600, folders 0700.
        domain: label of the trust domain.
        sites: the aliases of the applications at each site; aliases are unique in the domain.
        wall_ns: now, Unix nanoseconds of the wall clock.

    Raises:
        Refused(`pki.name`): a domain, site or alias is no label, or an alias stands twice or is `kme`.
        Refused(`pki.clock`): the authority is not valid yet, by the clock of this machine.
        Refused(`pki.other_domain`): the folder holds the authority of another domain.
        Faulty(`pki.damaged`): the authority's files are incomplete or do not belong together.
    """
    _check_names(domain, sites)
    now = datetime.fromtimestamp(wall_ns / 1e9, UTC)
    for part in (folder, folder / "kme", folder / "sae"):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = _ensure_authority(folder, domain, now)

    def ensure(stem: Path, principal: str, hosts: Sequence[str]) -> Credentials:
        return _ensure_leaf(authority, stem, principal, hosts, now)

    return Pki(
        authority=folder / "ca.pem",
        controller=ensure(folder / "controller", controller_urn(domain), LOOPBACK),
        operator=ensure(folder / "operator", operator_urn(domain), ()),
        kmes={site: ensure(folder / "kme" / site, element_urn(domain, site), LOOPBACK) for site in sites},
        saes={
            alias: ensure(folder / "sae" / alias, element_urn(domain, site, alias), ())
            for site, aliases in sites.items()
            for alias in aliases
        },
    )


def create_authority(common_name: str, begin: datetime, end: datetime) -> Authority:
    """A new self-signed authority with a new key, valid from `begin` to `end`."""
    return _self_sign(common_name, ec.generate_private_key(ec.SECP256R1()), begin, end)


def issue(
    authority: Authority,
    *,
    begin: datetime,
    end: datetime,
    uris: Sequence[str] = (),
    hosts: Sequence[str] = (),
    common_name: str = "",
) -> Issued:
    """A certificate for both ends of TLS with a new key; any identities, also two or none.

    Args:
        authority: who signs.
        begin, end: validity, whole seconds.
        uris: URI names, in order.
        hosts: DNS names and IP addresses.
        common_name: at most 64 characters; empty = none.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [_host_name(host) for host in hosts]
    return _issue(authority, subject, names, ec.generate_private_key(ec.SECP256R1()), (begin, end))


def reissue(
    authority: Authority,
    present: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
) -> Issued:
    """A certificate with the names of a present one, for a key that may be the same.

    Args:
        authority: who signs.
        begin, end: validity, whole seconds.
    """
    try:
        extension = present.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = list(extension.value)
    except x509.ExtensionNotFound:
        names = []
    return _issue(authority, present.subject, names, key, (begin, end))


def _issue(
    authority: Authority,
    subject: x509.Name,
    names: list[x509.GeneralName],
    key: ec.EllipticCurvePrivateKey,
    life: tuple[datetime, datetime],
) -> Issued:
    builder = _builder(subject, authority.certificate.subject, key.public_key(), *life)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(_authority_key_id(authority.certificate), critical=False)
    )
    if names:
        # RFC 5280 §4.2.1.6: critical when the subject is empty, since it is then the only name.
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
    certificate = builder.sign(authority.key, hashes.SHA256())
    return Issued(_certificate_pem(certificate), _key_pem(key))


def server_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, AEAD suites only, client certificate required, every connection proves it anew."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, authority)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    return context


def client_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """The other end of `server_context`; checks the server's certificate and its host name."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, authority)


def _context(protocol: int, certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_TLS12)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    return context


def _check_names(domain: str, sites: Mapping[str, Sequence[str]]) -> None:
    aliases = [alias for some in sites.values() for alias in some]
    for field, name in [("domain", domain), *(("site", s) for s in sites), *(("alias", a) for a in aliases)]:
        if not _is_label(name):
            raise Refused("pki.name", f"{field}: expected lower-case letters, digits and -, got {name!r}")
    for alias in aliases:
        if alias == "kme" or aliases.count(alias) > 1:
            raise Refused("pki.name", f"alias: expected one of its own, other than 'kme', got {alias!r}")


def _is_label(name: str) -> bool:
    try:
        return slug(name) == name
    except ValueError:
        return False


def _ensure_authority(folder: Path, domain: str, now: datetime) -> Authority:
    certificate_path, key_path = folder / "ca.pem", folder / "ca.key"
    common_name = _authority_name(domain)
    if not certificate_path.exists() and not key_path.exists():
        made = create_authority(common_name, now - SKEW, now + AUTHORITY_LIFE)
        write_private(key_path, _key_pem(made.key), durable=True)
        write_private(certificate_path, _certificate_pem(made.certificate), durable=True)
        return made
    found = load_pair(certificate_path, key_path)
    if found is None:
        raise Faulty(
            "pki.damaged",
            f"folder: {certificate_path} and ca.key are incomplete or do not belong together; "
            "put them back, or remove the folder to begin with a new authority",
        )
    if found.certificate.subject != _name(common_name):
        raise Refused(
            "pki.other_domain", f"domain: {folder} holds the authority of another one, not {domain!r}"
        )
    begin = found.certificate.not_valid_before_utc
    if now < begin:
        raise Refused(
            "pki.clock",
            f"{certificate_path}: begins at {begin:%Y-%m-%d %H:%M} UTC, the clock of this machine says "
            f"{now:%Y-%m-%d %H:%M}: set the clock",
        )
    if found.certificate.not_valid_after_utc - now > RENEW_BEFORE:
        return found
    # The same key and name: what it signed stays valid under the new certificate.
    renewed = _self_sign(common_name, found.key, now - SKEW, now + AUTHORITY_LIFE)
    write_private(certificate_path, _certificate_pem(renewed.certificate), durable=True)
    return renewed


def _ensure_leaf(
    authority: Authority, stem: Path, principal: str, hosts: Sequence[str], now: datetime
) -> Credentials:
    credentials = Credentials(
        principal=principal, certificate=stem.with_suffix(".pem"), key=stem.with_suffix(".key")
    )
    found = load_pair(credentials.certificate, credentials.key)
    if found is None or not _is_good(found.certificate, authority, principal, now):
        made = issue(
            authority,
            begin=now - SKEW,
            end=min(now + LEAF_LIFE, authority.certificate.not_valid_after_utc),
            uris=(principal,),
            hosts=hosts,
            common_name=stem.name,
        )
        write_private(credentials.key, made.key_pem)
        write_private(credentials.certificate, made.certificate_pem)
    return credentials


def _is_good(certificate: x509.Certificate, authority: Authority, principal: str, now: datetime) -> bool:
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    if names.get_values_for_type(x509.UniformResourceIdentifier) != [principal]:
        return False
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE


def load_pair(certificate_path: Path, key_path: Path) -> Authority | None:
    """The pair in two files; None when one is absent, unreadable, or they do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return Authority(certificate, key)


def _self_sign(
    common_name: str, key: ec.EllipticCurvePrivateKey, begin: datetime, end: datetime
) -> Authority:
    name = _name(common_name)
    certificate = (
        _builder(name, name, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _authority_key_id(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_name(domain: str) -> str:
    return f"{domain[:40]} development CA"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Put a file of mode 0600 in place at once; content and name are flushed when `durable`.

    What is signed can be made again.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)
    if durable:
        flush_folder(path.parent)
