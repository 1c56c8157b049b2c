"""`multiplane import`: from a file to a file, with a report, and never over something that is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from multiplane.assembly.up import load_world
from multiplane.cli.view import bits
from multiplane.twin.profiles import PROFILES

Run = Callable[..., Result]
MAP = {
    "format": "qnet-topology/1",
    "name": "pair",
    "length_basis": "great-circle km",
    "nodes": [{"name": "Ada"}, {"name": "Bo"}],
    "links": [{"a": "Ada", "b": "Bo", "km": 100.0}],
}


@pytest.fixture
def map_file(tmp_path: Path) -> Path:
    path = tmp_path / "pair.json"
    path.write_text(json.dumps(MAP))
    return path


def one_line(result: Result) -> str:
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_import_writes_a_scenario_and_tells(multiplane: Run, map_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "pair.toml"
    result = multiplane("import", str(map_file), "--out", str(out))
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "relays added  1, on 1 links longer than 80 km" in lines
    assert "lengths       2 great-circle (route factor 1.3)" in lines
    assert "losses        2 derived (derived: 0.2 dB/km)" in lines
    rate = bits(PROFILES["decoy-bb84-1ghz"].yields(13.0, 0.0).rate_bit_per_s)
    assert f"longest span  ada--ada-bo-r1: 65 km, 13 dB, {rate}/s (decoy-bb84-1ghz)" in lines
    assert "relays: ada--bo: 130 km, 2 spans of 65.0 km, relays ada-bo-r1" in lines
    world = load_world(str(out))
    assert [(site.name, site.saes) for site in world.sites][2] == ("ada-bo-r1", ())
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_import_takes_options_and_answers_in_json(multiplane: Run, map_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "n.toml"
    result = multiplane(
        "import", str(map_file), "--out", str(out), "--max-span-km", "40", "--route-factor", "1.5",
        "--attenuation-db-per-km", "0.25", "--name", "mine", "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert (report["name"], report["relays"], report["spans"], report["total_km"]) == ("mine", 3, 4, 150.0)
    assert report["options"]["route_factor"] == 1.5
    assert report["longest"]["loss_db"] == 9.375
    assert load_world(str(out)).name == "mine"


def test_import_never_overwrites_without_force(multiplane: Run, map_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "there.toml"
    out.write_text("mine")
    line = one_line(multiplane("import", str(map_file), "--out", str(out)))
    assert line == f"multiplane: {out}: is there already; --force replaces it"
    assert out.read_text() == "mine"
    assert multiplane("import", str(map_file), "--out", str(out), "--force").exit_code == 0
    assert load_world(str(out)).name == "pair"
    for path in (map_file, tmp_path / "." / "pair.json"):
        line = one_line(multiplane("import", str(map_file), "--out", str(path), "--force"))
        assert "is the map itself" in line
    assert json.loads(map_file.read_text()) == MAP


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (
            ("none.json", "--out", "x.toml"),
            "none.json: No such file or directory, expected the file",
        ),
        ((".", "--out", "x.toml"), "Is a directory"),
        (("{map}", "--out", "{map}.d/x.toml"), "x.toml: No such file or directory, expected a file that can"),
        (("{map}", "--out", "."), "is there already"),
        (("{map}", "--out", ".", "--force"), "expected a file that can be written"),
        (("{map}",), "Missing option '--out'"),
        (("{map}", "--out", "x.toml", "--max-span-km", "0"), "--max-span-km: got 0, expected 0.1 to 1000"),
        (("{map}", "--out", "x.toml", "--name", "A b"), "--name: got 'A b'"),
        (("{map}", "--out", "x.toml", "--degrees", "--planar-km-per-unit", "1"), "--degrees: expected it"),
    ],
)
def test_import_errors_are_one_line(
    multiplane: Run,
    map_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    line = one_line(multiplane("import", *(text.format(map=map_file) for text in arguments)))
    assert word in line
    assert sorted(tmp_path.iterdir()) == before


def test_import_names_file_and_line_of_a_bad_map(multiplane: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.graphml"
    bad.write_text('<graphml>\n<graph>\n<node id="1">\n</graph></graphml>')
    line = one_line(multiplane("import", str(bad), "--out", str(tmp_path / "x.toml")))
    assert line == f"multiplane: {bad}:4: mismatched tag, expected XML"
    assert not (tmp_path / "x.toml").exists()


def test_a_failed_write_leaves_nothing(
    multiplane: Run, map_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    line = one_line(multiplane("import", str(map_file), "--out", str(tmp_path / "x.toml")))
    assert "No space left on device" in line
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["pair.json"]
