"""Ports of listeners: free, remembered, and not among those that outgoing connections are given."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from multiplane.assembly import state
from multiplane.assembly.state import StateDirectory


def test_ports_are_free_different_remembered_and_below_those_of_outgoing_connections(tmp_path: Path) -> None:
    names = [f"site-{number}/014" for number in range(20)]
    ports = StateDirectory(tmp_path, "pair", "world", spread=False).ports(names, None)
    assert len(set(ports.values())) == 20
    assert all(state.FIRST_PORT <= port < state.FIRST_PORT + state.PORTS <= 32_768 for port in ports.values())
    for port in ports.values():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    assert StateDirectory(tmp_path, "pair", "world", spread=False).ports(names, None) == ports


def test_where_none_is_free_the_system_gives_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(state, "FIRST_PORT", taken.getsockname()[1])
        monkeypatch.setattr(state, "PORTS", 1)
        ports = StateDirectory(tmp_path, "pair", "world", spread=False).ports(["a"], None)
        assert ports["a"] != taken.getsockname()[1]
