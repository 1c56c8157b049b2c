"""The doctor asks the sources of fed links for their status, and takes no key."""

from __future__ import annotations

import asyncio

from tests.support.feeds import Network

from multiplane.assembly.feeds.audit import audit
from multiplane.assembly.feeds.settings import Feed, FeedEnd
from multiplane.assembly.findings import Grade


def feed() -> Feed:
    near, far = (
        FeedEnd(
            link="a--b", site=site, peer=peer, url=f"https://kme-{site}:1", ca="", cert="", key="",
            sae_id=f"app-{site}", peer_sae_id=f"app-{peer}", rate_bit_per_s=1e6,
        )
        for site, peer in ("ab", "ba")
    )  # fmt: skip
    return Feed(link="a--b", at="multiplane.toml:4", ends=(near, far))


def test_sources_that_answer_are_told_with_what_they_give() -> None:
    network = Network()
    found = asyncio.run(audit([feed()], ["a--b"], 1.0, network.connect))
    assert [(one.verdict, one.check) for one in found] == [
        (Grade.OK, "feed: a--b at a"),
        (Grade.OK, "feed: a--b at b"),
    ]
    assert found[0].found == "kme-a:1 gives up to 16 keys of 1024 bit"
    assert [what for _, what, _ in network.requests] == ["status", "status"]


def test_a_source_that_fails_is_told_with_its_end_and_why() -> None:
    network = Network()
    network.script.extend(["", "certificate"])
    found = asyncio.run(audit([feed()], ["a--b"], 1.0, network.connect))
    assert [one.verdict for one in found] == [Grade.OK, Grade.FAIL]
    assert found[1].check == "feed: a--b at b"
    assert found[1].found == "certificate: kme turned ours away"


def test_a_feed_of_no_link_is_told_and_nobody_asked() -> None:
    network = Network()
    (found,) = asyncio.run(audit([feed()], ["a--c"], 1.0, network.connect))
    assert found.verdict is Grade.FAIL
    assert "multiplane.toml:4" in found.found
    assert network.requests == []
