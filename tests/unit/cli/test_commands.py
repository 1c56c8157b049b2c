"""The commands that look and that change the world, against a network made of memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import Result

from multiplane.api.operator import StockOutlook
from multiplane.assembly.settings import UpSettings
from multiplane.cli import starting, view

Run = Callable[..., Result]
KEY_ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"


def one_line(result: Result) -> str:
    """The error of a command: exactly one line, on stderr alone."""
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("multiplane: ")
    return lines[0]


def test_status_shows_links_stock_and_what_was_delivered(running: Any, multiplane: Run) -> None:
    result = multiplane("status")
    assert result.exit_code == 0, result.stderr
    for text in ("1 of 1 links up", "a - b", "5.57 Mbit/s", "1.00%", "1.25 Mbit", "512 bit", "9 kbit"):
        assert text in result.stdout, text
    assert view.SEEDED not in result.stdout
    assert "does not close" not in result.stdout


def test_status_says_when_keys_are_not_secret_and_when_a_ledger_is_open(
    running: Any, multiplane: Run
) -> None:
    near, far = running.answer.kmes
    wrong = replace(near, ledgers=(replace(near.ledgers[0], stock_bit=8_999),))
    running.answer = replace(running.answer, secret=False, kmes=(wrong, far))
    result = multiplane("status")
    assert view.SEEDED in result.stdout
    assert "ledger a to b (near) does not close" in result.stdout


def test_status_as_json_is_the_report(running: Any, multiplane: Run) -> None:
    document = json.loads(multiplane("status", "--json").stdout)
    assert document["links"][0]["rate_bit_per_s"] == 5_570_000.0
    assert [kme["name"] for kme in document["kmes"]] == ["a", "b"]


def test_link_cut_is_seen_in_the_topology_and_restored(running: Any, multiplane: Run) -> None:
    assert "up" in multiplane("topology", "show").stdout
    assert multiplane("link", "cut", "B", "a").exit_code == 0
    row = multiplane("topology", "show").stdout.splitlines()[1]
    assert row.split()[:7] == ["a", "-", "b", "24.2", "km", "6.0", "dB"]
    assert "cut" in row
    assert json.loads(multiplane("topology", "show", "--json").stdout)[0]["cut"] is True
    assert multiplane("link", "restore", "a", "b").exit_code == 0
    assert json.loads(multiplane("topology", "show", "--json").stdout)[0]["cut"] is False


def large(running: Any) -> None:
    """A network of 803 links with long names: the last but one is faulted, ten in the middle are up."""
    (link,) = running.answer.links
    states = dict.fromkeys(range(400, 410), "up") | {801: "faulted"}
    links = tuple(
        replace(link, a=f"a-town-with-a-long-name-to-another-r{n}", b=f"b{n}", state=states.get(n, "dark"))
        for n in range(803)
    )
    running.answer = replace(running.answer, links=links, relay_count=745)


def test_status_of_a_large_network_is_a_screen_that_shows_what_is_amiss(
    running: Any, multiplane: Run
) -> None:
    large(running)
    lines = multiplane("status").stdout.splitlines()
    assert len(lines) < 40
    assert "745 relays" in lines[0]
    assert "…" not in "".join(lines)
    assert len([line for line in lines if " up " in line]) == 10
    [faulted] = [line for line in lines if line.startswith("a-town-with-a-long-name-to-another-r801 - b801")]
    assert faulted.split()[3] == "faulted"
    hint = "24 of 803 links (792 dark, 1 faulted, 10 up); all of them: multiplane topology show --all"
    assert hint in lines


def test_topology_of_a_large_network_is_cut_off_unless_all_of_it_is_asked_for(
    running: Any, multiplane: Run
) -> None:
    running.spans = 100
    multiplane("link", "cut", "a", "b")
    lines = multiplane("topology", "show").stdout.splitlines()
    assert len(lines) == 26
    assert lines[-1] == "24 of 100 links (1 cut, 99 up); all of them: --all"
    assert len([line for line in lines if " cut " in line]) == 1
    assert len(multiplane("topology", "show", "--all").stdout.splitlines()) == 101
    assert len(json.loads(multiplane("topology", "show", "--json").stdout)) == 100


def test_a_small_network_is_shown_whole(running: Any, multiplane: Run) -> None:
    for command in (("status",), ("topology", "show"), ("topology", "show", "--all")):
        assert "all of them" not in multiplane(*command).stdout
    assert "relays" not in multiplane("status").stdout


def test_unit_show_prints_the_three_urns_at_both_ends(running: Any, multiplane: Run) -> None:
    lines = multiplane("unit", "show", KEY_ID).stdout.splitlines()
    assert sum("urn:qkd:" in line for line in lines) == 6
    assert [line for line in lines if line.startswith("at ")] == [
        "at a: committed, this key: delivered",
        "at b: committed, this key: stock",
    ]


def test_messages_come_in_order_after_a_number(running: Any, multiplane: Run) -> None:
    lines = multiplane("messages", "--after", "1").stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == [2, 3]
    assert lines[0].strip() == "2 00:00:02.000000 urn:qkd:lab:a:kme -> fabric_control.place a--b: ok"


def test_edits_of_the_world_reach_it_and_are_said(running: Any, multiplane: Run) -> None:
    commands = {
        ("link", "set", "B", "a", "--loss-db", "9.5"): (("set_loss", ("a", "b"), 9.5), "a--b loses 9.5 dB"),
        ("link", "set", "a", "b", "--flip-probability", "0.02"): (
            ("set_error", ("a", "b"), 0.02),
            "a--b flips a bit with probability 0.02 beside its usual errors",
        ),
        ("link", "fail", "a", "b", "--at", "A"): (
            ("fail_device", ("a", "b"), "a"),
            "the module of a--b at a has failed",
        ),
        ("link", "repair", "a", "b", "--at", "a"): (
            ("repair_device", ("a", "b"), "a"),
            "the module of a--b at a works",
        ),
        ("site", "lose", "B"): (("lose_site", "b"), "b is lost"),
        ("site", "return", "b"): (("return_site", "b"), "b is back"),
    }
    for arguments, (edit, said) in commands.items():
        result = multiplane(*arguments)
        assert (result.exit_code, result.output.strip(), running.edits[-1]) == (0, said, edit)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("unit", "show", "nonsense"), 1, "expected a key id"),
        (("link", "cut", "a", "c"), 2, "expected one of a--b"),
        (("link", "cut", "a", "A"), 2, "different names"),
        (("link", "cut", "a", "%%"), 2, "at least one ASCII letter"),
        (("link", "cut", "a"), 2, "Missing argument"),
        (("link", "set", "a", "b"), 2, "expected --loss-db or --flip-probability"),
        (("link", "set", "a", "b", "--loss-db", "much"), 2, "--loss-db"),
        (("link", "fail", "a", "b"), 2, "Missing option '--at'"),
        (("site", "lose", "%%"), 2, "at least one ASCII letter"),
        (("status", "--state", "/nowhere"), 1, "no network runs on /nowhere"),
        (("stauts",), 2, "No such command 'stauts'"),
        (("messages", "--after", "-1"), 2, "--after"),
        (("up", "--for", "9x"), 2, "90, 30s, 5m or 1h"),
        (("up", "--for", "0"), 2, "90, 30s, 5m or 1h"),
        (("up", "--spread", "all"), 2, "per-node"),
        (("up", "--rate", "-2"), 2, "rate: expected more than 0"),
        (("up", "--rate", "fast"), 2, "'--rate'"),
        (("up", "--port-base", "80"), 2, "1024"),
        (("up", "--config", "none.toml"), 2, "none.toml"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    running: Any, multiplane: Run, arguments: tuple[str, ...], code: int, word: str
) -> None:
    result = multiplane(*arguments)
    assert result.exit_code == code, result.output
    assert word in one_line(result)


def test_a_socket_nobody_serves_is_one_line(multiplane: Run, tmp_path: Path) -> None:
    result = multiplane("status", "--state", str(tmp_path))
    assert result.exit_code == 1
    line = one_line(result)
    assert str(tmp_path) in line
    assert "`multiplane up`" in line


def test_every_help_text_teaches_with_an_example(multiplane: Run) -> None:
    commands = (
        "up",
        "import",
        "status",
        "messages",
        "topology show",
        "unit show",
        "key get",
        "link cut",
        "link restore",
    )
    for command in commands:
        result = multiplane(*command.split(), "--help")
        assert result.exit_code == 0
        assert f"multiplane {command}" in result.stdout.partition("Example")[2], command


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("0.5h", 1800.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert starting.duration_s(text) == seconds


def test_up_hands_over_options_then_environment_then_file(
    multiplane: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[UpSettings] = []

    async def run(settings: UpSettings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(starting, "run", run)
    monkeypatch.setenv("MULTIPLANE_STATE", str(tmp_path))
    monkeypatch.setenv("MULTIPLANE_RATE", "10")
    monkeypatch.setenv("MULTIPLANE_SEED", "3")
    (tmp_path / "multiplane.toml").write_text('[up]\nscenario = "ring6"\nrate = 4.0\nport_base = 9000\n')
    assert multiplane("up", "lab3", "--seed", "5", "--spread", "per-node", "--for", "5m").exit_code == 0
    assert seen == [
        UpSettings(
            state=tmp_path, scenario="lab3", spread=True, rate=10.0, for_s=300.0, port_base=9000, seed=5
        )
    ]


def test_up_answers_a_scenario_error_with_file_and_line(
    multiplane: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multiplane.kernel.errors import Refused

    async def run(settings: UpSettings) -> int:
        raise Refused("scenario.value", "net.toml:7: length_km: expected more than 0, got -1")

    monkeypatch.setattr(starting, "run", run)
    result = multiplane("up", "net.toml", "--state", str(tmp_path))
    assert result.exit_code == 2
    assert one_line(result) == "multiplane: net.toml:7: length_km: expected more than 0, got -1"


def test_metrics_prints_what_the_network_exports(multiplane: Run, running: Any) -> None:
    done = multiplane("metrics")
    assert done.exit_code == 0
    assert done.output == "# HELP multiplane_links Links of the network.\n"


def test_status_warns_of_a_stock_that_will_not_last(multiplane: Run, running: Any) -> None:
    short = StockOutlook(owner="a", peer="b", stock_bit=9000, use_bit_per_s=900.0, lasts_s=10.0, at_ns=1)
    lasting = (replace(short, owner="b", lasts_s=view.SHORT_S), replace(short, owner="c", lasts_s=None))
    running.answer = replace(running.answer, outlooks=(short, *lasting))
    lines = [line for line in multiplane("status").output.splitlines() if line.startswith("stock ")]
    assert lines == ["stock a to b lasts 10 s at 900 bit/s"]


def test_up_takes_log_port_and_grace(
    monkeypatch: pytest.MonkeyPatch, multiplane: Run, tmp_path: Path
) -> None:
    seen: list[UpSettings] = []

    async def run(settings: UpSettings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(starting, "run", run)
    state = ("--state", str(tmp_path))
    assert multiplane("up", *state).exit_code == 0
    given = ("--log", "json", "--log-level", "warning", "--access-log", "--ops-port", "9901", "--grace", "90")
    assert multiplane("up", *state, *given[:-1], "9s").exit_code == 0
    plain, full = seen
    assert (plain.log, plain.log_level, plain.access_log, plain.ops_port, plain.grace_s) == (
        "human", "info", False, None, 5.0,
    )  # fmt: skip
    assert (full.log, full.log_level, full.access_log, full.ops_port, full.grace_s) == (
        "json", "warning", True, 9901, 9.0,
    )  # fmt: skip
    for wrong in (("--log", "xml"), ("--log-level", "loud"), ("--ops-port", "80"), given[-2:]):
        done = multiplane("up", *state, *wrong)
        assert done.exit_code == 2
        assert wrong[0].removeprefix("--").replace("-", "_") in done.output
