"""A mixed network: one link emulated, the other fed by a second network over ETSI GS QKD 014."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tools.network import Failed, Network, Sae, running, until

from multiplane.kernel.errors import Busy
from multiplane.sdk.client import KeyClient, SyncKeyClient

pytestmark = [pytest.mark.scene, pytest.mark.timeout(120)]

FED, NAME = "alice--relay", "alice - relay"
RATE_BIT_PER_S = 2_000_000


def feed_from(source: Network, target: Network) -> None:
    """Have the applications of `source` feed a link of `target`, as its operator would write it."""
    lines = [f'[feed."{FED}"]', f"rate_bit_per_s = {RATE_BIT_PER_S}"]
    for site, application in (("alice", source.sae_at("alice")), ("relay", source.sae_at("bob"))):
        lines += [
            f'[feed."{FED}".{site}]',
            f'url = "{source.url(application.kme)}"',
            f'ca = "{source.ca}"',
            f'cert = "{application.cert}"',
            f'key = "{application.key}"',
            f'sae_id = "{application.name}"',
        ]
    target.state.mkdir(parents=True, exist_ok=True)
    (target.state / "multiplane.toml").write_text("\n".join(lines) + "\n")


def fed_link(network: Network) -> dict[str, Any]:
    """What `multiplane status` says of the fed link."""
    links: list[dict[str, Any]] = network.cli_json("status")["links"]
    return next(link for link in links if f"{link['a']}--{link['b']}" == FED)


def drawn_bit(source: Network) -> list[int]:
    """What each key manager of the source has delivered: to the masters, to the slaves."""
    kmes = source.cli_json("status")["kmes"]
    return [sum(ledger["delivered_bit"] for ledger in kme["ledgers"]) for kme in kmes]


class Book:
    """Every key that was had of the mixed network."""

    def __init__(self, network: Network) -> None:
        self.network, self.keys = network, set[bytes]()

    def _client(self, sae: Sae) -> SyncKeyClient:
        return KeyClient.sync(self.network.url(sae.kme), self.network.ca, sae.cert, sae.key)

    def get(self, number: int, size_bit: int = 256, retry_for_s: float = 30.0) -> None:
        """Fetch keys at one end, collect them at the other."""
        master, slave = self.network.sae_at("alice"), self.network.sae_at("bob")
        with self._client(master) as near, self._client(slave) as far:
            issued = near.enc_keys(slave.name, number, size_bit, retry_for_s=retry_for_s)
            collected = far.dec_keys(master.name, [key.key_id for key in issued])
        assert {key.key_id: key.key for key in issued} == {key.key_id: key.key for key in collected}
        before = len(self.keys)
        self.keys |= {key.key for key in issued}
        assert len(self.keys) == before + number, "a key was issued twice"

    def use_until(self, done: Callable[[], bool]) -> None:
        """Fetch large keys, so that the links must make more, until `done`: every second, 20 at most."""
        for _ in range(20):
            with suppress(Busy):  # nothing was issued
                self.get(100, 4096, retry_for_s=0.0)
            with suppress(Failed):
                until("done", done, 1.0)
                return
        raise Failed(f"20 times a hundred keys did not bring it about: {self.network.printed()[-2000:]}")


def test_a_link_fed_by_another_network_carries_keys_fails_with_it_and_comes_back(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with running("pair", tmp_path / "source") as source:
        layout = ("--spread", "per-node")
        feed_from(source, Network("lab3", tmp_path / "mixed", *layout))
        with running("lab3", tmp_path / "mixed", *layout) as mixed:
            book = Book(mixed)
            book.get(3)
            hosts = [source.url(site).removeprefix("https://") for site in ("alice", "bob")]
            link = fed_link(mixed)
            assert (link["state"], link["source"]) == ("up", " ".join(hosts))
            spans = {tuple(span["ends"]["sites"]): span for span in mixed.cli_json("topology", "show")}
            assert (spans["alice", "relay"]["profile"], spans["alice", "relay"]["state"]) == ("fed", "up")
            assert spans["bob", "relay"]["profile"] == "constant-rate"

            source.kill_all()
            # Whichever end asked last says so first: nobody answers, or a request that was under way broke.
            # The state before is that which was looked at last, and looks are a second apart.
            why = r"(url: \S+ does not answer|answer: none came)"
            gone = rf"{NAME}: \w+ -> faulted: (relay: )?(alice|relay): {why}"
            book.use_until(lambda: re.search(gone, mixed.printed()) is not None)
            then = f"link {NAME}: alice: url: {hosts[0]} does not answer"
            until("the status tells the source", lambda: then in mixed.cli("status").stdout, 20)

            source.start()
            until("the link is up again", lambda: f"{NAME}: faulted -> up" in mixed.printed(), 20)
            book.get(3)
            mixed.check_runs()
        collected, drawn = sorted(drawn_bit(source))
        assert collected > 0
        assert drawn - collected <= RATE_BIT_PER_S, (
            "more than the batch under way at the kill was drawn in vain"
        )
    record_property("saw", f"{len(book.keys)} keys, {drawn} bit drawn from the source")


def test_a_feed_that_cannot_be_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    network = Network("pair", tmp_path)
    network.state.mkdir()
    (network.state / "multiplane.toml").write_text('[feed."alice--bob".alice]\nurl = "http://x"\n')
    done = network.cli("up", "pair", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "multiplane.toml:1: feed.alice--bob.alice.ca: expected a text, got None" in line
