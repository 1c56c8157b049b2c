"""The development PKI: what is made, kept and renewed, and who gets through the TLS it is for."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import stat
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from multiplane.kernel.errors import Faulty, Refused
from multiplane.runtime.pki import (
    Authority,
    Credentials,
    Pki,
    client_context,
    create_authority,
    ensure_pki,
    issue,
    server_context,
    write_private,
)

DAY_NS = 86_400 * 10**9
SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
SITES = {"quijote": ["alice", "carol"], "norte": ["bob"], "sur": []}


def load(credentials: Credentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credentials.certificate.read_bytes())


def san(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def all_of(pki: Pki) -> list[Credentials]:
    return [pki.controller, pki.operator, *pki.kmes.values(), *pki.saes.values()]


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return ensure_pki(tmp_path / "pki", "madqci", SITES, time.time_ns())


class TestFiles:
    def test_every_principal_has_its_own_name_and_place(self, pki: Pki, tmp_path: Path) -> None:
        folder = tmp_path / "pki"
        found = {str(c.certificate.relative_to(folder)): c.principal for c in all_of(pki)}
        assert found == {
            "controller.pem": "urn:qkd:madqci:controller",
            "operator.pem": "urn:qkd:madqci:operator",
            "kme/quijote.pem": "urn:qkd:madqci:quijote:kme",
            "kme/norte.pem": "urn:qkd:madqci:norte:kme",
            "kme/sur.pem": "urn:qkd:madqci:sur:kme",
            "sae/alice.pem": "urn:qkd:madqci:quijote:alice",
            "sae/carol.pem": "urn:qkd:madqci:quijote:carol",
            "sae/bob.pem": "urn:qkd:madqci:norte:bob",
        }
        for credentials in all_of(pki):
            uris = san(load(credentials)).get_values_for_type(x509.UniformResourceIdentifier)
            assert uris == [credentials.principal]
            assert credentials.key == credentials.certificate.with_suffix(".key")
        names = {"ca"} | {name.removesuffix(".pem") for name in found}
        assert set(contents(folder)) == {name + end for name in names for end in (".pem", ".key")}

    def test_servers_are_localhost_and_applications_are_no_hosts(self, pki: Pki) -> None:
        for credentials in (pki.controller, *pki.kmes.values()):
            names = san(load(credentials))
            assert names.get_values_for_type(x509.DNSName) == ["localhost"]
            assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
        for credentials in pki.saes.values():
            assert len(list(san(load(credentials)))) == 1

    def test_keys_and_folders_are_private(self, pki: Pki, tmp_path: Path) -> None:
        for file in (tmp_path / "pki").rglob("*"):
            expected = 0o700 if file.is_dir() else 0o600
            assert stat.S_IMODE(file.stat().st_mode) == expected

    def test_a_second_run_changes_nothing(self, pki: Pki, tmp_path: Path) -> None:
        before = contents(tmp_path / "pki")
        assert ensure_pki(tmp_path / "pki", "madqci", SITES, time.time_ns()) == pki
        assert contents(tmp_path / "pki") == before

    def test_a_new_site_is_added_and_the_rest_kept(self, pki: Pki, tmp_path: Path) -> None:
        before = contents(tmp_path / "pki")
        more = ensure_pki(tmp_path / "pki", "madqci", {**SITES, "este": ["dave"]}, time.time_ns())
        after = contents(tmp_path / "pki")
        assert before.items() < after.items()
        assert set(after) - set(before) == {
            f"{n}{e}" for n in ("kme/este", "sae/dave") for e in (".pem", ".key")
        }
        assert set(more.kmes) == {*SITES, "este"}

    @pytest.mark.parametrize(("days", "renewed"), [(357, False), (359, True), (400, True)])
    def test_a_certificate_is_renewed_in_its_last_week(
        self, pki: Pki, tmp_path: Path, days: int, renewed: bool
    ) -> None:
        before = contents(tmp_path / "pki")
        later_ns = time.time_ns() + days * DAY_NS
        ensure_pki(tmp_path / "pki", "madqci", SITES, later_ns)
        after = contents(tmp_path / "pki")
        changed = {name for name in before if before[name] != after[name]}
        assert changed == (set(before) - {"ca.pem", "ca.key"} if renewed else set())

    def test_an_old_authority_is_renewed_with_its_key_and_its_certificates_stay_good(
        self, tmp_path: Path
    ) -> None:
        folder, now_ns = tmp_path / "pki", time.time_ns()
        ensure_pki(folder, "madqci", {}, now_ns - 1820 * DAY_NS)
        before = contents(folder)
        pki = ensure_pki(folder, "madqci", SITES, now_ns)
        after = contents(folder)
        assert before["ca.key"] == after["ca.key"]
        assert before["ca.pem"] != after["ca.pem"]
        handshake(server_of(pki, pki.kmes["sur"]), client_of(pki, pki.saes["bob"]))

    @pytest.mark.parametrize("name", ["kme/norte.pem", "kme/norte.key"])
    @pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", None])
    def test_a_damaged_or_lost_leaf_is_made_again(
        self, pki: Pki, tmp_path: Path, name: str, damage: bytes | None
    ) -> None:
        before = contents(tmp_path / "pki")
        if damage is None:
            (tmp_path / "pki" / name).unlink()
        else:
            (tmp_path / "pki" / name).write_bytes(damage)
        ensure_pki(tmp_path / "pki", "madqci", SITES, time.time_ns())
        after = contents(tmp_path / "pki")
        assert {n for n in before if before[n] != after[n]} == {"kme/norte.pem", "kme/norte.key"}
        handshake(server_of(pki, pki.kmes["norte"]), client_of(pki, pki.saes["bob"]))

    def test_an_alias_that_moved_to_another_site_gets_its_new_name(self, pki: Pki, tmp_path: Path) -> None:
        moved = ensure_pki(tmp_path / "pki", "madqci", {"norte": ["alice"]}, time.time_ns())
        (uri,) = san(load(moved.saes["alice"])).get_values_for_type(x509.UniformResourceIdentifier)
        assert uri == "urn:qkd:madqci:norte:alice"

    @pytest.mark.parametrize("damage", ["lost key", "lost certificate", "another key"])
    def test_a_broken_authority_is_an_error_and_nothing_is_replaced(
        self, pki: Pki, tmp_path: Path, damage: str
    ) -> None:
        folder = tmp_path / "pki"
        if damage == "another key":
            (folder / "ca.key").write_bytes((folder / "controller.key").read_bytes())
        else:
            (folder / ("ca.key" if damage == "lost key" else "ca.pem")).unlink()
        before = contents(folder)
        with pytest.raises(Faulty, match=r"pki\.damaged"):
            ensure_pki(folder, "madqci", SITES, time.time_ns())
        assert contents(folder) == before

    def test_the_folder_of_another_domain_is_refused(self, pki: Pki, tmp_path: Path) -> None:
        with pytest.raises(Refused, match=r"pki\.other_domain"):
            ensure_pki(tmp_path / "pki", "otherqci", SITES, time.time_ns())

    @pytest.mark.parametrize(
        ("domain", "sites"),
        [
            ("Mad QCI", {}),
            ("", {}),
            ("madqci", {"../up": []}),
            ("madqci", {"Norte": []}),
            ("madqci", {"norte": ["a:b"]}),
            ("madqci", {"norte": [""]}),
            ("madqci", {"norte": ["kme"]}),
            ("madqci", {"norte": ["bob"], "sur": ["bob"]}),
            ("madqci", {"norte": ["bob", "bob"]}),
        ],
    )
    def test_a_name_that_is_no_label_of_its_own_is_refused_before_anything_is_made(
        self, tmp_path: Path, domain: str, sites: dict[str, list[str]]
    ) -> None:
        with pytest.raises(Refused, match=r"pki\.name"):
            ensure_pki(tmp_path / "pki", domain, sites, time.time_ns())
        assert not (tmp_path / "pki").exists()

    def test_100_sites_take_less_than_a_second(self, tmp_path: Path) -> None:
        sites = {f"site-{n}": [f"sae-{n}"] for n in range(100)}
        begun_s = time.process_time()
        ensure_pki(tmp_path / "pki", "madqci", sites, time.time_ns())
        assert 0.005 < time.process_time() - begun_s < 1.0


class TestCertificates:
    def test_leaves_serve_both_ends_and_sign_nothing(self, pki: Pki) -> None:
        authority = x509.load_pem_x509_certificate(pki.authority.read_bytes())
        own_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        for credentials in all_of(pki):
            certificate = load(credentials)
            certificate.verify_directly_issued_by(authority)
            extensions = certificate.extensions
            basic = extensions.get_extension_for_class(x509.BasicConstraints)
            usage = extensions.get_extension_for_class(x509.KeyUsage)
            purposes = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
            issuer_id = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            assert (basic.critical, basic.value.ca) == (True, False)
            assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (
                True,
                True,
                False,
            )
            assert purposes == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
            assert issuer_id.key_identifier == own_id
            public_key = certificate.public_key()
            assert isinstance(public_key, ec.EllipticCurvePublicKey)
            assert isinstance(public_key.curve, ec.SECP256R1)

    def test_the_authority_signs_leaves_only(self, pki: Pki) -> None:
        certificate = x509.load_pem_x509_certificate(pki.authority.read_bytes())
        certificate.verify_directly_issued_by(certificate)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
        assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)

    def test_lives_are_one_year_and_five(self, pki: Pki) -> None:
        now = datetime.now(UTC)
        authority = x509.load_pem_x509_certificate(pki.authority.read_bytes())
        for certificate, years in ((load(pki.controller), 1), (authority, 5)):
            assert abs(certificate.not_valid_after_utc - now - timedelta(days=365 * years)) < timedelta(
                minutes=1
            )
            assert timedelta(minutes=4) < now - certificate.not_valid_before_utc < timedelta(minutes=6)

    def test_serial_numbers_and_keys_are_all_different(self, pki: Pki) -> None:
        certificates = [load(credentials) for credentials in all_of(pki)]
        assert len({c.serial_number for c in certificates}) == len(certificates)
        assert min(c.serial_number for c in certificates) > 2**100
        assert len({c.public_key().public_bytes(*SPKI) for c in certificates}) == len(certificates)

    def test_any_identities_can_be_issued(self) -> None:
        authority, begin, end = young_authority()
        both = issue(authority, begin=begin, end=end, uris=("urn:a:b", "urn:c:d"), hosts=("h", "::1"))
        names = san(x509.load_pem_x509_certificate(both.certificate_pem))
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:a:b", "urn:c:d"]
        assert names.get_values_for_type(x509.DNSName) == ["h"]
        assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("::1")]
        none = x509.load_pem_x509_certificate(issue(authority, begin=begin, end=end).certificate_pem)
        assert len(none.subject) == 0
        with pytest.raises(x509.ExtensionNotFound):
            san(none)

    def test_an_issued_key_does_not_show(self) -> None:
        authority, begin, end = young_authority()
        issued = issue(authority, begin=begin, end=end)
        assert b"PRIVATE KEY" in issued.key_pem
        assert "PRIVATE" not in repr(issued)
        assert isinstance(
            serialization.load_pem_private_key(issued.key_pem, None), ec.EllipticCurvePrivateKey
        )


def young_authority() -> tuple[Authority, datetime, datetime]:
    begin = datetime.now(UTC) - timedelta(minutes=1)
    end = begin + timedelta(days=1)
    return create_authority("test CA", begin, end), begin, end


def server_of(pki: Pki, credentials: Credentials) -> ssl.SSLContext:
    return server_context(credentials.certificate, credentials.key, pki.authority)


def client_of(pki: Pki, credentials: Credentials) -> ssl.SSLContext:
    return client_context(credentials.certificate, credentials.key, pki.authority)


def issue_to(
    folder: Path,
    authority: Authority,
    begin: datetime,
    end: datetime,
    uris: Sequence[str] = ("urn:qkd:d:s:x",),
) -> tuple[Path, Path]:
    issued = issue(authority, begin=begin, end=end, uris=uris, hosts=("localhost",))
    certificate, key = folder / "x.pem", folder / "x.key"
    certificate.write_bytes(issued.certificate_pem)
    key.write_bytes(issued.key_pem)
    return certificate, key


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory until both ends are content; raises what either end raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = set(ends)
    for _ in range(20):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.discard(end)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return ends[1], ends[0]
    raise AssertionError("the handshake did not end")


def unverifying(files: tuple[Path, Path]) -> ssl.SSLContext:
    """A client that swallows any server certificate, so that the server's own check is what refuses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(*files)
    return context


