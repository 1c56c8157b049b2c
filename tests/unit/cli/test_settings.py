"""Settings: the command line wins, the file fills the rest, a refusal names file and line."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from multiplane.assembly.settings import FILE_NAME, KeySettings, UpSettings, check_prefixes, load
from multiplane.kernel.errors import Refused
from multiplane.runtime.http_limits import Limits
from multiplane.service.planes import QuotaRule, RateRule
from multiplane.service.planes.units import UnitRules
from multiplane.twin.scenario import load_shipped


def write(state: Path, text: str) -> Path:
    """A settings file in the state directory."""
    path = state / FILE_NAME
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_the_defaults_stand(tmp_path: Path) -> None:
    assert load(tmp_path, {}) == UpSettings(state=tmp_path)


def test_what_was_said_wins_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, '[up]\nscenario = "ring6"\nrate = 2.0\nseed = 5\n')
    settings = load(tmp_path, {"scenario": "lab3", "rate": None})
    assert (settings.scenario, settings.rate, settings.seed) == ("lab3", 2.0, 5)


def test_traffic_is_off_unless_said(tmp_path: Path) -> None:
    assert not load(tmp_path, {}).traffic
    write(tmp_path, "[up]\ntraffic = true\n")
    assert load(tmp_path, {}).traffic


def test_keys_and_pairing_come_from_the_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        "[keys]\nttl_s = 60\ndefault_size_bit = 128\n[pairing]\nallow_self = true\n"
        '[[pairing.rules]]\nmaster = "madqci:quijote"\nslave = "*"\nallow = false\n',
    )
    settings = load(tmp_path, {})
    assert settings.keys == KeySettings(ttl_s=60.0, default_size_bit=128)
    assert settings.pairing.allow_self
    assert [(rule.master, rule.slave, rule.allow) for rule in settings.pairing.rules] == [
        ("madqci:quijote", "*", False)
    ]


@pytest.mark.parametrize(
    ("table", "at"),
    [
        ("[[pairing.rules]]\nmaster = '*'\nslave = 'alice-1'\nallow = false\n", "3: pairing.rules[0].slave"),
        (
            "[[metering.quotas]]\napplication = 'alice-1'\nquota_bit = 1\n",
            "2: metering.quotas[0].application",
        ),
    ],
)
def test_a_rule_about_nobody_is_refused(table: str, at: str, tmp_path: Path) -> None:
    world = load_shipped("pair")
    write(tmp_path, table.replace("alice-1", "pair:alice"))
    check_prefixes(load(tmp_path, {}).prefixes, world)
    path = write(tmp_path, table)
    with pytest.raises(Refused) as refusal:
        check_prefixes(load(tmp_path, {}).prefixes, world)
    wanted = "'alice-1' is no application of pair, expected '*' or such as 'pair:alice:alice-1'"
    assert refusal.value.reason == f"{path}:{at}: {wanted}"


def test_what_is_offered_for_units_comes_from_the_file(tmp_path: Path) -> None:
    write(tmp_path, "[units]\nmax_size = 8\nsacrifice_share = 0.5\n")
    assert load(tmp_path, {}).units == UnitRules(max_size=8, sacrifice_share=0.5)


def test_the_page_of_units_tells_all_defaults() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operations" / "units.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {
        name: float(value.replace(",", ""))
        for names, values, *_ in rows
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=True)
    }
    assert told == msgspec.to_builtins(UnitRules())


def test_metering_comes_from_the_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        "[metering]\nrate_bit_per_s = 1e6\nwindow_s = 60\n"
        "[[metering.rules]]\nmaster = 'a:b'\nslave = '*'\nrate_bit_per_s = 9\nburst_bit = 8\n"
        "[[metering.quotas]]\napplication = 'a:b'\nquota_bit = 7\n",
    )
    metering = load(tmp_path, {}).metering
    assert (metering.rate_bit_per_s, metering.window_s, metering.quota_bit) == (1e6, 60, 0)
    assert metering.rules == (RateRule(master="a:b", slave="*", rate_bit_per_s=9.0, burst_bit=8),)
    assert metering.quotas == (QuotaRule(application="a:b", quota_bit=7),)


@pytest.mark.parametrize(
    ("text", "line", "code", "word"),
    [
        ("[up]\nscenari = 'x'\n", 2, "settings.unknown_key", "did you mean `scenario`"),
        ("[kees]\nttl_s = 5\n", 1, "settings.unknown_key", "did you mean `keys`"),
        ("[up]\n\nrate = 'fast'\n", 3, "settings.value", "rate"),
        ("[up]\nrate = 0.0\n", 2, "settings.value", "more than 0"),
        ("[up]\nport_base = 80\n", 2, "settings.value", "1024"),
        ("[keys]\nmax_number = 4\nttl_s = -1\n", 3, "settings.value", "ttl_s"),
        ("[keys]\ndefault_size_bit = 100\n", 1, "settings.value", "multiples of 8"),
        ("[keys]\nmax_additional = 65\n", 2, "settings.value", "0 to 64"),
        ("[etsi014]\nunknown_key_status = 410\n", 2, "settings.value", "400 or 404"),
        ("[etsi014]\nstrict_option = true\n", 2, "settings.unknown_key", "did you mean `strict_optional`"),
        ("keys = 3\n", 1, "settings.value", "a table"),
        ("[up]\nrate = \n", 2, "settings.syntax", "line 2"),
        (
            "[[pairing.rules]]\nmaster='*'\nslave='*'\nallow=true\n[[pairing.rules]]\nmaster='*'\nslav='*'\n",
            7,
            "settings.unknown_key",
            "did you mean `slave`",
        ),
        (
            "[[pairing.rules]]\nmaster = '*'\nslave = '*'\nallow = 'yes'\n",
            4,
            "settings.value",
            "allow",
        ),
        ("[[pairing.rules]]\nmaster = 'urn:qkd:x'\nslave = '*'\nallow = true\n", 1, "settings.value", "urn"),
        (
            "[metering]\nwindow_s = 60\nquota_bits = 9\n",
            3,
            "settings.unknown_key",
            "did you mean `quota_bit`",
        ),
        ("[metering]\nwindow_s = 60\nquota_bit = -9\n", 3, "settings.value", "got -9"),
        ("[metering]\nwindow_s = 0\n", 2, "settings.value", "expected at least 1"),
        ("[metering]\nrate_bit_per_s = inf\n", 2, "settings.value", "got inf"),
        (
            "[[metering.rules]]\nmaster = '*'\nslave = '*'\nrate_bit_per_s = 1.0\nburst_bit = 0\n",
            5,
            "settings.value",
            "got 0",
        ),
        (
            "[metering]\n[[metering.quotas]]\napplication = '*'\nquota = 1\n",
            4,
            "settings.unknown_key",
            "quota_bit",
        ),
        ("[[metering.quotas]]\napplication = 'urn:qkd:x'\nquota_bit = 1\n", 1, "settings.value", "urn"),
        ("[units]\nmax_size = 8\nmax_partie = 3\n", 3, "settings.unknown_key", "did you mean `max_parties`"),
        ("[units]\nmax_size = 8\nsacrifice_share = 1.5\n", 3, "settings.value", "expected 0 to 0.9, got 1.5"),
        ("[units]\nlease_s = nan\n", 2, "settings.value", "got nan"),
        ("[units]\nmax_size = 'many'\n", 2, "settings.value", "max_size"),
    ],
)
def test_a_refusal_names_file_and_line(tmp_path: Path, text: str, line: int, code: str, word: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(Refused) as refusal:
        load(tmp_path, {})
    assert refusal.value.code == code
    assert refusal.value.reason.startswith(f"{path}:{line}: "), refusal.value.reason
    assert word in refusal.value.reason


def test_a_wrong_value_that_was_said_names_the_option_not_the_file(tmp_path: Path) -> None:
    write(tmp_path, "[up]\nrate = 2.0\n")
    with pytest.raises(Refused) as refusal:
        load(tmp_path, {"rate": -1.0})
    assert refusal.value.reason == "rate: expected more than 0, got -1.0"


def test_a_settings_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        load(tmp_path, {}, tmp_path / "none.toml")
    assert refusal.value.code == "settings.unreadable"


def test_limits_of_the_servers_come_from_the_file(tmp_path: Path) -> None:
    write(tmp_path, "[http]\nconnections = 40\nhead_s = 2\n")
    assert load(tmp_path, {}).http == Limits(connections=40, head_s=2.0)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("[http]\nconnections = 0\n", 2, "connections: expected more than 0, got 0"),
        ("[http]\nbody_s = inf\n", 2, "body_s: expected more than 0"),
        ('[http]\nhead_s = 1\nbody_byte = "many"\n', 3, "Expected `int`"),
        ("[http]\nconnection = 1\n", 2, "did you mean `connections`?"),
    ],
)
def test_limits_that_cannot_be_are_told_with_their_line(
    tmp_path: Path, text: str, line: int, word: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(Refused) as caught:
        load(tmp_path, {})
    assert caught.value.reason.startswith(f"{path}:{line}: ")
    assert word in caught.value.reason
