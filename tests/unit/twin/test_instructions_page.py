"""docs/formats/instructions.md: its examples run, and its table has every instruction."""

from __future__ import annotations

import doctest
import typing
from pathlib import Path

from multiplane.api.instructions import CoreInstruction

PAGE = Path(__file__).parents[3] / "docs" / "formats" / "instructions.md"


def test_the_examples_run() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


def test_the_table_has_every_instruction() -> None:
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    tags = [kind.__struct_config__.tag for kind in typing.get_args(CoreInstruction)]
    assert sorted(rows) == sorted(tags)
