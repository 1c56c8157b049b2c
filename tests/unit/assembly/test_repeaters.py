"""Generations of repeaters over a path of a world: those that ship, and one of somebody's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from multiplane.assembly.plugins import NO_PLUGINS, load_plugins
from multiplane.assembly.repeaters import compare_generations
from multiplane.cli.main import app
from multiplane.kernel.errors import Faulty, Refused
from multiplane.twin.scenario import load_shipped

MINE = """
from multiplane.api.policy import GenerationFigures, Signalling

class Courier:
    def attainable(self, hops, station, most_error_rate):
        km = sum(hop.length_km for hop in hops)
        return GenerationFigures(rate_per_s=km, logical_error_rate=station.readout_error, encoding="none",
            expected_s=hops[0].attempt_s, memories=station.memories, plan="by hand")
    def signalling(self, hops, station, figures):
        return Signalling(two_way="", round_trip_s=0.0, one_way_s=1.0, capacity_bit_per_s=figures.rate_per_s)

class Broken:
    def attainable(self, hops, station, most_error_rate):
        return 1 / 0
    def signalling(self, hops, station, figures):
        return None

class Liar(Courier):
    def signalling(self, hops, station, figures):
        return "none"

class Wrong(Courier):
    said = {}
    def attainable(self, hops, station, most_error_rate):
        figures = super().attainable(hops, station, most_error_rate)
        return type(figures)(**{name: self.said.get(name, getattr(figures, name)) for name in FIELDS})

FIELDS = GenerationFigures.__struct_fields__
REPEATER_GENERATIONS = {"NAME": CLASS}
"""


def plugin(folder: Path, name: str, made: str) -> Path:
    file = folder / "mine.py"
    file.write_text(MINE.replace("NAME", name).replace("CLASS", made))
    return file


def test_the_three_that_ship_over_a_chain() -> None:
    found = compare_generations(load_shipped("chain5"), "a", "e", 0.1, NO_PLUGINS)
    assert [one.generation for one in found] == ["purified", "encoded", "one-way"]
    assert {one.path for one in found} == {("a", "b", "c", "d", "e")}
    purified = found[0]
    assert purified.figures is not None
    assert purified.signalling is not None
    assert 0.0 < purified.figures.logical_error_rate <= 0.1
    assert purified.signalling.round_trip_s == pytest.approx(2 * 80 / 2e5)
    # Four memories hold no block of seven: pairs are swapped as they are.
    assert [one.figures.encoding for one in found if one.figures] == ["none", "none", "parity-1x1"]


def test_the_devices_of_the_path_count(tmp_path: Path) -> None:
    plugins = load_plugins([plugin(tmp_path, "courier", "Courier")])
    found = compare_generations(load_shipped("chain5"), "e-1", "b", 0.1, plugins)
    mine = found[-1].figures
    assert mine is not None
    assert mine.rate_per_s == pytest.approx(60.0)
    assert mine.logical_error_rate == pytest.approx(0.005)
    assert mine.memories == 4
    assert mine.expected_s == pytest.approx(1e-4)  # half of 20 km there and back


@pytest.mark.parametrize(
    ("made", "match"),
    [
        ("Broken", r"mine\.py:14: plug-in 'odd': attainable\(\) raised ZeroDivisionError"),
        ("Liar", r"plug-in 'odd': signalling\(\): got 'none', expected Signalling"),
        (
            "type('Text', (Wrong,), {'said': {'rate_per_s': 'x'}})",
            r"attainable\(\): got .* of numbers from 0",
        ),
        (
            "type('Nan', (Wrong,), {'said': {'rate_per_s': float('nan')}})",
            "expected None or GenerationFigures",
        ),
        ("type('Less', (Wrong,), {'said': {'expected_s': -1.0}})", "expected None or GenerationFigures"),
        ("type('Much', (Wrong,), {'said': {'logical_error_rate': 7}})", "a logical_error_rate of at most 1"),
    ],
)
def test_one_that_fails_is_named_with_its_line(tmp_path: Path, made: str, match: str) -> None:
    plugins = load_plugins([plugin(tmp_path, "odd", made)])
    with pytest.raises(Faulty, match=match):
        compare_generations(load_shipped("chain5"), "a", "b", 0.1, plugins)


def test_a_name_that_is_taken_and_a_path_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="repeater generation 'encoded' is taken by multiplane itself"):
        load_plugins([plugin(tmp_path, "encoded", "Courier")])
    with pytest.raises(Refused, match="no links that make pairs from alice to bob"):
        compare_generations(load_shipped("lab3"), "alice", "bob", 0.1, NO_PLUGINS)
    with pytest.raises(Refused, match="no links that make pairs from a to a"):
        compare_generations(load_shipped("chain5"), "a", "a-1", 0.1, NO_PLUGINS)


def test_the_command_lists_all_with_their_channels(tmp_path: Path) -> None:
    file = plugin(tmp_path, "courier", "Courier")
    command = ["repeaters", "a", "e", "--scenario", "chain5", "--plugin", str(file)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    for line in (
        "purified: ",
        "channel: ends wait 0.8 ms",
        "(not good enough)",
        "courier: 80 pairs/s",
        "nobody",
    ):
        assert line in shown.output
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert [one["generation"] for one in told] == ["purified", "encoded", "one-way", "courier"]
