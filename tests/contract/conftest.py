"""Certificates for the contract tests: made for the run, never reused."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority:
    """A certificate authority for one test run; elements are named by a URI in the subject's alternatives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        root = self._builder(self._name, self._key.public_key(), 3_600).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self._root = folder / "root.pem"
        self._root.write_bytes(root.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, valid_s: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(seconds=valid_s))
        )

    def contexts(self, urn: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """Server and client context of an element."""
        path = self._folder / f"{urn.replace(':', '_')}.pem"
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(urn)])
            builder = self._builder(x509.Name([]), key.public_key(), 3_600).add_extension(
                names, critical=True
            )
            path.write_bytes(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                + builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
            )
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        for context in (server, client):
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._root)
            context.load_cert_chain(path)
        return server, client


@pytest.fixture(scope="session")
def contexts(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]:
    """Server and client context of the element with a given URN."""
    return Authority(tmp_path_factory.mktemp("authority")).contexts
