"""The certificates of a state directory: chain, key, identity, validity by the wall clock, revocations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from multiplane.assembly.findings import Finding, fail, ok, some, warn
from multiplane.kernel.errors import Refused
from multiplane.kernel.names import controller_urn, element_urn, operator_urn
from multiplane.runtime.certificate_changes import REVOKED_FILE
from multiplane.runtime.revocation import Revoked, read_revoked
from multiplane.security.identity import peer_of
from multiplane.twin.scenario import World

SOON: Final = timedelta(days=30)
_AGAIN: Final = "remove it with its .key: the next start makes it again"


def expected(world: World) -> dict[str, str]:
    """The principal of each certificate of a network, by its path below `pki/` without suffix."""
    names = {"controller": controller_urn(world.domain), "operator": operator_urn(world.domain)}
    for place in world.sites:
        names[f"kme/{place.name}"] = element_urn(world.domain, place.name)
        names |= {f"sae/{alias}": element_urn(world.domain, place.name, alias) for alias in place.saes}
    return names


def audit(folder: Path, world: World | None, wall_ns: int) -> list[Finding]:
    """Findings on `pki/`.

    Args:
        world: whose certificates they should be; None = not known, identities are not judged.
        wall_ns: now, Unix nanoseconds.
    """
    if not folder.exists():
        return [ok("certificates", "none yet: the first start makes them")]
    now = datetime.fromtimestamp(wall_ns / 1e9, UTC)
    try:
        authority = _load(folder / "ca")
    except (OSError, ValueError, TypeError) as error:
        remedy = f"put ca.pem and ca.key back from a backup, or remove {folder} for a new authority"
        return [fail("certificates: authority", f"unusable: {type(error).__name__}", remedy)]
    findings = [_validity("certificates: authority", {"ca.pem": authority}, now)]
    names = expected(world) if world else {}
    found: dict[str, x509.Certificate] = {}
    broken: list[str] = []
    strangers: list[str] = []
    for path in sorted(folder.rglob("*.pem")):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem == "ca" or path.name == REVOKED_FILE:
            continue
        try:
            found[stem] = _load(path.with_suffix(""))
            found[stem].verify_directly_issued_by(authority)
            if stem in names and _principal(found[stem]) != names[stem]:
                strangers.append(stem)
        except (OSError, ValueError, TypeError, InvalidSignature):
            broken.append(stem)
    findings.append(_chain(broken, len(found)))
    if strangers:
        findings.append(fail("certificates: identity", f"name somebody else: {some(strangers)}", _AGAIN))
    elif world:
        findings.append(ok("certificates: identity", "each names its element or application"))
    findings.append(_validity("certificates: validity", found, now))
    return [*findings, *_revocation(folder / REVOKED_FILE, authority, found, now)]


def _load(stem: Path) -> x509.Certificate:
    """A certificate whose key lies beside it and fits. Raises OSError, ValueError, TypeError."""
    certificate = x509.load_pem_x509_certificate(stem.with_suffix(".pem").read_bytes())
    key = serialization.load_pem_private_key(stem.with_suffix(".key").read_bytes(), password=None)
    if key.public_key() != certificate.public_key():
        raise ValueError("the key does not fit")
    return certificate


def _principal(certificate: x509.Certificate) -> str:
    try:
        return peer_of(certificate.public_bytes(serialization.Encoding.DER)).principal
    except Refused:
        return ""


def _chain(broken: list[str], count: int) -> Finding:
    if broken:
        return fail("certificates: chain and key", f"do not fit: {some(broken)}", _AGAIN)
    return ok(
        "certificates: chain and key", f"{count} certificates, each with its key, signed by the authority"
    )


def _validity(check: str, certificates: dict[str, x509.Certificate], now: datetime) -> Finding:
    early = [stem for stem, one in certificates.items() if now < one.not_valid_before_utc]
    if early:
        begin = min(certificates[stem].not_valid_before_utc for stem in early)
        found = f"begin later than now ({begin:%Y-%m-%d %H:%M} UTC): {some(early)}"
        return fail(check, found, f"set the clock: it says {now:%Y-%m-%d %H:%M} UTC")
    late = [stem for stem, one in certificates.items() if now >= one.not_valid_after_utc]
    if late:
        return fail(
            check, f"have ended: {some(late)}", "start the network: it renews them; hand them out again"
        )
    soon = [stem for stem, one in certificates.items() if now + SOON >= one.not_valid_after_utc]
    if soon:
        remedy = "a start within their last 7 days renews them; hand them out again then"
        return warn(check, f"end within {SOON.days} days: {some(soon)}", remedy)
    first = min((one.not_valid_after_utc for one in certificates.values()), default=None)
    return ok(check, f"until {first:%Y-%m-%d} at least" if first else "nothing to judge")


def _revocation(
    path: Path, authority: x509.Certificate, certificates: dict[str, x509.Certificate], now: datetime
) -> list[Finding]:
    """The list, if there is one, read as a running network reads it; and who of ours is on it."""
    check = f"certificates: {path.name}"
    if not path.exists():
        return []
    try:
        revoked = read_revoked(path.read_bytes(), [authority])
    except OSError as error:
        return [fail(check, f"unreadable: {error.strerror}", "make it readable")]
    except Refused as error:
        remedy = "put it back from a backup, or remove it and revoke again"
        return [fail(check, error.reason, remedy)]
    mine = [stem for stem, one in certificates.items() if _is_on(revoked, one)]
    findings = _own(mine)
    if revoked.end_ns < now.timestamp() * 1e9:
        ended = datetime.fromtimestamp(revoked.end_ns / 1e9, UTC)
        return [*findings, warn(check, f"was due to be renewed on {ended:%Y-%m-%d}", "write it again")]
    return [*findings, ok(check, f"{len(revoked.certificates)} revoked")]


def _is_on(revoked: Revoked, certificate: x509.Certificate) -> bool:
    return (certificate.issuer.rfc4514_string(), certificate.serial_number) in revoked.certificates


def _own(stems: list[str]) -> list[Finding]:
    """Certificates in use that everybody turns away; applications may have been meant to be."""
    check, remedy = "certificates: revoked", "multiplane pki renew NAME"
    elements = [stem for stem in stems if not stem.startswith("sae/")]
    if elements:
        return [fail(check, f"of the network itself: {some(elements)}", remedy)]
    if stems:
        return [
            warn(check, f"of applications: {some(stems)}", f"nothing if they shall stay out; else {remedy}")
        ]
    return []
