"""docs/draft-map.md tells the truth: each row names what is there, or says `planned`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PLANNED: Final = "planned"
STRATA: Final = ("Service", "Fabric", "Connectivity")
PLANES: Final = ("Resource", "Telemetry", "Control", "Management")


@dataclass(frozen=True)
class Row:
    """One row of the map: what it speaks of, the modules and the proofs it names."""

    key: str
    modules: tuple[str, ...]
    proofs: tuple[str, ...]


def named(cell: str) -> tuple[str, ...]:
    """The names in backquotes of a cell, or `planned`."""
    return (PLANNED,) if cell == PLANNED else tuple(re.findall(r"`([^`]+)`", cell))


def rows() -> list[Row]:
    """All rows of the three tables."""
    text = (ROOT / "docs" / "draft-map.md").read_text(encoding="utf-8")
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    body = [row for row in cells if not row[0].startswith("---") and row[3] != "shown by"]
    assert all(len(row) == 4 for row in body), [row for row in body if len(row) != 4]
    return [Row(key, named(modules), named(proofs)) for key, _, modules, proofs in body]


def does_something(path: Path) -> bool:
    """Whether a module, or one in a folder, holds more than a docstring."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []
    statements = [node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body]
    return any(not isinstance(node, ast.Expr | ast.ImportFrom) for node in statements)


def proof_exists(proof: str) -> bool:
    """Whether a proof is a folder with tests, a test file, or a function in one."""
    file, _, function = proof.partition("::")
    path = ROOT / "tests" / file
    if path.is_dir():
        return any(path.glob("test_*.py"))
    if not path.exists():
        return False
    text = path.read_text(encoding="utf-8")
    wanted = rf"^(async )?def {function}\b" if function else r"^(async )?def test_|^Test\w+ = "
    return re.search(wanted, text, re.MULTILINE) is not None


def numbers(key: str) -> list[int]:
    """The requirement numbers in `24, 101-103`."""
    found: list[int] = []
    for part in key.split(","):
        first, _, last = part.strip().partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def test_every_box_arrow_and_requirement_has_one_row() -> None:
    keys = [row.key for row in rows()]
    boxes = [key for key in keys if " / " in key]
    arrows = [key for key in keys if key.startswith("A")]
    requirements = [number for key in keys if key[:1].isdigit() for number in numbers(key)]
    assert boxes == [f"{stratum} / {plane}" for stratum in STRATA for plane in PLANES]
    assert arrows == [f"A{number}" for number in range(1, 14)]
    assert sorted(requirements) == list(range(1, 151))
    assert len(boxes) + len(arrows) + len([key for key in keys if key[:1].isdigit()]) == len(keys)


def test_no_row_lies() -> None:
    lies = []
    for row in rows():
        if (PLANNED in row.modules) != (PLANNED in row.proofs) or not row.modules or not row.proofs:
            lies.append(f"{row.key}: names a module without a proof or a proof without a module")
        lies += [
            f"{row.key}: module {module} is not there or empty"
            for module in row.modules
            if module != PLANNED and not does_something(ROOT / "src" / "multiplane" / module)
        ]
        lies += [
            f"{row.key}: proof {proof} is not there"
            for proof in row.proofs
            if proof != PLANNED and not proof_exists(proof)
        ]
    assert not lies, "\n" + "\n".join(lies)