class TestTls:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_both_ends_know_each_other(self, pki: Pki, version: ssl.TLSVersion, host: str) -> None:
        client = client_of(pki, pki.saes["alice"])
        client.maximum_version = version
        server_end, client_end = handshake(server_of(pki, pki.kmes["quijote"]), client, host)
        for end, principal in ((server_end, pki.saes["alice"]), (client_end, pki.kmes["quijote"])):
            peer = end.getpeercert()
            assert peer is not None
            assert ("URI", principal.principal) in peer["subjectAltName"]
            assert end.compression() is None
            cipher = end.cipher()
            assert cipher is not None
            assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]

    def test_a_client_without_certificate_is_refused(self, pki: Pki) -> None:
        client = ssl.create_default_context(cafile=pki.authority)
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            handshake(server_of(pki, pki.kmes["norte"]), client)

    def test_a_client_of_another_authority_is_refused(self, pki: Pki, tmp_path: Path) -> None:
        stranger = issue_to(tmp_path, *young_authority(), uris=(pki.saes["bob"].principal,))
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server_of(pki, pki.kmes["norte"]), client_context(*stranger, pki.authority))

    @pytest.mark.parametrize(
        ("begin_s", "end_s", "good"), [(-60, 60, True), (-60, -1, False), (60, 90, False)]
    )
    def test_a_certificate_counts_only_within_its_window(
        self, pki: Pki, tmp_path: Path, begin_s: int, end_s: int, good: bool
    ) -> None:
        authority, _, _ = young_authority()
        (tmp_path / "ca.pem").write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
        now = datetime.now(UTC)
        begin, end = now + timedelta(seconds=begin_s), now + timedelta(seconds=end_s)
        files = issue_to(tmp_path, authority, begin, end)
        server = server_context(*files, tmp_path / "ca.pem")
        client = client_context(*files, tmp_path / "ca.pem")
        if good:
            handshake(server, client)
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"expired|not yet valid"):
                handshake(server, client)
            with pytest.raises(ssl.SSLCertVerificationError, match=r"expired|not yet valid"):
                handshake(server, unverifying(files))

    def test_a_client_checks_the_host(self, pki: Pki) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(server_of(pki, pki.kmes["norte"]), client_of(pki, pki.saes["bob"]), "example.org")

    def test_an_application_cannot_play_a_server(self, pki: Pki) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(server_of(pki, pki.saes["alice"]), client_of(pki, pki.saes["bob"]))

    def test_suites_without_authenticated_encryption_are_refused(self, pki: Pki) -> None:
        client = client_of(pki, pki.saes["bob"])
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA")
        with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
            handshake(server_of(pki, pki.kmes["norte"]), client)

    def test_tls_1_1_is_refused(self, pki: Pki) -> None:
        client = client_of(pki, pki.saes["bob"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            client.minimum_version = ssl.TLSVersion.TLSv1
            client.maximum_version = ssl.TLSVersion.TLSv1_1
        client.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            handshake(server_of(pki, pki.kmes["norte"]), client)

    def test_the_contexts_carry_an_asyncio_stream(self, pki: Pki) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()
            await writer.wait_closed()

        async def scene() -> bytes:
            context = server_of(pki, pki.kmes["sur"])
            server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_of(pki, pki.saes["bob"])
            )
            writer.write(b"hello\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
            return answer

        assert asyncio.run(scene()) == b"hello\n"


@pytest.mark.parametrize("durable", [True, False])
def test_a_durable_file_has_content_and_name_flushed(
    durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush = os.fsync

    def seen(handle: int) -> None:
        flushed.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        flush(handle)

    monkeypatch.setattr(os, "fsync", seen)
    write_private(tmp_path / "ca.key", b"secret", durable=durable)
    assert flushed == (["file", "folder"] if durable else [])
    assert (tmp_path / "ca.key").read_bytes() == b"secret"
    assert [path.name for path in tmp_path.iterdir()] == ["ca.key"]
