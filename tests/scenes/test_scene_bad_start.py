"""Bad input on the command line: one line, the right exit code, nothing left running."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from tests.scenes.tools.network import Network, command_line, descendants, installed, run_cli, running

pytestmark = [pytest.mark.scene, pytest.mark.timeout(180)]


def one_line(printed: str) -> str:
    """The only line of an error. Raises AssertionError when there are more, or a traceback."""
    lines = [line for line in printed.splitlines() if line.strip()]
    assert len(lines) == 1, printed
    assert "Traceback" not in printed
    return lines[0]


Mutation = tuple[str, str, str]

MUTATIONS: dict[str, Mutation] = {
    "a typo in a key": ("length_km = ", "lenght_km = ", "lenght_km"),
    "a negative length": ("length_km = 1.0", "length_km = -1.0", "length_km"),
    "a negative loss": ("loss_db = 0.2", "loss_db = -0.2", "loss_db"),
    "an unknown profile": ('profile = "constant-rate"', 'profile = "constant-fate"', "profile"),
    "a duplicate site": ('name = "relay"', 'name = "Alice"', "name"),
    "a link to nowhere": ('b = "bob"', 'b = "carol"', "carol"),
    "a word for a number": ("length_km = 1.0", 'length_km = "far"', "length_km"),
    "no TOML": ("[[link]]", "[[link", "TOML|syntax|expected"),
    "another format": ("multiplane-scenario/1", "multiplane-scenario/9", "format"),
}


@pytest.mark.parametrize("fault", list(MUTATIONS))
def test_a_faulty_scenario_is_one_line_with_file_line_and_key(fault: str, tmp_path: Path) -> None:
    before, after, word = MUTATIONS[fault]
    good = installed("lab3")
    assert before in good, f"lab3.toml no longer holds {before!r}"
    bad = good.replace(before, after, 1)
    path = tmp_path / "bad.toml"
    path.write_text(bad)
    number = next(
        i
        for i, (old, new) in enumerate(zip(good.splitlines(), bad.splitlines(), strict=True), 1)
        if old != new
    )
    done = run_cli("up", str(path), "--state", str(tmp_path / "state"), cwd=tmp_path)
    assert done.returncode == 2, done
    line = one_line(done.stderr)
    found = re.search(r"bad\.toml:(\d+)", line)
    assert found, line
    # A key that is missing, or a name that clashes, may be told at its table's header.
    assert abs(int(found.group(1)) - number) <= 4, (line, number)
    assert re.search(word, line), line
    assert not (tmp_path / "state" / "ready.json").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["up", "no-such-scenario"], "no-such-scenario"),
        (["up", "pair", "--rate", "0"], "rate"),
        (["up", "pair", "--for", "soon"], "soon"),
        (["up", "pair", "--spread", "per-planet"], "per-planet"),
        (["up", "pair", "--port-base", "99999"], "99999"),
        (["up", "pair", "--seed", "-4"], "seed"),
        (["sideways"], "sideways"),
    ],
)
def test_bad_arguments_end_with_2(arguments: list[str], word: str, tmp_path: Path) -> None:
    more = ["--state", str(tmp_path / "state")] if arguments[0] == "up" else []
    done = run_cli(*arguments, *more, cwd=tmp_path)
    assert done.returncode == 2, done
    assert word in one_line(done.stderr)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        network = Network("pair", tmp_path, "--port-base", str(port))
        process = network.launch()
        assert process.wait(30) in (1, 2), network.tail()
    network.process = None
    assert str(port) in one_line((tmp_path / "up-1.err").read_text())
    assert _left_over(network) == []


def _left_over(network: Network) -> list[int]:
    """Processes that still work on the state directory."""
    return [pid for pid in descendants(1) if str(network.state) in command_line(pid)]


def test_a_state_directory_of_another_scenario_is_refused(tmp_path: Path) -> None:
    with running("pair", tmp_path):
        pass
    done = run_cli("up", "lab3", "--state", str(tmp_path / "state"), "--for", "1", cwd=tmp_path)
    assert done.returncode == 2, done
    line = one_line(done.stderr)
    assert "pair" in line
    assert "lab3" in line
    with running("pair", tmp_path):
        pass


def test_a_second_network_on_the_same_state_is_refused(tmp_path: Path) -> None:
    with running("pair", tmp_path) as network:
        done = run_cli("up", "pair", "--state", str(network.state), "--for", "1", cwd=tmp_path)
        assert done.returncode in (1, 2), done
        one_line(done.stderr)
        assert network.cli_json("status")["scenario"] == "pair"


def test_no_network_is_one_line(tmp_path: Path) -> None:
    done = run_cli("status", "--state", str(tmp_path / "nothing"), cwd=tmp_path)
    assert done.returncode == 1, done
    assert "multiplane up" in one_line(done.stderr)


def test_for_ends_by_itself_with_0(tmp_path: Path) -> None:
    network = Network("pair", tmp_path, "--for", "2s")
    network.start()
    assert network.process is not None
    assert network.process.wait(30) == 0, network.tail()
    network.process = None
    assert _left_over(network) == []


def test_ports_and_certificates_stay_over_a_restart(tmp_path: Path) -> None:
    with running("pair", tmp_path) as network:
        first = network.ready()
        certs = {name: Path(sae["cert"]).read_bytes() for name, sae in first["saes"].items()}
    with running("pair", tmp_path) as network:
        again = network.ready()
        assert {k: v["url"] for k, v in again["kmes"].items()} == {
            k: v["url"] for k, v in first["kmes"].items()
        }
        assert {n: Path(sae["cert"]).read_bytes() for n, sae in again["saes"].items()} == certs
