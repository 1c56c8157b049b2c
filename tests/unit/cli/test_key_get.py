"""key get: what the two applications saw, compared; the bytes only where they were asked for."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import Result

from multiplane.api.north import Key
from multiplane.cli import keys
from multiplane.kernel.errors import Busy

Run = Callable[..., Result]


class FakeClient:
    """Two of these share keys through a common table; `harm` spoils what the slave gets."""

    table: dict[str, bytes]
    harm: Callable[[bytes], bytes]
    opened: list[tuple[str, str]]

    def __init__(self, url: str, ca: str, cert: str, key: str) -> None:
        self.opened.append((url, cert))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def enc_keys(
        self, peer: str, number: int = 1, size_bit: int = 0, *, retry_for_s: float = 0.0
    ) -> tuple[Key, ...]:
        if number > 8:
            raise Busy("key.dry", "stock: 8 keys, asked for more", retry_after_ns=10**9)
        for place in range(number):
            self.table[f"id-{place}"] = bytes([place + 65]) * ((size_bit or 256) // 8)
        return tuple(Key(key_id=key_id, key=key) for key_id, key in self.table.items())

    async def dec_keys(self, master: str, ids: Sequence[str], *, retry_for_s: float = 0.0) -> tuple[Key, ...]:
        return tuple(Key(key_id=key_id, key=type(self).harm(self.table[key_id])) for key_id in ids)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, ready_file: Path, tmp_path: Path) -> type[FakeClient]:
    """A fresh table in place of the SDK's client."""
    FakeClient.table, FakeClient.opened, FakeClient.harm = {}, [], staticmethod(lambda key: key)
    monkeypatch.setattr(keys, "KeyClient", FakeClient)
    monkeypatch.setattr(keys, "check_listening", lambda state, ready: None)
    monkeypatch.setenv("MULTIPLANE_STATE", str(tmp_path))
    return FakeClient


def test_it_is_master_at_one_key_manager_and_slave_at_the_other(client: Any, multiplane: Run) -> None:
    result = multiplane("key", "get", "a-app", "b-app")
    assert (result.stdout, result.exit_code) == ("id-0 256 bit identical\n", 0)
    assert client.opened == [
        ("https://127.0.0.1:9000", "a cert.pem"),
        ("https://127.0.0.1:9001", "b cert.pem"),
    ]


def test_applications_have_ids_urns_and_sites(client: Any, multiplane: Run) -> None:
    assert multiplane("key", "get", "urn:qkd:lab:a:app", "b").exit_code == 0


def test_number_and_size_are_passed_on_and_json_tells_the_same(client: Any, multiplane: Run) -> None:
    result = multiplane("key", "get", "a", "b", "--number", "2", "--size", "512", "--json")
    assert json.loads(result.stdout) == [
        {"key_id": f"id-{place}", "size_bit": 512, "identical": True} for place in range(2)
    ]


def test_the_key_itself_is_printed_only_with_show(client: Any, multiplane: Run) -> None:
    secret = base64.b64encode(b"A" * 32).decode()
    for arguments in ((), ("--json",)):
        assert secret not in multiplane("key", "get", "a", "b", *arguments).output
        assert secret in multiplane("key", "get", "a", "b", "--show", *arguments).stdout


def test_different_keys_are_told_and_fail(client: Any, multiplane: Run) -> None:
    client.harm = staticmethod(lambda key: b"x" + key[1:])
    result = multiplane("key", "get", "a", "b")
    assert result.exit_code == 1
    assert "DIFFERENT" in result.stdout


def test_an_unknown_application_is_bad_input(client: Any, multiplane: Run) -> None:
    result = multiplane("key", "get", "a", "c")
    assert result.exit_code == 2
    assert result.stderr == "multiplane: application 'c': expected one of a-app, b-app\n"


def test_a_network_that_refuses_is_one_line(client: Any, multiplane: Run) -> None:
    result = multiplane("key", "get", "a", "b", "--number", "9")
    assert result.exit_code == 1
    assert result.stderr == "multiplane: stock: 8 keys, asked for more\n"


def test_without_ready_json_it_says_how_to_start(multiplane: Run, tmp_path: Path) -> None:
    result = multiplane("key", "get", "a", "b", "--state", str(tmp_path))
    assert result.exit_code == 1
    assert "multiplane up --state" in result.stderr
