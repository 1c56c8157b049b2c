"""Changes to the certificates of a network, whether it runs or not: a running one takes them up by itself."""

from __future__ import annotations

from pathlib import Path

from multiplane.assembly.layout import wall_ns
from multiplane.kernel.errors import Refused
from multiplane.runtime import certificate_changes


def revoke(state: Path, name: str) -> str:
    """Revoke the certificate of a principal of a state directory; its serial number.

    Raises: Refused(`input.principal`, `pki.revocation`, `state.no_pki`), Faulty(`pki.damaged`).
    """
    return certificate_changes.revoke(_folder(state), name, wall_ns())


def renew(state: Path, name: str) -> str:
    """Give a principal of a state directory a new certificate; its serial number.

    Raises: Refused(`input.principal`, `pki.revocation`, `state.no_pki`), Faulty(`pki.damaged`).
    """
    return certificate_changes.renew(_folder(state), name, wall_ns())


def _folder(state: Path) -> Path:
    folder = state / "pki"
    if not folder.is_dir():
        raise Refused("state.no_pki", f"{state}: expected a state directory that `multiplane up` has made")
    return folder
