"""Changes to a development PKI while its network runs: revoke a certificate, renew one.

Each change is one file put in place at once, so that a running network reads the old or the new, never half.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from multiplane.kernel.errors import Faulty, Refused
from multiplane.runtime.pki import LEAF_LIFE, SKEW, Authority, load_pair, reissue, write_private
from multiplane.runtime.revocation import NOBODY, make_list, read_revoked

REVOKED_FILE: Final = "crl.pem"
_SUBFOLDERS: Final = ("kme", "sae", "")


def revoke(folder: Path, name: str, wall_ns: int) -> str:
    """Put the present certificate of a principal on the revocation list; its serial number in hexadecimal.

    The list holds for a year: by then every certificate on it has ended.

    Args:
        folder: of the PKI, as `ensure_pki` made it.
        name: a site or an alias, as `kme/NAME` or `sae/NAME` where both exist; or `controller`.
        wall_ns: now, Unix nanoseconds of the wall clock.

    Raises:
        Refused(`input.principal`): no certificate of that name, or several.
        Refused(`pki.revocation`): the list that is there is damaged or somebody else's.
        Faulty(`pki.damaged`): the authority or the certificate cannot be read.
    """
    stem = _stem(folder, name)
    with _locked(folder):
        authority = _pair(folder / "ca")
        serial = _pair(stem).certificate.serial_number
        begin = datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC)
        serials = _serials(folder, authority) | {serial}
        pem = make_list(authority.certificate, authority.key, serials, begin, LEAF_LIFE)
        write_private(folder / REVOKED_FILE, pem, durable=True)
    return f"{serial:x}"


def renew(folder: Path, name: str, wall_ns: int) -> str:
    """Give a principal a new certificate for a year; its serial number in hexadecimal.

    The key stays, so that one file changes at once; when the present certificate is revoked the key is in
    doubt, and a new one is made too.

    Args:
        folder, name, wall_ns: as for `revoke`.

    Raises: as `revoke`.
    """
    stem = _stem(folder, name)
    with _locked(folder):
        authority, present = _pair(folder / "ca"), _pair(stem)
        revoked = present.certificate.serial_number in _serials(folder, authority)
        now = datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC)
        key = ec.generate_private_key(ec.SECP256R1()) if revoked else present.key
        end = min(now + LEAF_LIFE, authority.certificate.not_valid_after_utc)
        made = reissue(authority, present.certificate, key, now - SKEW, end)
        if revoked:
            write_private(stem.with_suffix(".key"), made.key_pem)
        write_private(stem.with_suffix(".pem"), made.certificate_pem)
    serial = x509.load_pem_x509_certificate(made.certificate_pem).serial_number
    return f"{serial:x}"


def _stem(folder: Path, name: str) -> Path:
    candidates = sorted(
        str(path.relative_to(folder).with_suffix(""))
        for part in _SUBFOLDERS
        for path in (folder / part).glob("*.pem")
        if path.with_suffix(".key").exists() and path != folder / "ca.pem"
    )
    found = [one for one in candidates if one == name or one.rpartition("/")[2] == name]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise Refused("input.principal", f"name: expected one of {', '.join(found)}, got {name!r}")
    known = ", ".join(candidates[:12]) or "none"
    raise Refused("input.principal", f"name: expected a principal of {folder} ({known}), got {name!r}")


def _serials(folder: Path, authority: Authority) -> set[int]:
    """Serial numbers that are revoked already."""
    path = folder / REVOKED_FILE
    try:
        found = read_revoked(path.read_bytes(), [authority.certificate]) if path.exists() else NOBODY
    except Refused as error:
        raise Refused("pki.revocation", f"{path}: {error.reason}") from None
    return {serial for _, serial in found.certificates}


def _pair(stem: Path) -> Authority:
    certificate, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
    found = load_pair(certificate, key)
    if found is None:
        raise Faulty("pki.damaged", f"{certificate} and {key.name} are incomplete or do not belong together")
    return found


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One change at a time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
