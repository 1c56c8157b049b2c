"""What the writer of scenarios writes is read back as the same world, positions and bases included."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiplane.kernel.names import link_id, slug
from multiplane.twin.scenario import (
    LENGTH_BASES,
    LOSS_BASES,
    Site,
    Span,
    World,
    load_shipped,
    parse,
    shipped,
)
from multiplane.twin.scenario_writing import write
from multiplane.twin.toml_reading import ScenarioError

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda t: slug(t) == t)
DECOYS, RATES = "decoy-bb84-1ghz", "constant-rate"


def labelled(title: str) -> bool:
    try:
        return bool(slug(title))
    except ValueError:
        return False


TITLES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=70).filter(labelled)


@st.composite
def sites(draw: st.DrawFn) -> tuple[Site, ...]:
    titles = draw(st.lists(TITLES, min_size=1, max_size=5, unique_by=slug))
    aliases = draw(st.lists(LABELS.filter(lambda t: t != "kme"), max_size=6, unique=True))
    found = []
    for title in titles:
        count = draw(st.integers(0, len(aliases)))
        saes, aliases = tuple(aliases[:count]), aliases[count:]
        placed = draw(st.booleans())
        lat_deg = draw(st.floats(-90.0, 90.0)) if placed else None
        lon_deg = draw(st.floats(-180.0, 180.0)) if placed else None
        found.append(Site(name=slug(title), title=title, saes=saes, lat_deg=lat_deg, lon_deg=lon_deg))
    return tuple(found)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    places = draw(sites())
    labels = sorted(site.name for site in places)
    pairs = [(a, b) for n, a in enumerate(labels) for b in labels[n + 1 :]]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    spans = []
    for a, b in chosen:
        profile = draw(st.sampled_from([DECOYS, RATES]))
        rate = draw(st.floats(5e-324, 1e12)) if profile == RATES else 0.0
        spans.append(
            Span(
                id=link_id(a, b),
                sites=(a, b),
                length_km=draw(st.floats(5e-324, 1e5)),
                loss_db=draw(st.floats(0.0, 1e3)),
                profile=profile,
                rate_bit_per_s=rate,
                length_basis=draw(st.sampled_from(LENGTH_BASES)),
                loss_basis=draw(st.sampled_from(LOSS_BASES)),
            )
        )
    return World(name=draw(LABELS), domain=draw(LABELS), sites=places, spans=tuple(spans))


@settings(max_examples=150, deadline=None)
@given(world=worlds(), line=st.text(max_size=30))
def test_a_written_world_is_read_back_whole(world: World, line: str) -> None:
    comments = {site.name: line for site in world.sites} | {span.id: line for span in world.spans}
    text = write(world, ["header", line], comments)
    text.encode("utf-8", "surrogatepass")
    assert parse(text, "x.toml") == world


def test_shipped_worlds_survive_writing() -> None:
    for name in shipped():
        world = load_shipped(name)
        assert parse(write(world), name) == world


def test_header_and_comments_stand_where_they_belong() -> None:
    text = write(
        load_shipped("pair"), ["one", "two\nthree"], {"alice": "about her", "alice--bob": "the fibre"}
    )
    lines = text.splitlines()
    assert lines[:3] == ["# one", "# two three", 'format = "multiplane-scenario/1"']
    assert lines[lines.index("# about her") + 1] == "[[site]]"
    assert lines[lines.index("# the fibre") + 1] == "[[link]]"


OLD = """\
format = "multiplane-scenario/1"
name = "t"
domain = "t"
defaults = { profile = "decoy-bb84-1ghz" }
site = [{ name = "A" }, { name = "b" }]
link = [{ a = "A", b = "b", length_km = 24, loss_db = 6 }]
"""


def test_a_world_that_says_nothing_new_is_encoded_as_ever() -> None:
    """State directories know their world by a digest of this encoding."""
    assert msgspec.json.encode(parse(OLD, "x")) == (
        b'{"name":"t","domain":"t","sites":['
        b'{"name":"a","title":"A","saes":["a-1"]},{"name":"b","title":"b","saes":["b-1"]}],'
        b'"spans":[{"id":"a--b","sites":["a","b"],"length_km":24.0,"loss_db":6.0,'
        b'"profile":"decoy-bb84-1ghz","rate_bit_per_s":0.0}]}'
    )


GOOD = """\
format = "multiplane-scenario/1"
name = "t"
domain = "t"
[[site]]
name = "a"
lat_deg = 52.5
lon_deg = -13.25
[[site]]
name = "b"
saes = []
[[link]]
a = "a"
b = "b"
length_km = 10
length_basis = "great-circle"
loss_db = 2
loss_basis = "derived"
profile = "decoy-bb84-1ghz"
"""


def test_positions_and_bases_are_read() -> None:
    world = parse(GOOD, "x")
    assert [(site.lat_deg, site.lon_deg, site.saes) for site in world.sites] == [
        (52.5, -13.25, ("a-1",)),
        (None, None, ()),
    ]
    assert (world.spans[0].length_basis, world.spans[0].loss_basis) == ("great-circle", "derived")
    bare = GOOD.replace('length_basis = "great-circle"\n', "").replace('loss_basis = "derived"\n', "")
    assert (parse(bare, "x").spans[0].length_basis, parse(bare, "x").spans[0].loss_basis) == (
        "stated",
        "stated",
    )


@pytest.mark.parametrize(
    ("good", "bad", "line", "begins"),
    [
        ("52.5", "90.5", 6, "site[1].lat_deg: got 90.5, expected a number of at least -90 and at most 90"),
        ("-13.25", "-181", 7, "site[1].lon_deg: got -181, expected a number of at least -180"),
        ("-13.25", "nan", 7, "site[1].lon_deg: got nan, expected a number"),
        ("lon_deg = -13.25\n", "", 4, "site[1].lon_deg: missing, expected both lat_deg and lon_deg"),
        ("lat_deg = 52.5\n", "", 4, "site[1].lat_deg: missing, expected both"),
        (
            '"great-circle"',
            '"great circle"',
            15,
            "link[1].length_basis: got 'great circle', expected 'great-",
        ),
        ('"derived"', "3", 17, "link[1].loss_basis: got 3, expected a text"),
        ('"derived"', '"planar"', 17, "link[1].loss_basis: got 'planar', expected one of stated, derived"),
    ],
)
def test_bad_positions_and_bases(good: str, bad: str, line: int, begins: str) -> None:
    assert good in GOOD
    with pytest.raises(ScenarioError) as caught:
        parse(GOOD.replace(good, bad, 1), "net.toml")
    assert caught.value.reason.startswith(f"net.toml:{line}: {begins}")
