"""What a process shows and whom it trusts, taken up anew while it runs.

Certificate, key, authority and revocation list are files that others replace. `Trust` looks at them every few
seconds and on SIGHUP. Something new counts for new handshakes; open connections go on until their own
certificate ends or is revoked. What is broken is said once, and what was in force stays in force.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.runtime.pki import client_context, server_context
from multiplane.runtime.revocation import NOBODY, Revoked, read_revoked
from multiplane.security.identity import Peer, peer_of, valid_at

LOOK_EVERY_S: Final = 3.0
_MOST_BYTES: Final = 16 * 1024 * 1024
_log: Final = structlog.get_logger("multiplane.runtime.trust")

_Stamp = tuple[int, int, int] | None


class TrustFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where what `Trust` reads lies, PEM but for the list, which may be DER; `revoked` need not be there."""

    certificate: Path
    key: Path
    authority: Path
    revoked: Path


class Trust:
    """The contexts and the revocation list in force.

    Args:
        files: what is read, now and whenever it changes.
        wall_ns: Unix time in nanoseconds by which certificates are judged.

    `server`, `client`: contexts for new handshakes. `on_change` is called after something new is in force.

    Raises: Refused(`pki.credentials`, `pki.revocation`) with the file and what is wrong with it.
    """

    def __init__(self, files: TrustFiles, wall_ns: Callable[[], int]) -> None:
        self.files = files
        self.on_change: list[Callable[[], None]] = []
        self._wall_ns = wall_ns
        self._revoked = NOBODY
        self._late = False
        self._principal = ""
        self._authorities: Sequence[x509.Certificate] = ()
        self._seen, self._seen_list = self._stamps()
        self.server, self.client = self._read_credentials()
        if self._seen_list is not None:
            self._revoked = self._read_revoked()
        self._warn_when_late()

    def check(self, peer: Peer) -> None:
        """Turn a revoked certificate away. Raises: Refused(`identity.revoked`)."""
        if (peer.issuer, peer.serial) in self._revoked.certificates:
            reason = f"certificate of {peer.principal}: it has been revoked: ask the operator for a new one"
            raise Refused("identity.revoked", reason)

    def look(self) -> bool:
        """Take up files that have changed since; whether anything new is in force. Never fails."""
        credentials, revoked = self._stamps()
        changed = False
        if credentials != self._seen:
            self._seen = credentials
            changed |= self._take_up("certificate, key, authority", self._renew)
            if changed and revoked is not None:
                self._seen_list = None  # a list counts by who may sign it
        if revoked != self._seen_list:
            changed |= self._take_up("revocation list", self._renew_revoked)
            self._seen_list = self._stamps()[1]
        self._warn_when_late()
        if changed:
            for told in self.on_change:
                told()
        return changed

    def _take_up(self, what: str, renew: Callable[[], None]) -> bool:
        try:
            renew()
        except MultiplaneError as error:
            _log.error("tls.kept", what=what, reason=f"{error.reason}; the last good one stays in force")
            return False
        _log.info("tls.renewed", what=what, principal=self._principal)
        return True

    def _renew(self) -> None:
        self.server, self.client = self._read_credentials()

    def _renew_revoked(self) -> None:
        if self._stamps()[1] is None:
            if self._revoked is not NOBODY:
                raise Refused("pki.revocation", f"{self.files.revoked}: expected a file, it is gone")
            return
        self._revoked = self._read_revoked()
        self._late = False

    def _warn_when_late(self) -> None:
        if not self._late and self._wall_ns() > self._revoked.end_ns:
            self._late = True
            _log.warning(
                "tls.revocation_late",
                reason=f"{self.files.revoked}: should have been followed by a later one; it stays in force",
            )

    def _stamps(self) -> tuple[tuple[_Stamp, ...], _Stamp]:
        files = self.files
        return tuple(map(_stamp, (files.certificate, files.key, files.authority))), _stamp(files.revoked)

    def _read_revoked(self) -> Revoked:
        path = self.files.revoked
        try:
            return read_revoked(_content(path), self._authorities, self._revoked)
        except Refused as error:
            raise Refused("pki.revocation", f"{path}: {error.reason}") from None

    def _read_credentials(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        files = self.files
        chain = _certificates(files.certificate)
        authorities = _certificates(files.authority)
        peer = peer_of(chain[0].public_bytes(Encoding.DER))
        verdict = valid_at(peer, self._wall_ns())
        if not verdict.allowed:
            raise _bad(files.certificate, f"expected one that is in date: {verdict.reason}")
        if self._principal not in ("", peer.principal):
            raise _bad(files.certificate, f"expected one of {self._principal}, got {peer.principal}")
        if not _leads_to(chain, authorities):
            raise _bad(files.certificate, f"expected one that {files.authority} has signed")
        try:
            server = server_context(files.certificate, files.key, files.authority)
            client = client_context(files.certificate, files.key, files.authority)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise _bad(files.key, f"expected the key of {files.certificate}: {reason}") from None
        self._principal, self._authorities = peer.principal, authorities
        return server, client


async def keep_looking(trusts: Iterable[Trust], every_s: float = LOOK_EVERY_S) -> None:
    """Look at all files every `every_s` seconds, > 0, until cancelled; one look at a time."""
    while True:
        await asyncio.sleep(every_s)
        await look_at_all(trusts)


async def look_at_all(trusts: Iterable[Trust]) -> None:
    """One look at all files, with room for other work between them."""
    for trust in trusts:
        trust.look()
        await asyncio.sleep(0)


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _bad(path, f"expected a readable file: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise _bad(path, f"expected at most {_MOST_BYTES} bytes")
    return content


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(path))
    except (ValueError, x509.InvalidVersion) as error:
        raise _bad(path, f"expected certificates in PEM: {error}") from None


def _bad(path: Path, reason: str) -> Refused:
    return Refused("pki.credentials", f"{path}: {reason}")


def _leads_to(chain: list[x509.Certificate], authorities: list[x509.Certificate]) -> bool:
    """Whether the first of a chain is signed by an authority, perhaps by way of the others."""
    first, *others = chain
    while not any(_signed(first, authority) for authority in authorities):
        parent = next((one for one in others if _signed(first, one)), None)
        if parent is None:
            return False
        others.remove(parent)
        first = parent
    return True


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
