"""Scenario files: what is read, and one good line about each thing that is wrong."""

from __future__ import annotations

import doctest
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiplane.kernel.errors import Refused
from multiplane.twin.profiles import PROFILES
from multiplane.twin.scenario import load_shipped, parse, shipped
from multiplane.twin.toml_reading import ScenarioError

GOOD = """\
format = "multiplane-scenario/1"
name = "test"
domain = "lab"

[[site]]
name = "Concepción 2"
saes = ["app", "web"]

[[site]]
name = "bob"  # the other one

[[link]]
a = "Concepción 2"
b = "bob"
length_km = 12
loss_db = 2.4
profile = "constant-rate"
rate_bit_per_s = 1e6
"""

BAD = [
    ('name = "test"', 'nmae = "test"', 2, "nmae: unknown key, expected 'name'"),
    ('name = "test"', "", 1, "name: missing, expected this key"),
    ('name = "test"', "name = 3", 2, "name: got 3, expected a text"),
    ('name = "test"', 'name = "A b"', 2, "name: got 'A b', expected lower-case letters, digits and -: a-b"),
    ("multiplane-scenario/1", "multiplane-scenario/9", 1, "format: unknown format 'multiplane-scenario/9', "),
    ('domain = "lab"', 'domain = "lab', 3, "syntax: "),
    (
        '[[site]]\nname = "bob"',
        '[[site]]\nname = "bób"\n[[site]]\nname = "Bob"',
        12,
        "site[3].name: 'Bob' has",
    ),
    (
        'name = "bob"',
        'name = "concepcion 2"',
        10,
        "site[2].name: 'concepcion 2' has the label 'concepcion-2'",
    ),
    ('name = "bob"', 'name = "??"', 10, "site[2].name: name: expected at least one ASCII letter"),
    ('"app", "web"', '"app", "app"', 7, "site[1].saes: 'app' exists already"),
    ('"app", "web"', '"kme"', 7, "site[1].saes: 'kme' is reserved"),
    ('"app", "web"', '"App"', 7, "site[1].saes: got 'App', expected lower-case letters"),
    ('["app", "web"]', "7", 7, "site[1].saes: got 7, expected a list of labels"),
    ('b = "bob"', 'b = "bop"', 14, "link[1].b: unknown site 'bop', expected 'bob'"),
    ('b = "bob"', 'b = "???"', 14, "link[1].b: unknown site '???', expected one of concepcion-2, bob"),
    ('b = "bob"', 'b = "concepcion-2"', 14, "link[1].b: both ends are 'concepcion-2'"),
    ('b = "bob"', "", 12, "link[1].b: missing"),
    ("length_km", "lenght_km", 15, "link[1].lenght_km: unknown key, expected 'length_km'"),
    ("= 12", "= 0", 15, "link[1].length_km: got 0, expected a number above 0"),
    ("= 12", "= -1.5", 15, "link[1].length_km: got -1.5, expected a number above 0"),
    ("= 12", "= nan", 15, "link[1].length_km: got nan, expected a number above 0"),
    ("= 12", "= inf", 15, "link[1].length_km: got inf, expected a number above 0"),
    ("= 12", "= true", 15, "link[1].length_km: got True, expected a number above 0"),
    ("= 12", '= "12"', 15, "link[1].length_km: got '12', expected a number above 0"),
    ("= 12", "= " + "9" * 400, 15, "link[1].length_km: got a huge number, expected a number above 0"),
    ("2.4", "-0.1", 16, "link[1].loss_db: got -0.1, expected a number of at least 0"),
    (
        "constant-rate",
        "constant-rat",
        17,
        "link[1].profile: unknown profile 'constant-rat', expected 'constant-rate'",
    ),
    ('profile = "constant-rate"', "", 12, "link[1].profile: missing"),
    ("rate_bit_per_s = 1e6", "", 12, "link[1].rate_bit_per_s: missing, expected the rate of profile"),
    (
        "constant-rate",
        "decoy-bb84-1ghz",
        18,
        "link[1].rate_bit_per_s: profile 'decoy-bb84-1ghz' derives its rate",
    ),
    ("1e6", "0", 18, "link[1].rate_bit_per_s: got 0, expected a number above 0"),
    (
        "1e6",
        "1e13",
        18,
        "link[1].rate_bit_per_s: got 10000000000000.0, expected a number above 0 and at most",
    ),
    ("[[link]]", "[link]", 12, "link: got a table, expected tables [[link]]"),
    (
        '[[site]]\nname = "bob"',
        '[defaults]\nprofile = 3\n[[site]]\nname = "bob"',
        10,
        "defaults.profile: got 3",
    ),
    ('[[site]]\nname = "bob"', '[defaults]\nx = 3\n[[site]]\nname = "bob"', 10, "defaults.x: unknown key"),
    ('name = "test"', 'name = "test"\ndefaults = 3', 3, "defaults: got 3, expected a table"),
    ('name = "test"', 'name = "test"\nport = 8080', 3, "port: unknown key"),
]


