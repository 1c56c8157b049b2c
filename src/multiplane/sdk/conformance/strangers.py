"""What a stranger brings: a certificate of an unknown authority, made on the spot, and an outdated hello."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import ssl
import struct
import tempfile
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from multiplane.kernel.errors import Refused
from multiplane.sdk.conformance.exchange import Credentials, NoAnswer, Trust

TLS_1_0: Final = 0x0301
TLS_1_1: Final = 0x0302
_HOUR: Final = dt.timedelta(hours=1)

# Suites of TLS 1.0 and 1.1: (EC)DHE and RSA with AES-CBC or 3DES and SHA-1.
_OLD_SUITES: Final = (0xC00A, 0xC009, 0xC014, 0xC013, 0x0039, 0x0033, 0x0035, 0x002F, 0x000A)
_CURVES: Final = (0x001D, 0x0017, 0x0018)
_HANDSHAKE, _ALERT = 0x16, 0x15
_SERVER_HELLO: Final = 0x02


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file. Raises: Refused(`input.certificate`)."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused("input.certificate", f"certificate {path}: {error}") from None


def names_in(path: Path) -> tuple[str, ...]:
    """Every text of a certificate that could be its holder's SAE ID, the likeliest first.

    URI, DNS and common names, then the serial number: the standard does not say where the id sits.
    """
    certificate = read_certificate(path)
    found: list[str] = []
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found += alternatives.get_values_for_type(x509.UniformResourceIdentifier)
        found += alternatives.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        pass
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    serial = certificate.serial_number
    return (*found, *(str(name.value) for name in common), str(serial), f"{serial:x}", f"{serial:X}")


def context_of_a_stranger(trust: Trust, cert: Path) -> ssl.SSLContext:
    """TLS as somebody with the names of `cert`, signed by an authority with the name of the real one."""
    own = read_certificate(cert)
    issuer, holder = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(own.issuer)
        .public_key(holder.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HOUR)
        .not_valid_after(now + _HOUR)
    )
    for extension in own.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName | x509.ExtendedKeyUsage):
            builder = builder.add_extension(extension.value, extension.critical)
    forged = builder.sign(issuer, hashes.SHA256())
    with tempfile.TemporaryDirectory() as folder:
        files = Credentials(Path(folder) / "cert.pem", Path(folder) / "key.pem")
        files.cert.write_bytes(forged.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            holder.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return trust.context(files)


async def accepts_hello(host: str, port: int, version: int, timeout_s: float) -> bool:
    """Whether a server answers a hello of this (outdated) TLS version with one of its own.

    The hello is written by hand: the TLS library here may be too new to speak so. Raises: NoAnswer.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(client_hello(host, version))
                await writer.drain()
                record = await reader.readexactly(6)
            finally:
                writer.transport.abort()
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    except TimeoutError:
        raise NoAnswer(f"no answer to the hello within {timeout_s:g} s", late=True) from None
    except OSError as error:
        raise NoAnswer(f"cannot connect, {error}") from None
    kind, _, _, message = struct.unpack("!BHHB", record)
    if kind not in (_HANDSHAKE, _ALERT):
        raise NoAnswer("the answer to the hello is no TLS")
    return bool(kind == _HANDSHAKE and message == _SERVER_HELLO)


def client_hello(host: str, version: int) -> bytes:
    """The first record of a TLS connection that offers `version` at most (RFC 4346, 7.4.1.2)."""

    def extension(number: int, content: bytes) -> bytes:
        return struct.pack("!HH", number, len(content)) + content

    def list16(content: bytes) -> bytes:
        return struct.pack("!H", len(content)) + content

    extensions = (
        (b"" if _is_address(host) else extension(0x0000, list16(b"\x00" + list16(host.encode("idna")))))
        + extension(0x000A, list16(struct.pack(f"!{len(_CURVES)}H", *_CURVES)))
        + extension(0x000B, b"\x01\x00")
    )
    suites = struct.pack(f"!{len(_OLD_SUITES)}H", *_OLD_SUITES)
    hello = struct.pack("!H", version) + os.urandom(32) + b"\x00"
    hello += list16(suites) + b"\x01\x00" + list16(extensions)
    handshake = b"\x01" + len(hello).to_bytes(3) + hello
    return struct.pack("!BHH", _HANDSHAKE, TLS_1_0, len(handshake)) + handshake


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
