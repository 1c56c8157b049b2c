"""Restore of a state directory from a backup, so that no key is ever issued or delivered again.

Nothing in the directory is touched before the whole archive has been checked. What a backup holds was used
since: each store is put back with a token that its witness does not know (`runtime/store_life.py`), so at the
next start its key managers burn their stock, begin new epochs, and agree on them before they serve.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from multiplane.assembly import kek as keks
from multiplane.assembly import settings
from multiplane.assembly.backup import FORMAT, MANIFEST, PKI, PKI_FOLDER, SEAL, FileFacts, Manifest, vault_of
from multiplane.assembly.state import (
    LAYOUT,
    NETWORK_FILE,
    RESTORING_FILE,
    SITES_FOLDER,
    STORE_FILE,
    NetworkFile,
    read_network,
    write_network,
)
from multiplane.kernel.errors import Faulty, Refused
from multiplane.runtime.durable import flush_folder
from multiplane.runtime.store_copy import prepare_to_put_back
from multiplane.runtime.store_sqlite import claim
from multiplane.security.sealing import NONCE_BYTE

UNPACKED: Final = "restoring.d"
MOST_MANIFEST_BYTE: Final = 1 << 20
MOST_SEAL_BYTE: Final = 1 << 10
_CHUNK_BYTE: Final = 1 << 20
# All that the reader of archives is known to say about one that is none, or not one of ours.
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
_NAME: Final = re.compile(
    rf"{re.escape(NETWORK_FILE)}|(?:{SITES_FOLDER}/[a-z0-9-]{{1,63}}/)?{re.escape(STORE_FILE)}"
    rf"|{re.escape(PKI)}|{re.escape(settings.FILE_NAME)}|{keks.FILE_NAME}"
)
_PKI_NAME: Final = re.compile(r"(?:(?:kme|sae)/)?[a-z0-9-]{1,63}\.[a-z]{1,8}")


def restore(
    archive: Path,
    state: Path,
    *,
    site: str | None = None,
    replace: bool = False,
    kek_command: str | None = None,
) -> Manifest:
    """Put a backup into a state directory in which no network runs.

    Args:
        site: only the store of this site, of a network with a process for each; None = everything.
        replace: lose the state that the directory holds now.

    Raises:
        Refused(`backup.unreadable`, `backup.damaged`, `backup.other_kek`, `backup.no_site`): the archive.
        Refused(`state.exists`, `state.other_scenario`, `state.other_layout`, `state.unusable`, `state.kek`,
            `store.in_use`): the directory.
        Faulty(`store.newer_schema`, `store.damaged`): a store in the archive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return _restore(opened, archive, state, site=site, replace=replace, kek_command=kek_command)
    except _BROKEN as error:
        raise _damaged(archive, f"{type(error).__name__}: {error}") from error
    except OSError as error:
        where = error.filename or archive
        reason = f"{where}: {error.strerror or error}: check the file, its owner and the free space"
        raise Refused("backup.unreadable", reason) from error


def _restore(
    opened: zipfile.ZipFile,
    archive: Path,
    state: Path,
    *,
    site: str | None,
    replace: bool,
    kek_command: str | None,
) -> Manifest:
    text = _read(opened, archive, MANIFEST, MOST_MANIFEST_BYTE)
    manifest = _manifest(archive, text)
    _check_names(opened, archive, manifest)
    kek = _kek(opened, archive, manifest, state, kek_command)
    vault = vault_of(kek)
    try:
        digest = vault.open(_read(opened, archive, SEAL, MOST_SEAL_BYTE), MANIFEST.encode())
    except Faulty as error:
        reason = (
            f"{archive}: was made with another key-encryption key, or altered: give the one it was made with"
        )
        raise Refused("backup.other_kek", reason) from error
    if digest != hashlib.sha256(text).digest():
        raise _damaged(archive, "its manifest was altered")
    names = _wanted(archive, manifest, site)
    before = _check_target(state, manifest, site=site, replace=replace)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _claimed(state, names), _unpacked(opened, archive, state, manifest, names) as folder:
        for name in names:
            if name.endswith(STORE_FILE):
                prepare_to_put_back(folder / name)
        if PKI in names:
            sealed = (folder / PKI).read_bytes()
            if len(sealed) < NONCE_BYTE:
                raise _damaged(archive, PKI)
            _unpack_pki(archive, vault.open(sealed, PKI.encode()), folder / PKI_FOLDER)
        (state / RESTORING_FILE).touch(mode=0o600)
        flush_folder(state)
        _put_in_place(folder, state, names, before)
        flush_folder(state)
        (state / RESTORING_FILE).unlink()
        flush_folder(state)
    return manifest


