"""The import contracts hold on the tree, and each deliberate violation breaks the contract meant for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STOREYS = "Storeys: imports only downward"
PORTS = "Strata, standards and twin take time"
PURE = "Kernel and words perform no I/O"
ORACLE = "Oracle: true states"
WAIT = "Planes and twin decide, they never wait"

# (what is wrong, file below src/multiplane, code planted there, beginning of the contract that must break)
VIOLATIONS = [
    ("service imports fabric", "service/__init__.py", "import multiplane.fabric", STOREYS),
    ("connectivity imports service", "connectivity/__init__.py", "from multiplane import service", STOREYS),
    ("fabric learns that it is emulated", "fabric/__init__.py", "import multiplane.twin", STOREYS),
    ("a standard bypasses the door", "standards/planted.py", "import multiplane.service", STOREYS),
    ("the SDK reaches into the stack", "sdk/__init__.py", "import multiplane.service", STOREYS),
    ("a door knows its transport", "api/planted.py", "import multiplane.runtime", STOREYS),
    ("a door knows the physics", "api/planted.py", "import multiplane.physics", STOREYS),
    ("kernel imports a door", "kernel/planted.py", "import multiplane.api.north", STOREYS),
    ("assembly knows the command line", "assembly/planted.py", "import multiplane.cli", STOREYS),
    ("an undeclared room", "planted/attic.py", "ROOM = 1", STOREYS),
    ("the command line wires a room itself", "cli/planted.py", "import multiplane.runtime", "The front"),
    ("an application reaches into a stratum", "apps/planted.py", "import multiplane.fabric", "Applications"),
    ("physics reads the clock", "physics/planted.py", "import time", PURE),
    ("security draws its own random numbers", "security/planted.py", "import secrets", PURE),
    ("a door awaits", "api/planted.py", "import asyncio", PURE),
    ("a stratum opens a socket", "connectivity/planted.py", "import socket", PORTS),
    ("a stratum reaches SQLite", "fabric/planted.py", "import sqlite3", PORTS),
    ("a standard serves HTTP itself", "standards/planted.py", "import aiohttp.web", PORTS),
    ("the twin rolls dice", "twin/planted.py", "import random", PORTS),
    ("the twin waits by itself", "twin/planted.py", "import asyncio", WAIT),
    ("a wiring looks into true states", "assembly/planted.py", "import multiplane.twin.oracle", ORACLE),
    ("the fabric looks into true states", "fabric/planted.py", "import multiplane.twin.oracle", ORACLE),
    ("the service looks into true states", "service/planted.py", "import multiplane.twin.oracle", ORACLE),
    ("the engine leads to the oracle", "twin/engine.py", "import multiplane.twin.oracle", ORACLE),
    ("a plane awaits", "fabric/telemetry/planted.py", "import asyncio", WAIT),
    ("an undeclared plane", "service/planted.py", "ROOM = 1", "Service: planes"),
    (
        "one plane calls another",
        "connectivity/resource/planted.py",
        "import multiplane.connectivity.control",
        "Connectivity: planes",
    ),
    (
        "service resource calls service control",
        "service/resource/planted.py",
        "import multiplane.service.control",
        "Service: planes",
    ),
]


def copy_with_planes(root: Path) -> Path:
    """A copy of the package in which every plane exists, be it as an empty module."""
    package = root / "src" / "multiplane"
    shutil.copytree(ROOT / "src" / "multiplane", package, ignore=shutil.ignore_patterns("__pycache__"))
    for stratum in ("service", "fabric", "connectivity"):
        for plane in ("resource", "telemetry", "control", "management"):
            module = package / stratum / f"{plane}.py"
            folder = package / stratum / plane
            if module.exists():  # a folder, so that a violation can be planted as a file of its own
                folder.mkdir()
                module.rename(folder / "__init__.py")
            elif not folder.exists():
                folder.mkdir()
                (folder / "__init__.py").touch()
    return package


@pytest.mark.slow
def test_each_violation_breaks_its_contract(tmp_path: Path) -> None:
    package = copy_with_planes(tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests/house/plant_violations.py"),
            str(package),
            str(ROOT / ".importlinter"),
        ],
        input=json.dumps([{"path": path, "code": code} for _, path, code, _ in VIOLATIONS]),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    unharmed, *answers = json.loads(done.stdout)
    assert unharmed == [], f"the tree itself breaks {unharmed}"
    missed = [
        f"{what} ({path}: {code}) broke {broken or 'nothing'}, expected a contract that begins {contract!r}"
        for (what, path, code, contract), broken in zip(VIOLATIONS, answers, strict=True)
        if not any(name.startswith(contract) for name in broken)
    ]
    assert not missed, "\n".join(missed)
