"""Certificates, authority and revocation list change while servers run: what counts and what stays."""

from __future__ import annotations

import asyncio
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from tests.support.web import Points, Wire, connected

from multiplane.api.wire.web import Reply, Request, Route
from multiplane.kernel.errors import Busy, Faulty, Refused
from multiplane.kernel.nouns import Caller
from multiplane.kernel.ports import Channel
from multiplane.runtime import certificate_changes
from multiplane.runtime.channel_tls import TlsChannels
from multiplane.runtime.clocks import PacedClock
from multiplane.runtime.dispatcher import Dispatcher
from multiplane.runtime.http import HttpServer
from multiplane.runtime.pki import (
    Credentials,
    Pki,
    client_context,
    create_authority,
    ensure_pki,
    issue,
    load_pair,
)
from multiplane.runtime.revocation import make_list, read_revoked
from multiplane.runtime.trust import Trust, TrustFiles, keep_looking
from multiplane.security.identity import peer_of

DAY_NS = 86_400 * 10**9
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
END = BEGIN + timedelta(days=30)
MINE = create_authority("mine", BEGIN, END)
OTHER = create_authority("mine", BEGIN, END)  # the same name, another key


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return ensure_pki(tmp_path / "pki", "lab", {"left": ["alice"], "right": ["bob"]}, time.time_ns())


def trust_of(pki: Pki, mine: Credentials) -> Trust:
    files = TrustFiles(
        certificate=mine.certificate,
        key=mine.key,
        authority=pki.authority,
        revoked=pki.authority.with_name("crl.pem"),
    )
    return Trust(files, time.time_ns)


def folder_of(pki: Pki) -> Path:
    return pki.authority.parent