# --- the archive -------------------------------------------------------------------------------------------


def _damaged(archive: Path, what: str) -> Refused:
    return Refused("backup.damaged", f"{archive}: is no whole backup ({what}): take another one")


def _read(opened: zipfile.ZipFile, archive: Path, name: str, most_byte: int) -> bytes:
    try:
        with opened.open(name) as part:
            content = part.read(most_byte + 1)
    except KeyError as error:
        raise _damaged(archive, f"{name} is missing") from error
    if len(content) > most_byte:
        raise _damaged(archive, f"{name} is too long")
    return content


def _manifest(archive: Path, text: bytes) -> Manifest:
    try:
        found = msgspec.json.decode(text)
        if isinstance(found, dict) and found.get("format", FORMAT) != FORMAT:
            found_format = str(found["format"])[:60]
            reason = (
                f"{archive}: has format {found_format!r}, expected {FORMAT!r}: use the version that made it"
            )
            raise Refused("backup.unreadable", reason)
        return msgspec.convert(found, Manifest)
    except msgspec.MsgspecError as error:
        raise _damaged(archive, f"{MANIFEST}: {error}") from error


def _check_names(opened: zipfile.ZipFile, archive: Path, manifest: Manifest) -> None:
    """Nothing but what a backup writes, all of it, and nothing twice."""
    found = [info.filename for info in opened.infolist()]
    strange = [name for name in manifest.files if not _NAME.fullmatch(name)]
    if strange or sorted(found) != sorted([MANIFEST, SEAL, *manifest.files]):
        raise _damaged(archive, "it holds other files than its manifest says")
    if not {NETWORK_FILE, STORE_FILE, PKI} <= set(manifest.files):
        raise _damaged(archive, "a file is missing")


def _kek(
    opened: zipfile.ZipFile, archive: Path, manifest: Manifest, state: Path, command: str | None
) -> bytes:
    if keks.FILE_NAME in manifest.files:
        text = _read(opened, archive, keks.FILE_NAME, MOST_SEAL_BYTE)
        return keks.parse_kek(text.decode("ascii", "replace"), f"{archive}: {keks.FILE_NAME}")
    return keks.kek_of(state, command, make=False)


def _wanted(archive: Path, manifest: Manifest, site: str | None) -> list[str]:
    """The files to put in place."""
    if site is None:
        return list(manifest.files)
    name = f"{SITES_FOLDER}/{site}/{STORE_FILE}"
    if name not in manifest.files:
        sites = sorted(path.split("/")[1] for path in manifest.files if path.startswith(f"{SITES_FOLDER}/"))
        known = f"one of {', '.join(sites)}" if sites else "no --site: all sites share one store"
        raise Refused("backup.no_site", f"--site {site}: {archive} has no store of it: expected {known}")
    return [name]


