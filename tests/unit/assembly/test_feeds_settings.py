"""Settings of fed links: what is wrong is one line with file, line and key; each site gets its own end."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from multiplane.assembly.feeds.settings import RATE_BIT_PER_S, FeedEnd, check_feeds, ends_at
from multiplane.assembly.settings import FILE_NAME, load
from multiplane.kernel.errors import Refused

GOOD = """[up]
scenario = "lab3"

[feed."alice--relay"]
rate_bit_per_s = 20e3

[feed."alice--relay".alice]
url = "https://127.0.0.1:9443/"
ca = "ca.pem"
cert = "a.pem"
key = "a.key"
sae_id = "app-a"

[feed."alice--relay".relay]
url = "https://kme-b.example"
ca = "ca.pem"
cert = "b.pem"
key = "b.key"
sae_id = "app-b"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ca.pem", "a.pem", "a.key", "b.pem", "b.key"):
        (tmp_path / name).write_text("not read here")
    return tmp_path


def refused(folder: Path, text: str) -> Refused:
    (folder / FILE_NAME).write_text(text)
    with pytest.raises(Refused) as caught:
        load(folder, {})
    return caught.value


def test_each_site_gets_its_own_end(folder: Path) -> None:
    (folder / FILE_NAME).write_text(GOOD)
    (feed,) = load(folder, {}).feeds
    assert feed.at == f"{folder / FILE_NAME}:4"
    (end,) = ends_at([feed], "relay")
    assert end == FeedEnd(
        link="alice--relay",
        site="relay",
        peer="alice",
        url="https://kme-b.example",
        ca=str(folder / "ca.pem"),
        cert=str(folder / "b.pem"),
        key=str(folder / "b.key"),
        sae_id="app-b",
        peer_sae_id="app-a",
        rate_bit_per_s=20e3,
    )
    (other,) = ends_at([feed], "alice")
    assert (other.leads, end.leads) == (True, False)
    assert (other.host, end.host) == ("127.0.0.1:9443", "kme-b.example")
    assert ends_at([feed], "bob") == ()
    assert msgspec.json.decode(msgspec.json.encode(end), type=FeedEnd) == end


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "word"),
    [
        ("20e3", "0", 5, "rate_bit_per_s", "above 0"),
        ("20e3", "true", 5, "rate_bit_per_s", "above 0"),
        ("20e3", "nan", 5, "rate_bit_per_s", "above 0"),
        ("rate_bit_per_s", "rate", 5, "rate", "unknown key"),
        ("https://127", "http://127", 8, "alice.url", "https://"),
        ("9443/", "94430", 8, "alice.url", "https://"),
        ("https://kme-b.example", "https://user@kme-b.example", 15, "relay.url", "https://"),
        ('"ca.pem"\ncert = "a.pem"', '"cb.pem"\ncert = "a.pem"', 9, "alice.ca", "readable PEM file"),
        ('cert = "b.pem"', 'cert = ""', 17, "relay.cert", "expected a text"),
        ('key = "b.key"', "key = 3", 18, "relay.key", "expected a text"),
        ('key = "b.key"', 'password = "x"', 18, "relay.password", "unknown key"),
        ('key = "b.key"\n', "", 14, "relay.key", "expected a text"),
        ('"app-b"', '"app-a"', 19, "relay.sae_id", "another than at alice"),
        ('"app-b"', '"app\\nb"', 19, "relay.sae_id", "printable"),
        ('lay".relay]', 'lay".bob]', 14, "bob", "unknown key"),
        ('"alice--relay"]', '"relay--alice"]', 4, "relay--alice", "in order"),
        ('"alice--relay"]', '"alice"]', 4, "alice", "two sites"),
        ('"alice--relay"]', '"alice--Relay"]', 4, "Relay", "two sites"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    folder: Path, old: str, new: str, line: int, key: str, word: str
) -> None:
    assert old in GOOD
    error = refused(folder, GOOD.replace(old, new, 1))
    assert error.reason.startswith(f"{folder / FILE_NAME}:{line}: feed."), error.reason
    assert error.code in ("settings.value", "settings.unknown_key")
    assert key in error.reason
    assert word in error.reason
    assert "\n" not in error.reason


def test_a_feed_that_is_no_table_is_refused(folder: Path) -> None:
    assert "feed: expected a table" in refused(folder, "feed = 3\n").reason
    assert "feed.a--b: expected a table" in refused(folder, '[feed]\n"a--b" = 3\n').reason


def test_a_fed_link_must_be_one_of_the_scenario_and_run_in_real_time(folder: Path) -> None:
    (folder / FILE_NAME).write_text(GOOD)
    feeds = load(folder, {}).feeds
    check_feeds(feeds, ["alice--relay", "bob--relay"], 1.0)
    with pytest.raises(Refused, match=r"multiplane\.toml:4: feed\.alice--relay: no link .* alice--bob"):
        check_feeds(feeds, ["alice--bob"], 1.0)
    with pytest.raises(Refused, match="expected rate 1, got 10"):
        check_feeds(feeds, ["alice--relay"], 10.0)


def test_the_settings_of_the_page_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "operations" / "mixed.md").read_text(encoding="utf-8")
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found
    (tmp_path / "feed").mkdir()
    for name in ("ca.pem", "app-a.pem", "app-a.key", "app-b.pem", "app-b.key"):
        (tmp_path / "feed" / name).touch()
    (tmp_path / FILE_NAME).write_text(found.group(1), encoding="utf-8")
    (feed,) = load(tmp_path, {}).feeds
    assert [(end.site, end.sae_id) for end in feed.ends] == [("alice", "app-a"), ("relay", "app-b")]
    assert f"default {RATE_BIT_PER_S:g}".replace("e+0", "e") in page
