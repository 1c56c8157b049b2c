"""A directory of results: what was run (`run.json`, `scenario.toml`), and an npz of each finished seed.

A file is there whole or not at all. Equal runs write equal bytes: nothing holds the time of day or a path.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from multiplane.assembly.plugins import NO_PLUGINS, Plugins
from multiplane.assembly.sim.seed import Arrays, Plan
from multiplane.assembly.world_digest import world_digest
from multiplane.kernel.errors import Refused
from multiplane.twin.scenario import World
from multiplane.twin.scenario_writing import write

FORMAT: Final = "multiplane-sim/1"
MANIFEST: Final = "run.json"
SCENARIO: Final = "scenario.toml"
_FIRST_DAY: Final = (1980, 1, 1, 0, 0, 0)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What all seeds of a directory have in common.

    Args: plugin_files, plugin_packages: as `Plugins.files` and `Plugins.packages`.
    """

    scenario: str
    digest: str
    for_ns: int
    every_ns: int
    multiplane: str
    numpy: str
    plugin_files: tuple[str, ...] = ()
    plugin_packages: tuple[str, ...] = ()
    format: str = FORMAT


class Results:
    """The directory of one simulation.

    Args: directory: made when it is not there.
    Raises: Refused(`input.out`) when it holds another simulation, or cannot be written.
    """

    def __init__(
        self, directory: Path, world: World, plan: Plan, version: str, *, plugins: Plugins = NO_PLUGINS
    ) -> None:
        self.directory = directory
        self.manifest = Manifest(
            scenario=world.name,
            digest=world_digest(world),
            for_ns=plan.lasts_ns,
            every_ns=plan.every_ns,
            multiplane=version,
            numpy=np.__version__,
            plugin_files=plugins.files,
            plugin_packages=plugins.packages,
        )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._check()
            _write_whole(directory / SCENARIO, write(world).encode())
            _write_whole(
                directory / MANIFEST, msgspec.json.format(msgspec.json.encode(self.manifest)) + b"\n"
            )
        except OSError as error:
            raise Refused("input.out", f"--out {directory}: {error.strerror or error}") from error

    def _check(self) -> None:
        """Another simulation in the same directory is refused, named by what differs."""
        path = self.directory / MANIFEST
        if not path.exists():
            if any(self.directory.glob("seed-*.npz")):
                raise Refused("input.out", f"{path}: missing beside results, expected another --out")
            return
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except msgspec.MsgspecError:
            reason = f"{path}: not a description of a simulation, expected another --out"
            raise Refused("input.out", reason) from None
        for name in Manifest.__struct_fields__:
            there, here = getattr(found, name), getattr(self.manifest, name)
            if there != here:
                reason = f"{path}: holds a run with {name} {there}, this one has {here}: name another --out"
                raise Refused("input.out", reason)

    def path(self, seed: int) -> Path:
        """Where the arrays of a seed lie, or will."""
        return self.directory / f"seed-{seed}.npz"

    def finished(self, seeds: Iterable[int]) -> list[int]:
        """Those of `seeds` whose arrays are there."""
        return [seed for seed in seeds if self.path(seed).exists()]

    def save(self, seed: int, arrays: Arrays) -> None:
        """Write the arrays of a seed."""
        _write_whole(self.path(seed), _npz(arrays))

    def load(self, seed: int) -> Arrays:
        """The arrays of a seed. Raises: Refused(`input.out`) on a damaged file."""
        path = self.path(seed)
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
            raise Refused("input.out", f"{path}: damaged: delete it and run again") from error

    def write(self, name: str, content: bytes) -> Path:
        """Write another file of results, whole."""
        _write_whole(self.directory / name, content)
        return self.directory / name


def _npz(arrays: Arrays) -> bytes:
    """As numpy.savez_compressed, without the time of day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", _FIRST_DAY)
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)
