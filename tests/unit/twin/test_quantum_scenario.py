"""The part of a scenario about entanglement: what it becomes, what is refused, and that it can be written."""

from __future__ import annotations

import pytest

from multiplane.twin.quantum.devices import NONE
from multiplane.twin.scenario import load_shipped, parse, shipped
from multiplane.twin.scenario_writing import write
from multiplane.twin.toml_reading import ScenarioError

TEXT = """\
format = "multiplane-scenario/1"
name = "t"
domain = "t"
[states]
model = "dense"
twirl = true
[[noise]]
name = "gates"
double_error_probability = 0.01
[[memory]]
name = "ion"
t1_s = 2.0
t2_s = 0.5
noise = "gates"
cutoff_s = 0.1
efficiency = 0.5
[[site]]
name = "A"
[[site]]
name = "B"
[[link]]
a = "A"
b = "B"
length_km = 10.0
loss_db = 2.0
profile = "bare-fibre"
[[entangled]]
a = "B"
b = "A"
type = "single-click"
bright_probability = 0.05
memories = 3
memory = ["ion", ""]
handshake = "request-poll"
attempts_per_s = 1e4
"""


def test_what_is_said_is_read_and_written_and_read_again() -> None:
    world = parse(TEXT, "t.toml")
    said = world.entanglement
    assert (said.state_model, said.twirl) == ("dense", True)
    assert said.memories[0].numbers == (("t1_s", 2.0), ("t2_s", 0.5))
    (link,) = said.links
    assert (link.id, link.sites, link.length_km, link.loss_db) == ("a--b", ("a", "b"), 10.0, 2.0)
    assert (link.memory, link.memories, link.handshake, link.attempts) == (
        ("ion", ""),
        3,
        "request-poll",
        "jump",
    )
    assert parse(write(world), "again.toml") == world


@pytest.mark.parametrize("name", shipped())
def test_shipped_worlds_can_be_written(name: str) -> None:
    world = load_shipped(name)
    assert parse(write(world), name) == world
    assert (world.entanglement is NONE) == (name not in ("chain5", "ghz20"))


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        (
            "t2_s = 0.5",
            "t2_s = 5.0",
            13,
            r"memory\[1\]\.t2_s: 5\.0, expected more than 0 and at most 2 t1_s = 4",
        ),
        ("t2_s = 0.5", "t3_s = 0.5", 13, r"memory\[1\]\.t3_s: unknown key, expected one of t1_s, t2_s"),
        ("t1_s = 2.0", "t1_s = true", 12, r"memory\[1\]\.t1_s: got True, expected a number"),
        ("efficiency = 0.5", "efficiency = 1.5", 16, r"memory\[1\]\.efficiency: got 1\.5, .* at most 1"),
        ("cutoff_s = 0.1", "cutoff_s = -1", 15, r"memory\[1\]\.cutoff_s: got -1, expected a number above 0"),
        (
            'noise = "gates"',
            'noise = "gate"',
            14,
            r"memory\[1\]\.noise: unknown noise 'gate', expected 'gates'",
        ),
        ("0.01", "1.01", 9, r"noise\[1\]\.double_error_probability: 1\.01, expected a number from 0 to 1"),
        ('model = "dense"', 'model = "thick"', 5, r"states\.model: got 'thick'"),
        ("twirl = true", "twirl = 1", 6, r"states\.twirl: got 1, expected true or false"),
        ("length_km = 10.0", "length_km = -10.0", 24, r"link\[1\]\.length_km: got -10\.0"),
        ('b = "A"\ntype', 'b = "C"\ntype', 29, r"entangled\[1\]\.b: no \[\[link\]\] between 'b' and 'c'"),
        ("single-click", "triple-click", 30, r"entangled\[1\]\.type: got 'triple-click', expected"),
        (
            "bright_probability = 0.05",
            "bright_probability = 2",
            31,
            r"entangled\[1\]\.bright_prob.* 2\.0, expected",
        ),
        ("bright_probability = 0.05", "bright = 0.05", 31, r"entangled\[1\]\.bright: unknown key"),
        ("memories = 3", "memories = 0", 32, r"entangled\[1\]\.memories: got 0, expected a whole number"),
        ('["ion", ""]', '["iron", ""]', 33, r"entangled\[1\]\.memory: unknown memory 'iron', expected 'ion'"),
        ("request-poll", "request-pull", 34, r"entangled\[1\]\.handshake: unknown handshake 'request-pull'"),
        (
            "attempts_per_s = 1e4",
            "dead_ns = 40",
            27,
            r"entangled\[1\]\.attempts: got 'jump', expected 'message'",
        ),
        ("loss_db = 2.0", "loss_db = 900.0", 30, r"entangled\[1\]\.type: an attempt succeeds with"),
    ],
)
def test_what_cannot_be_is_said_with_its_line(old: str, new: str, line: int, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ScenarioError, match=said) as refused:
        parse(TEXT.replace(old, new), "t.toml")
    assert refused.value.line == line
