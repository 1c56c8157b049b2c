"""The golden schemas of the doors: a change of a door is a change somebody must look at."""

from __future__ import annotations

import json

import pytest

from multiplane.runtime.door_schemas import FOLDER, door_modules, main, protocols, render


@pytest.mark.parametrize("name", door_modules())
def test_golden_file_agrees_with_the_door(name: str) -> None:
    path = FOLDER / f"{name}.json"
    assert path.is_file(), "run: python -m multiplane.runtime.doors --write"
    assert path.read_text(encoding="utf-8") == render(door_modules()[name]), (
        f"{name} has changed; if that is meant: python -m multiplane.runtime.doors --write"
    )


def test_no_golden_file_without_a_door(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == ""


def test_every_reference_resolves_and_no_message_carries_a_caller() -> None:
    for name, module in door_modules().items():
        whole = json.loads(render(module))
        assert len(whole["doors"]) == len(protocols(module)), name
        text = json.dumps(whole)
        for noun in whole["$defs"]:
            text = text.replace(f'"#/$defs/{noun}"', "")
        assert "#/$defs/" not in text, name
        assert "Caller" not in whole["$defs"], name