def serial_at(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


class TestList:
    """Reading revocation lists."""

    def test_pem_der_and_several_authorities(self) -> None:
        second = create_authority("second", BEGIN, END)
        one = make_list(MINE.certificate, MINE.key, [5, 7], BEGIN, timedelta(days=1))
        two = make_list(second.certificate, second.key, [5], BEGIN, timedelta(days=2))
        authorities = [MINE.certificate, second.certificate]
        der = x509.load_pem_x509_crl(one).public_bytes(Encoding.DER)
        assert read_revoked(der, authorities).certificates == {("CN=mine", 5), ("CN=mine", 7)}
        both = read_revoked(b"a comment\n" + one + two, authorities)
        assert both.certificates == {("CN=mine", 5), ("CN=mine", 7), ("CN=second", 5)}
        assert both.end_ns == int((BEGIN + timedelta(days=1)).timestamp()) * 10**9

    def test_what_is_not_ours_damaged_or_older_is_refused(self) -> None:
        good = make_list(MINE.certificate, MINE.key, [5], BEGIN, timedelta(days=1))
        foreign = make_list(OTHER.certificate, OTHER.key, [], BEGIN, timedelta(days=1))
        older = make_list(MINE.certificate, MINE.key, [], BEGIN - timedelta(seconds=1), timedelta(days=1))
        since = read_revoked(good, [MINE.certificate])
        der = x509.load_pem_x509_crl(good).public_bytes(Encoding.DER)
        flipped = der[:-5] + bytes([der[-5] ^ 1]) + der[-4:]
        for data in (foreign, older, b"", b"\x30\x03abc", good[:-30], good + good[:200], der[:-1], flipped):
            with pytest.raises(Refused, match=r"pki\.revocation"):
                read_revoked(data, [MINE.certificate], since)
        assert read_revoked(good, [MINE.certificate], since) == since

    def test_the_list_of_an_authority_cannot_be_dropped(self) -> None:
        second = create_authority("second", BEGIN, END)
        one = make_list(MINE.certificate, MINE.key, [5], BEGIN, timedelta(days=1))
        two = make_list(second.certificate, second.key, [6], BEGIN, timedelta(days=1))
        authorities = [MINE.certificate, second.certificate]
        since = read_revoked(one + two, authorities)
        with pytest.raises(Refused, match="CN=mine"):
            read_revoked(two, authorities, since)

    @given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
    def test_no_bytes_do_more_than_be_refused(self, noise: bytes, at: int, byte: int) -> None:
        der = bytearray(_LIST_DER)
        der[at % len(der)] = byte
        for data in (noise, bytes(der), b"-----BEGIN X509 CRL-----" + noise + b"-----END X509 CRL-----"):
            try:
                found = read_revoked(data, [MINE.certificate])
            except Refused:
                continue
            assert found.certificates == {("CN=mine", 5)}


_LIST_DER = x509.load_pem_x509_crl(
    make_list(MINE.certificate, MINE.key, [5], BEGIN, timedelta(days=1))
).public_bytes(Encoding.DER)


class TestTrust:
    """Files that change."""

    def test_what_is_broken_keeps_the_old_in_force(
        self, pki: Pki, capsys: pytest.CaptureFixture[str]
    ) -> None:
        mine = pki.kmes["left"]
        trust = trust_of(pki, mine)
        before = trust.server
        good, key = mine.certificate.read_bytes(), mine.key.read_bytes()
        stranger = issue(OTHER, begin=BEGIN, end=END, uris=[mine.principal])
        authority = load_pair(folder_of(pki) / "ca.pem", folder_of(pki) / "ca.key")
        assert authority is not None
        ended = issue(authority, begin=BEGIN, end=BEGIN + timedelta(seconds=1), uris=[mine.principal])
        somebody = pki.kmes["right"]
        broken = {
            "empty": (b"", key),
            "cut": (good[:300], key),
            "stranger's": (stranger.certificate_pem, stranger.key_pem),
            "ended": (ended.certificate_pem, ended.key_pem),
            "somebody else's": (somebody.certificate.read_bytes(), somebody.key.read_bytes()),
            "key of another": (good, somebody.key.read_bytes()),
            "no key": (good, b"no key"),
        }
        for name, (certificate, secret) in broken.items():
            mine.certificate.write_bytes(certificate)
            mine.key.write_bytes(secret)
            assert not trust.look(), name
            assert trust.server is before
            told = capsys.readouterr()
            lines = [line for line in (told.out + told.err).splitlines() if "stays in force" in line]
            assert len(lines) == 1, name
            assert "PRIVATE" not in told.out + told.err
            assert not trust.look(), "said once"
            assert "stays in force" not in "".join(capsys.readouterr())
        mine.certificate.write_bytes(good)
        mine.key.write_bytes(key)
        assert trust.look()
        assert trust.server is not before

    def test_bad_lists_keep_the_last_good_one(self, pki: Pki) -> None:
        certificate_changes.revoke(folder_of(pki), "alice", time.time_ns())
        trust, path = trust_of(pki, pki.kmes["left"]), folder_of(pki) / "crl.pem"
        alice = peer_of(
            x509.load_pem_x509_certificate(pki.saes["alice"].certificate.read_bytes()).public_bytes(
                Encoding.DER
            )
        )
        good = path.read_bytes()
        for bad in (
            b"",
            good[:100],
            make_list(OTHER.certificate, OTHER.key, [], END, timedelta(days=1)),
            None,
        ):
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            assert not trust.look()
            with pytest.raises(Refused, match=r"identity\.revoked"):
                trust.check(alice)
        path.write_bytes(good)
        assert trust.look()

    def test_a_bad_list_or_certificate_at_the_start_is_said_with_its_file(self, pki: Pki) -> None:
        path = folder_of(pki) / "crl.pem"
        path.write_bytes(b"no list")
        with pytest.raises(Refused, match=r"crl\.pem: expected revocation lists"):
            trust_of(pki, pki.kmes["left"])
        path.unlink()
        pki.kmes["left"].certificate.write_bytes(b"no certificate")
        with pytest.raises(Refused, match=r"left\.pem: expected certificates"):
            trust_of(pki, pki.kmes["left"])

    def test_a_list_that_has_ended_still_counts(self, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
        certificate_changes.revoke(folder_of(pki), "alice", time.time_ns() - 400 * DAY_NS)
        trust = trust_of(pki, pki.kmes["left"])
        assert "".join(capsys.readouterr()).count("should have been followed") == 1
        der = x509.load_pem_x509_certificate(pki.saes["alice"].certificate.read_bytes())
        with pytest.raises(Refused, match=r"identity\.revoked"):
            trust.check(peer_of(der.public_bytes(Encoding.DER)))
        assert not trust.look()
        assert "followed" not in "".join(capsys.readouterr()), "said once"

    def test_the_loop_takes_changes_up(self, pki: Pki) -> None:
        async def main() -> None:
            trust, changed = trust_of(pki, pki.kmes["left"]), asyncio.Event()
            trust.on_change.append(changed.set)
            looking = asyncio.create_task(keep_looking([trust], 0.01))
            certificate_changes.renew(folder_of(pki), "left", time.time_ns())
            await asyncio.wait_for(changed.wait(), 5.0)
            looking.cancel()

        asyncio.run(main())


class TestChanges:
    """`pki revoke` and `pki renew`."""

    def test_revocations_add_up(self, pki: Pki) -> None:
        folder = folder_of(pki)
        told = [certificate_changes.revoke(folder, name, time.time_ns()) for name in ("alice", "kme/right")]
        found = read_revoked((folder / "crl.pem").read_bytes(), [_ca(pki)])
        wanted = {serial_at(pki.saes["alice"].certificate), serial_at(pki.kmes["right"].certificate)}
        assert {serial for _, serial in found.certificates} == wanted
        assert {int(serial, 16) for serial in told} == wanted
        assert (folder / "crl.pem").stat().st_mode & 0o777 == 0o600

    def test_a_renewal_keeps_name_and_key_until_the_key_is_in_doubt(self, pki: Pki) -> None:
        folder, alice = folder_of(pki), pki.saes["alice"]
        before, key = serial_at(alice.certificate), alice.key.read_bytes()
        certificate_changes.renew(folder, "alice", time.time_ns())
        second = serial_at(alice.certificate)
        assert second != before
        assert alice.key.read_bytes() == key
        certificate_changes.revoke(folder, "alice", time.time_ns())
        certificate_changes.renew(folder, "alice", time.time_ns())
        assert alice.key.read_bytes() != key
        trust = trust_of(pki, pki.kmes["left"])
        made = x509.load_pem_x509_certificate(alice.certificate.read_bytes())
        peer = peer_of(made.public_bytes(Encoding.DER))
        assert peer.principal == alice.principal
        trust.check(peer)
        # What the next start finds is good: it makes nothing anew.
        ensure_pki(folder, "lab", {"left": ["alice"], "right": ["bob"]}, time.time_ns())
        assert serial_at(alice.certificate) == peer.serial

    def test_names_that_are_nobody_or_several(self, pki: Pki) -> None:
        ensure_pki(folder_of(pki), "lab", {"left": ["alice"], "alice": []}, time.time_ns())
        for name in ("nobody", "alice", "ca", "../kme/left", ""):
            with pytest.raises(Refused, match=r"input\.principal"):
                certificate_changes.revoke(folder_of(pki), name, time.time_ns())
        certificate_changes.revoke(folder_of(pki), "sae/alice", time.time_ns())

    def test_a_list_of_another_authority_is_never_overwritten(self, pki: Pki) -> None:
        path = folder_of(pki) / "crl.pem"
        path.write_bytes(make_list(OTHER.certificate, OTHER.key, [9], BEGIN, timedelta(days=1)))
        with pytest.raises(Refused, match=r"pki\.revocation"):
            certificate_changes.revoke(folder_of(pki), "alice", time.time_ns())
        (folder_of(pki) / "ca.key").unlink()
        with pytest.raises(Faulty, match=r"pki\.damaged"):
            certificate_changes.revoke(folder_of(pki), "alice", time.time_ns())


def _ca(pki: Pki) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pki.authority.read_bytes())


async def _who(request: Request) -> Reply:
    return Reply(status=200, body=f'"{request.caller.principal}"'.encode())


WHO = Route(verbs=("GET",), path="/who", handler=_who)


class Node:
    """A server and channels that share one trust, as a site has them."""

    def __init__(self, pki: Pki, site: str) -> None:
        self.trust = trust_of(pki, pki.kmes[site])

        def identify(der: bytes) -> tuple[Caller, int]:
            peer = peer_of(der)
            self.trust.check(peer)
            return Caller(principal=peer.principal, domain="lab"), peer.not_after_ns

        self.server = HttpServer([WHO], self.trust.server, identify, time.time_ns, faults=Points())
        self.identify = identify
        self.trust.on_change.append(lambda: self.server.renew(self.trust.server))


def context_of(pki: Pki, alias: str) -> ssl.SSLContext:
    mine = pki.saes[alias]
    return client_context(mine.certificate, mine.key, pki.authority)


def shown(wire: Wire) -> int:
    """Serial number of the certificate that the server showed."""
    der = wire.writer.get_extra_info("ssl_object").getpeercert(True)
    return x509.load_der_x509_certificate(der).serial_number


def test_a_server_gets_a_new_certificate_while_clients_pull(pki: Pki) -> None:
    seen: list[int] = []
    looks: asyncio.Queue[int] = asyncio.Queue()

    async def looked(times: int) -> None:
        for _ in range(times):
            seen.append(await looks.get())

    async def pull(port: int, context: ssl.SSLContext, done: asyncio.Event) -> int:
        answered = 0
        async with connected(port, context) as kept:
            first = shown(kept)
            while not done.is_set():
                assert (await kept.ask("GET", "/who")).status == 200
                async with connected(port, context) as fresh:
                    assert (await fresh.ask("GET", "/who")).status == 200
                    looks.put_nowait(shown(fresh))
                answered += 2
            assert shown(kept) == first
        return answered

    async def main() -> None:
        node = Node(pki, "left")
        port = await node.server.start("127.0.0.1", 0)
        done, serials = asyncio.Event(), [serial_at(pki.kmes["left"].certificate)]
        pulling = [asyncio.create_task(pull(port, context_of(pki, name), done)) for name in ("alice", "bob")]
        for _ in range(3):
            await looked(4)
            certificate_changes.renew(folder_of(pki), "left", time.time_ns())
            serials.append(serial_at(pki.kmes["left"].certificate))
            assert node.trust.look()
        await looked(4 + looks.qsize())  # those from before are of the old certificate
        done.set()
        assert sum(await asyncio.gather(*pulling)) == node.server.statistics().requests[200] > 20
        assert set(serials) == set(seen)
        assert node.server.statistics().requests.keys() == {200}
        await node.server.stop(1.0)

    asyncio.run(main())


def test_revoked_clients_are_turned_away_on_open_and_new_connections(pki: Pki) -> None:
    async def main() -> None:
        node = Node(pki, "left")
        port = await node.server.start("127.0.0.1", 0)
        alice, bob = context_of(pki, "alice"), context_of(pki, "bob")
        async with (
            connected(port, alice) as idle,
            connected(port, alice) as quick,
            connected(port, bob) as other,
        ):
            for wire in (idle, quick, other):
                assert (await wire.ask("GET", "/who")).status == 200
            certificate_changes.revoke(folder_of(pki), "alice", time.time_ns())
            await quick.send(b"GET /who HT")
            await asyncio.sleep(0.02)
            assert node.trust.look()
            assert await idle.ended()
            assert (await other.ask("GET", "/who")).status == 200
            async with connected(port, alice) as fresh:
                told = await fresh.ask("GET", "/who")
                assert told.status == 401
                assert "revoked" in told.json["message"]
                assert told.json["details"] == [{"code": "identity.revoked"}]
                assert await fresh.ended()
        certificate_changes.renew(folder_of(pki), "alice", time.time_ns())
        async with connected(port, context_of(pki, "alice")) as again:
            assert (await again.ask("GET", "/who")).status == 200
        await node.server.stop(1.0)

    asyncio.run(main())


def test_a_revoked_key_manager_loses_its_channels_until_it_has_a_new_certificate(pki: Pki) -> None:
    async def main() -> None:
        timeline = Dispatcher(PacedClock(0, 1.0))
        ticking = asyncio.create_task(timeline.run())
        ends: dict[str, TlsChannels] = {}
        nodes = {name: Node(pki, name) for name in ("left", "right")}
        ports: dict[str, int] = {}
        for name, node in nodes.items():
            who = node.identify
            ends[name] = channels = TlsChannels(
                timeline,
                node.trust.server,
                node.trust.client,
                identify=lambda der, who=who: who(der)[0],  # type: ignore[misc]
                resolve=lambda urn: ("127.0.0.1", ports[urn]),
                faults=Points(),
            )
            node.trust.on_change.append(
                lambda channels=channels, trust=node.trust: channels.renew(  # type: ignore[misc]
                    trust.server, trust.client
                )
            )
            ports[pki.kmes[name].principal] = await channels.listen("127.0.0.1", 0)
        left, right = (Caller(principal=pki.kmes[name].principal, domain="lab") for name in nodes)
        arrived: list[Channel] = []
        ends["right"].accept(right.principal, "kme", arrived.append)
        near = await ends["left"].open(left, right.principal, "kme", 0)
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        near.listen(lambda _: None, lost.set_result)
        certificate_changes.revoke(folder_of(pki), "left", time.time_ns())
        assert nodes["right"].trust.look()
        assert "revoked" in await asyncio.wait_for(lost, 5.0)
        with pytest.raises(Busy, match=r"channel\.unreachable"):
            await ends["left"].open(left, right.principal, "kme", 0)
        assert nodes["left"].trust.look()
        certificate_changes.renew(folder_of(pki), "left", time.time_ns())
        assert nodes["left"].trust.look()
        again = await ends["left"].open(left, right.principal, "kme", 0)
        assert again.peer == right
        for channels in ends.values():
            await channels.close()
        ticking.cancel()

    asyncio.run(main())