def test_a_good_file_becomes_a_world() -> None:
    world = parse(GOOD, "test.toml")
    assert (world.name, world.domain) == ("test", "lab")
    assert [(site.name, site.title, site.saes) for site in world.sites] == [
        ("concepcion-2", "Concepción 2", ("app", "web")),
        ("bob", "bob", ("bob-1",)),
    ]
    (span,) = world.spans
    assert (span.id, span.sites) == ("bob--concepcion-2", ("bob", "concepcion-2"))
    assert (span.length_km, span.loss_db, span.profile) == (12.0, 2.4, "constant-rate")
    assert span.rate_bit_per_s == 1e6


@pytest.mark.parametrize(("good", "bad", "line", "begins"), BAD)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_fault_is_one_line_with_file_line_and_key(
    good: str, bad: str, line: int, begins: str, newline: str
) -> None:
    assert good in GOOD
    with pytest.raises(ScenarioError) as caught:
        parse(GOOD.replace(good, bad, 1).replace("\n", newline), "net.toml")
    assert caught.value.reason.startswith(f"net.toml:{line}: {begins}")
    assert caught.value.code == "scenario.invalid"
    assert "expected" in caught.value.reason
    assert "\n" not in caught.value.reason


def test_links_between_the_same_sites_are_one_too_many() -> None:
    again = (
        '\n[[link]]\na = "bob"\nb = "Concepción 2"\nlength_km = 1\nloss_db = 1\nprofile = "decoy-bb84-1ghz"\n'
    )
    with pytest.raises(
        ScenarioError, match=r"^scenario\.invalid: x:22: link\[2\]\.b: 'bob' and 'concepcion-2'"
    ):
        parse(GOOD + again, "x")


def test_no_site_and_deep_nesting() -> None:
    with pytest.raises(ScenarioError, match=r"site: got none"):
        parse('site = []\nformat = "multiplane-scenario/1"\nname = "n"\ndomain = "d"\n', "x")
    with pytest.raises(ScenarioError, match=r"x:1: syntax: "):
        parse("x = " + "[" * 100_000, "x")
    with pytest.raises(ScenarioError, match=r"x:3: syntax: "):
        parse("a = 1\nb = 2\nc = [\n", "x")


@settings(max_examples=300)
@given(
    at=st.integers(0, len(GOOD)),
    drop=st.integers(0, 40),
    put=st.one_of(st.text(max_size=12), st.sampled_from(["[[site]]\n", "[x]\n", '"""', "= 1e999", "[" * 40])),
)
def test_mutated_files_raise_nothing_else(at: int, drop: int, put: str) -> None:
    try:
        parse(GOOD[:at] + put + GOOD[at + drop :], "x.toml")
    except ScenarioError as error:
        head, line, _ = error.reason.split(":", 2)
        assert head == "x.toml"
        assert 1 <= int(line) <= (GOOD + put).count("\n") + 1
        assert error.reason.isprintable()  # noqa: PT017 (most mutants are refused, some are fine)


@given(st.text(max_size=200))
def test_any_text_raises_nothing_else(text: str) -> None:
    with pytest.raises(ScenarioError):
        parse(text, "x.toml")


def test_shipped_scenarios() -> None:
    assert shipped() == ("chain5", "ghz20", "lab3", "madqci", "pair", "ring6", "ring6-busy")
    sizes = {name: (len(load_shipped(name).sites), len(load_shipped(name).spans)) for name in shipped()}
    assert sizes == {
        "chain5": (5, 4),
        "ghz20": (20, 31),
        "lab3": (3, 2),
        "madqci": (9, 9),
        "pair": (2, 1),
        "ring6": (6, 6),
        "ring6-busy": (6, 6),
    }
    for name in shipped():
        world = load_shipped(name)
        assert world.name == world.domain == name
        assert all(site.saes for site in world.sites) or world.entanglement.links, "repeaters serve nobody"
        for span in world.spans:
            makes = PROFILES[span.profile].yields(span.loss_db, span.rate_bit_per_s)
            assert makes.rate_bit_per_s > 100_000 or (
                span.profile == "bare-fibre" and span.id in {link.id for link in world.entanglement.links}
            )
    with pytest.raises(Refused, match=r"scenario\.unknown.*expected 'madqci'"):
        load_shipped("madqc")


def test_lab3_is_the_chain_alice_relay_bob() -> None:
    world = load_shipped("lab3")
    assert [site.name for site in world.sites] == ["alice", "relay", "bob"]
    assert [span.sites for span in world.spans] == [("alice", "relay"), ("bob", "relay")]


def test_madqci_is_the_published_network(project_root: Path) -> None:
    folder = Path(os.environ.get("MULTIPLANE_SHARED", project_root.parent / "shared"))
    file = folder / "topologies" / "madqci-2024.json"
    if not file.is_file():
        pytest.skip("1 topology was not compared: no madqci-2024.json (set MULTIPLANE_SHARED)")
    published = json.loads(file.read_text())
    world = load_shipped("madqci")
    assert [site.title for site in world.sites] == [node["name"] for node in published["nodes"]]
    assert [(set(span.sites), span.length_km, span.loss_db) for span in world.spans] == [
        ({link["a"].lower(), link["b"].lower()}, link["km"], link["loss_db"]) for link in published["links"]
    ]


def test_examples_of_the_format_page(project_root: Path) -> None:
    page = project_root / "docs" / "formats" / "scenario.md"
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted >= 5
