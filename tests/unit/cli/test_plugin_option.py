"""`--plugin` and the setting `plugins`: a scenario may name what they bring, and a bad file is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from multiplane.assembly import settings
from multiplane.kernel.errors import Refused

Run = Callable[..., Result]
EXAMPLES = Path(__file__).parents[3] / "examples"
MINE = str(EXAMPLES / "mine.toml")


def one_line(result: Result) -> str:
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "words",
    [
        ("up", MINE),
        ("sim", MINE, "--out", "out"),
        ("twin", "follow"),
        ("twin", "fork"),
    ],
    ids=lambda words: " ".join(words[:2]) if words[0] == "twin" else words[0],
)
def test_a_bad_file_is_one_line(
    multiplane: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text("\nMEMORY_MODELS = {'m': 1 / 0}\n")
    line = one_line(multiplane(*words, "--plugin", "bad.py"))
    assert line == "multiplane: bad.py:2: the file raised ZeroDivisionError: division by zero"
    assert not Path("out").exists()


def test_without_its_files_a_scenario_names_what_nobody_knows(multiplane: Run, tmp_path: Path) -> None:
    line = one_line(multiplane("sim", MINE, "--out", str(tmp_path / "out")))
    assert "mine.toml:" in line
    assert "unknown model 'biased', expected one of depolarising" in line


def test_the_settings_name_files_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / settings.FILE_NAME).write_text('[up]\nplugins = ["a.py", "b.py"]\n')
    assert settings.load(tmp_path, {}).plugins == (Path("a.py"), Path("b.py"))
    assert settings.load(tmp_path, {"plugins": ["c.py"]}).plugins == (Path("c.py"),)
    (tmp_path / settings.FILE_NAME).write_text('[up]\nplugins = "a.py"\n')
    with pytest.raises(Refused) as refused:
        settings.load(tmp_path, {})
    assert refused.value.code == "settings.value"
    assert f"{settings.FILE_NAME}:2: plugins: Expected `array`, got `str`" in refused.value.reason