@contextlib.contextmanager
def _unpacked(
    opened: zipfile.ZipFile, archive: Path, state: Path, manifest: Manifest, names: list[str]
) -> Iterator[Path]:
    """The files in a folder of the state directory, each of the size and digest that the manifest says."""
    folder = state / UNPACKED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        for name in names:
            _unpack(opened, archive, name, manifest.files[name], folder / name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(opened: zipfile.ZipFile, archive: Path, name: str, facts: FileFacts, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, left_byte = hashlib.sha256(), facts.size_byte
    with opened.open(name) as part, _fresh(target) as file:
        while chunk := part.read(min(_CHUNK_BYTE, left_byte + 1)):
            left_byte -= len(chunk)
            if left_byte < 0:
                break
            digest.update(chunk)
            file.write(chunk)
    if left_byte or digest.hexdigest() != facts.sha256:
        raise _damaged(archive, f"{name} is not what the manifest says")


def _unpack_pki(archive: Path, packed: bytes, folder: Path) -> None:
    files = msgspec.msgpack.decode(packed, type=dict[str, bytes])
    for name, content in files.items():
        if not _PKI_NAME.fullmatch(name):
            raise _damaged(archive, f"a file of {PKI_FOLDER}")
        target = folder / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _fresh(target) as file:
            file.write(content)


# --- the directory -----------------------------------------------------------------------------------------


def _check_target(state: Path, manifest: Manifest, *, site: str | None, replace: bool) -> NetworkFile | None:
    """What is in the directory now, if it may be replaced."""
    if (state / RESTORING_FILE).exists():
        replace = True  # by an earlier try that did not end
    before = read_network(state)
    if site is not None:
        if before is None:
            raise Refused(
                "state.exists", f"{state}: holds no network of which --site {site} could be restored"
            )
        if before.layout != LAYOUT[True]:
            raise Refused("state.other_layout", f"{state}: has one store for all sites: leave --site away")
        if before.digest != manifest.digest:
            reason = f"{state}: belongs to another scenario than the backup of {manifest.scenario!r}"
            raise Refused("state.other_scenario", reason)
    elif before is not None and not replace:
        reason = f"{state}: holds a network already: name an empty --state, or say --replace to lose that one"
        raise Refused("state.exists", reason)
    return before


@contextlib.contextmanager
def _claimed(state: Path, names: list[str]) -> Iterator[None]:
    """No process has a store of the directory, nor takes one meanwhile."""
    stores = {state / STORE_FILE, *(state / name for name in names if name.endswith(STORE_FILE))}
    with contextlib.ExitStack() as stack:
        for store in sorted(stores | set((state / SITES_FOLDER).glob(f"*/{STORE_FILE}"))):
            stack.callback(os.close, claim(store))
        yield


def _put_in_place(folder: Path, state: Path, names: list[str], before: NetworkFile | None) -> None:
    whole = NETWORK_FILE in names
    if whole:  # sites that the backup does not know have nothing to go on from
        for store in (state / SITES_FOLDER).glob(f"*/{STORE_FILE}"):
            _remove_store(store)
    for name in names:
        if name.endswith(STORE_FILE):
            (state / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_store(state / name)
            (folder / name).replace(state / name)
            flush_folder((state / name).parent)
    if not whole:
        return
    shutil.rmtree(state / PKI_FOLDER, ignore_errors=True)
    (folder / PKI_FOLDER).replace(state / PKI_FOLDER)
    if settings.FILE_NAME in names and not (state / settings.FILE_NAME).exists():
        (folder / settings.FILE_NAME).replace(state / settings.FILE_NAME)
    if keks.FILE_NAME in names:
        (folder / keks.FILE_NAME).replace(state / keks.FILE_NAME)
    restored = read_network(folder)
    assert restored is not None
    if before is not None:  # a network's clock never goes back
        restored.latest_ns = max(restored.latest_ns, before.latest_ns)
    write_network(state, restored)


def _remove_store(store: Path) -> None:
    """The file and its log: the log of one file must never meet another."""
    for suffix in ("-wal", "-shm", ""):
        store.with_name(store.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def _fresh(path: Path) -> Iterator[BinaryIO]:
    """A new private file, durable at the end of the block."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
