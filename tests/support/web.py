"""A small authority, a key service in memory, and a running server: what tests of the web face share."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from multiplane.api.north import Key, KeyRequest, KeyStatus
from multiplane.api.wire.web import Route
from multiplane.kernel.errors import Busy, MultiplaneError, Refused
from multiplane.kernel.nouns import Caller
from multiplane.runtime.http import HttpServer
from multiplane.runtime.http_limits import Limits
from multiplane.standards import etsi014

ALICE = "urn:qkd:test:left:alice"
BOB = "urn:qkd:test:right:bob"
CAROL = "urn:qkd:test:right:carol"
ODD = "urn:qkd:test:right:a/b?c=d%e&f+g h"
DAY = dt.timedelta(days=1)


class Credential(msgspec.Struct, frozen=True):
    """PEM files of one end entity."""

    ca: Path
    cert: Path
    key: Path

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.cert, self.key)
        return context

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert, self.key)
        context.load_verify_locations(self.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = folder / f"{name}.pem"
        certificate = (
            self._builder(self._subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_CA_USAGE, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )

    def issue(self, stem: str, *, uris: Iterable[str] = (), common_name: str = "") -> Credential:
        """A certificate for both sides of a loopback connection with these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        names: list[x509.GeneralName] = [x509.IPAddress(_LOOPBACK)]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._builder(subject, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Credential(ca=self.pem, cert=cert_file, key=key_file)

    def application(self, urn: str) -> Credential:
        return self.issue(uuid.uuid4().hex, uris=[urn])


_CA_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_LOOPBACK = ipaddress.ip_address("127.0.0.1")


def identify(certificate: bytes) -> tuple[Caller, int]:
    """URI names, else the common name; exactly one, else Refused."""
    parsed = x509.load_der_x509_certificate(certificate)
    alternatives = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    if not found:
        found = [str(item.value) for item in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(found) != 1:
        raise Refused("identity.ambiguous", f"certificate: expected one name, got {len(found)}")
    return Caller(principal=found[0], domain="test"), int(parsed.not_valid_after_utc.timestamp()) * 10**9


class MemoryNorth:
    """Issues and hands out keys from a dictionary, by the rules of the north door."""

    default_bit, min_bit, max_bit, max_number, capacity = 256, 64, 4096, 16, 100

    def __init__(self) -> None:
        self.known = {"bob": BOB} | {urn: urn for urn in (ALICE, BOB, CAROL, ODD)}
        self.stock = self.capacity
        self.issued: dict[str, tuple[str, str, bytes]] = {}
        self.fails_with: BaseException | None = None
        self.calls: list[tuple[str, str]] = []

    def _peer(self, caller: Caller, peer: str) -> str:
        self.calls.append((caller.principal, peer))
        if self.fails_with is not None:
            raise self.fails_with
        if peer not in self.known:
            raise Refused("north.unknown_application", f"peer: expected a registered one, got {peer!r}")
        if self.known[peer] == caller.principal:
            raise Refused("north.not_allowed", "peer: expected another application than the caller")
        return self.known[peer]

    async def key_status(self, caller: Caller, peer: str) -> KeyStatus:
        return KeyStatus(
            source_kme="urn:qkd:test:left:kme",
            target_kme="urn:qkd:test:right:kme",
            master=caller.principal,
            slave=self._peer(caller, peer),
            key_size_bit=self.default_bit,
            stored_key_count=self.stock,
            max_key_count=self.capacity,
            max_key_per_request=self.max_number,
            max_key_size_bit=self.max_bit,
            min_key_size_bit=self.min_bit,
        )

    async def issue_keys(self, caller: Caller, request: KeyRequest) -> tuple[Key, ...]:
        peer, size_bit = self._peer(caller, request.peer), request.size_bit or self.default_bit
        if request.others:
            raise Refused("key.additional", "additional_slave_SAE_IDs: expected none")
        if not 1 <= request.number <= self.max_number:
            raise Refused("key.number", f"number: expected 1 to {self.max_number}, got {request.number}")
        if size_bit % 8:
            raise Refused("key.size_multiple", f"size: expected a multiple of 8, got {size_bit}")
        if not self.min_bit <= size_bit <= self.max_bit:
            raise Refused("key.size", f"size: expected {self.min_bit} to {self.max_bit}, got {size_bit}")
        if request.number > self.stock:
            raise Busy("key.dry", f"stock: {self.stock} keys left", retry_after_ns=2_500_000_000)
        self.stock -= request.number
        keys = tuple(
            Key(key_id=str(uuid.uuid4()), key=os.urandom(size_bit // 8)) for _ in range(request.number)
        )
        self.issued |= {key.key_id: (caller.principal, peer, key.key) for key in keys}
        return keys

    async def collect_keys(self, caller: Caller, master: str, key_ids: tuple[str, ...]) -> tuple[Key, ...]:
        if self.fails_with is not None:
            raise self.fails_with
        for key_id in key_ids:
            if key_id in self.issued and self.issued[key_id][1] != caller.principal:
                raise Refused("key.not_yours", "key_ID: issued for another application")
        if any(key_id not in self.issued or self.issued[key_id][0] != master for key_id in key_ids):
            raise Refused("key.not_found", "key_ID: expected ids that wait for the caller")
        return tuple(Key(key_id=key_id, key=self.issued.pop(key_id)[2]) for key_id in key_ids)


class Points:
    """Fault points: records what was reached, raises where told."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.raises: dict[str, MultiplaneError] = {}

    def reach(self, point: str) -> None:
        self.reached.append(point)
        if point in self.raises:
            raise self.raises[point]


class Served(msgspec.Struct):
    """A server under test and what stands behind it."""

    server: HttpServer
    port: int
    north: MemoryNorth
    faults: Points

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    credential: Credential,
    *,
    limits: Limits | None = None,
    routes: Iterable[Route] | None = None,
    wall_ns: Callable[[], int] = time.time_ns,
) -> AsyncIterator[Served]:
    """The 014 table (or `routes`) on a free loopback port."""
    north, faults = MemoryNorth(), Points()
    table = etsi014.routes(north, lambda wait_ns: wait_ns / 1e9) if routes is None else routes
    server = HttpServer(
        table, credential.server_context(), identify, wall_ns, faults=faults, limits=limits or Limits()
    )
    port = await server.start("127.0.0.1", 0)
    try:
        yield Served(server=server, port=port, north=north, faults=faults)
    finally:
        await server.stop(2.0)


class Answered(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire:
    """A TLS connection that sends bytes as they are given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, bare: bool = False) -> Answered:
        head = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = 0 if bare else int(headers.get("content-length", 0))
        return Answered(int(status_line.split()[1]), headers, await self.reader.readexactly(size))

    async def ask(self, verb: str, target: str, body: bytes = b"", *lines: str) -> Answered:
        head = [f"{verb} {target} HTTP/1.1", "Host: kme", *lines]
        if body:
            head.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join([*head, "", ""]).encode() + body)
        return await self.answer(bare=verb == "HEAD")

    async def ended(self) -> bool:
        """Whether the server has closed, with nothing more to read."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    wire = Wire(reader, writer)
    try:
        yield wire
    finally:
        await wire.close()
