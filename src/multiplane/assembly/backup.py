"""Backup of a state directory: one archive, made while the network runs or not.

The archive (zip) holds `manifest.json`, its seal, `network.json`, a consistent copy of each store, the
certificates and keys of `pki/` sealed under the key-encryption key (KEK), and the settings file. Keys at rest
stay sealed as they are. The KEK itself is in it only where it was asked for.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from multiplane.assembly import kek as keks
from multiplane.assembly import settings
from multiplane.assembly.state import NETWORK_FILE, read_network, stores_of
from multiplane.kernel.errors import Refused
from multiplane.runtime.store_copy import copy_store
from multiplane.security.sealing import NONCE_BYTE, Vault, derive

FORMAT: Final = "multiplane-backup/1"
MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.seal"
PKI: Final = "pki.sealed"
PKI_FOLDER: Final = "pki"


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the archive: its size and SHA-256 (hexadecimal)."""

    size_byte: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an archive is and holds; its seal proves that it was made with the KEK and not altered since.

    Args:
        made_ns: Unix nanoseconds of the wall clock.
        version: of the multiplane that made it.
    """

    format: str
    made_ns: int
    version: str
    scenario: str
    digest: str
    layout: str
    files: dict[str, FileFacts]


def backup(state: Path, out: Path, *, with_kek: bool = False, kek_command: str | None = None) -> Manifest:
    """Write the archive of a state directory.

    Raises: Refused(`state.nothing`, `state.kek`, `state.other_kek`, `input.out`), Faulty(`store.damaged`).
    """
    network = read_network(state)
    if network is None:
        raise Refused("state.nothing", f"{state}: holds no network: name the --state that `up` was given")
    if out.exists():
        raise Refused("input.out", f"--out {out}: is there already: name another file")
    kek = keks.kek_of(state, kek_command, make=False)
    if network.kek_check not in ("", keks.kek_check(kek)):
        raise Refused("state.other_kek", f"{state}: was made with another key-encryption key: give that one")
    try:
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".backup-") as folder:
            parts = _gather(state, Path(folder), kek, with_kek=with_kek)
            manifest = Manifest(
                format=FORMAT,
                made_ns=time.time_ns(),
                version=version("multiplane"),
                scenario=network.scenario,
                digest=network.digest,
                layout=network.layout,
                files={name: _facts(path) for name, path in parts.items()},
            )
            draft = Path(folder) / "draft.zip"
            _write(draft, manifest, parts, kek)
            draft.replace(out)
    except OSError as error:
        reason = (
            f"--out {out}: cannot be written ({error.strerror or error}): free space or name another file"
        )
        raise Refused("input.out", reason) from error
    return manifest


def vault_of(kek: bytes) -> Vault:
    """What closes the parts of an archive that are not sealed already."""
    return Vault(derive(kek, "backup"))


def _gather(state: Path, folder: Path, kek: bytes, *, with_kek: bool) -> dict[str, Path]:
    """Every file of the archive, by its name in it."""
    parts: dict[str, Path] = {}
    for source in stores_of(state):
        name = source.relative_to(state).as_posix()
        parts[name] = folder / name.replace("/", "--")
        copy_store(source, parts[name])
    pki = {
        path.relative_to(state / PKI_FOLDER).as_posix(): path.read_bytes()
        for path in sorted((state / PKI_FOLDER).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    sealed = vault_of(kek).seal(os.urandom(NONCE_BYTE), msgspec.msgpack.encode(pki), PKI.encode())
    parts[PKI] = _private(folder / PKI, sealed)
    for name in (NETWORK_FILE, settings.FILE_NAME):
        if (state / name).exists():
            parts[name] = _private(folder / name, (state / name).read_bytes())
    if with_kek:
        keks.write_kek(folder / keks.FILE_NAME, kek)
        parts[keks.FILE_NAME] = folder / keks.FILE_NAME
    return parts


def _private(path: Path, content: bytes) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return path


def _facts(path: Path) -> FileFacts:
    with path.open("rb") as file:
        return FileFacts(
            size_byte=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest()
        )


def _write(draft: Path, manifest: Manifest, parts: dict[str, Path], kek: bytes) -> None:
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    seal = vault_of(kek).seal(os.urandom(NONCE_BYTE), hashlib.sha256(text).digest(), MANIFEST.encode())
    with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(MANIFEST, text)
            archive.writestr(SEAL, seal)
            for name, path in parts.items():
                archive.write(path, name)
        file.flush()
        os.fsync(file.fileno())
