"""A network made of memory: what the commands would reach through the control socket and over TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from tests.support.quantum import SECOND_PS, Heap
from typer.testing import CliRunner, Result

from multiplane.api.device import LinkState
from multiplane.api.instructions import CoreInstruction, ReportListener
from multiplane.api.operator import (
    Condition,
    DoorMessage,
    KmeReport,
    LinkReport,
    NetworkMoment,
    NetworkReport,
    PoolLedger,
    UnitRecord,
)
from multiplane.api.pace import PaceReport
from multiplane.api.scenario import WorldLink
from multiplane.assembly.control import Control
from multiplane.assembly.topics import Topics
from multiplane.cli import live, network
from multiplane.cli.main import app
from multiplane.kernel.errors import Refused
from multiplane.kernel.nouns import Caller, Ends, ends
from multiplane.runtime.logs import be_quiet
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.scenario import load_shipped

KEY_ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
URNS = ("urn:qkd:lab:a:app?=nonce=1", "urn:qkd:lab:b:app?=nonce=2", "urn:qkd:lab:lifecycle:key?=size=256")


def ledger(owner: str, peer: str, side: str) -> PoolLedger:
    """A ledger that closes."""
    return PoolLedger(
        owner=owner, peer=peer, side=side, epoch=1, made_bit=10_000, stock_bit=9_000, delivered_bit=512,
        burnt_bit=488, expired_bit=0, phase="open",
    )  # fmt: skip


def report() -> NetworkReport:
    """Two sites and the link between them."""
    kmes = tuple(
        KmeReport(
            name=name, urn=f"urn:qkd:lab:{name}:kme", pid=7, serving=True,
            ledgers=(ledger(name, peer, side),), counters={},
        )
        for name, peer, side in (("a", "b", "near"), ("b", "a", "far"))
    )  # fmt: skip
    link = LinkReport(
        a="a", b="b", state="up", rate_bit_per_s=5_570_000.0, qber=0.01, stock_bit=1_250_000, discarded_bit=0,
        length_km=24.2, loss_db=6.0,
    )  # fmt: skip
    return NetworkReport(
        domain="lab",
        scenario="pair",
        at_ns=1,
        rate=1.0,
        secret=True,
        table_version=3,
        kmes=kmes,
        links=(link,),
    )


SCENARIO = """
format = "multiplane-scenario/1"
name = "lab"
domain = "lab"
site = [{name = "a"}, {name = "b"}]
link = [{a = "a", b = "b", length_km = 24.2, loss_db = 6.0, profile = "decoy-bb84-1ghz"}]
"""


class FakeNetwork:
    """Both doors of a running network; remembers what was cut."""

    def __init__(self) -> None:
        self.cuts: set[Ends] = set()
        self.edits: list[tuple[object, ...]] = []
        self.answer = report()
        self.spans = 1

    async def report(self, caller: Caller) -> NetworkReport:
        return self.answer

    async def scenario(self, caller: Caller) -> str:
        return SCENARIO

    async def moment(self, caller: Caller) -> NetworkMoment:
        return NetworkMoment(report=await self.report(caller), scenario=SCENARIO, flights=())

    async def unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        if name not in (KEY_ID, *URNS):
            raise Refused(
                "unit.not_found", f"unit {name!r}: expected a key id, a unit digest or an endpoint URN"
            )
        return tuple(
            UnitRecord(owner=owner, urns=URNS, digest="9f" * 16, phase="committed", key_state=state)
            for owner, state in (("a", "delivered"), ("b", "stock"))
        )

    async def messages(self, caller: Caller, after_seq: int) -> tuple[DoorMessage, ...]:
        return tuple(
            DoorMessage(
                seq=seq, at_ns=seq * 10**9, caller="urn:qkd:lab:a:kme", door="fabric_control", method="place",
                subject="a--b", outcome="ok",
            )
            for seq in range(after_seq + 1, 4)
        )  # fmt: skip

    async def metrics(self, caller: Caller) -> str:
        return "# HELP multiplane_links Links of the network.\n"

    async def health(self, caller: Caller) -> tuple[Condition, ...]:
        return (Condition(what="clock", ok=True),)

    async def readiness(self, caller: Caller) -> tuple[Condition, ...]:
        return (Condition(what="network", ok=True),)

    async def stop(self, caller: Caller) -> None:
        raise AssertionError("no command stops a network")

    async def links(self, caller: Caller) -> tuple[WorldLink, ...]:
        span = ends("a", "b")
        cut = span in self.cuts
        others = tuple(
            WorldLink(
                ends=ends("x", f"y{number}"), length_km=1.0, loss_db=0.2, profile="decoy-bb84-1ghz",
                state=LinkState.UP, cut=False, rate_bit_per_s=5.57e6,
            )
            for number in range(1, self.spans)
        )  # fmt: skip
        return (
            *others,
            WorldLink(
                ends=span, length_km=24.2, loss_db=6.0, profile="decoy-bb84-1ghz",
                state=LinkState.FAULTED if cut else LinkState.UP, cut=cut,
                rate_bit_per_s=0.0 if cut else 5.57e6,
            ),
        )  # fmt: skip

    async def cut(self, caller: Caller, ends: Ends) -> None:
        if ends.sites != ("a", "b"):
            raise Refused("scenario.unknown_link", f"link {'--'.join(ends.sites)}: expected one of a--b")
        self.cuts.add(ends)

    async def restore(self, caller: Caller, ends: Ends) -> None:
        self.cuts.discard(ends)

    async def set_loss(self, caller: Caller, ends: Ends, loss_db: float) -> None:
        self.edits.append(("set_loss", ends.sites, loss_db))

    async def set_error(self, caller: Caller, ends: Ends, flip_probability: float) -> None:
        self.edits.append(("set_error", ends.sites, flip_probability))

    async def fail_device(self, caller: Caller, ends: Ends, site: str) -> None:
        self.edits.append(("fail_device", ends.sites, site))

    async def repair_device(self, caller: Caller, ends: Ends, site: str) -> None:
        self.edits.append(("repair_device", ends.sites, site))

    async def lose_site(self, caller: Caller, site: str) -> None:
        self.edits.append(("lose_site", site))

    async def return_site(self, caller: Caller, site: str) -> None:
        self.edits.append(("return_site", site))


class FakePace:
    """The pace door of a network whose time moves only when it is stepped."""

    def __init__(self) -> None:
        self.now = PaceReport(
            at_ns=1_767_225_600_000_000_001, rate=1.0, factor=1.0, paused=False, policy="warn",
            late_limit_ms=500.0, late_episodes=0, dilated_s=0.0,
        )  # fmt: skip

    def _become(self, **changes: object) -> PaceReport:
        self.now = msgspec.structs.replace(self.now, **changes)
        return self.now

    async def pace(self, caller: Caller) -> PaceReport:
        return self.now

    async def pause(self, caller: Caller) -> PaceReport:
        return self._become(paused=True, factor=0.0)

    async def resume(self, caller: Caller) -> PaceReport:
        return self._become(paused=False, factor=self.now.rate)

    async def step(self, caller: Caller, duration_ns: int) -> PaceReport:
        if not self.now.paused:
            raise Refused("pace.not_paused", "pace: expected a paused network, pause it first")
        return self._become(at_ns=self.now.at_ns + duration_ns)

    async def step_event(self, caller: Caller) -> PaceReport:
        return await self.step(caller, 1)

    async def set_rate(self, caller: Caller, rate: float) -> PaceReport:
        return self._become(rate=rate, factor=rate)


class FakeDesk:
    """The devices of `chain5`, real but for time: half a second passes after each instruction."""

    def __init__(self) -> None:
        self._time = Heap()
        quantum = Quantum(load_shipped("chain5").entanglement, "chain5", self._time, bytes(32), 1)
        self._desk = Topics(quantum, "chain5", self._time.now_ns).desk()

    async def watch(self, caller: Caller, node: str, listener: ReportListener) -> None:
        await self._desk.watch(caller, node, listener)

    async def instruct(self, caller: Caller, node: str, instruction: CoreInstruction) -> None:
        await self._desk.instruct(caller, node, instruction)
        self._time.advance_to(self._time.now_ps() + SECOND_PS // 2)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeNetwork:
    """A network that runs on `tmp_path`, where the commands look for it."""
    fake = FakeNetwork()

    @asynccontextmanager
    async def control(state: Path) -> AsyncIterator[Control]:
        if state != tmp_path:
            raise Refused("control.not_running", f"no network runs on {state}")
        yield Control(fake, fake, FakePace(), FakeDesk(), lambda told: None)

    monkeypatch.setattr(network, "control", control)
    monkeypatch.setattr(live, "control", control)
    monkeypatch.setenv("MULTIPLANE_STATE", str(tmp_path))
    return fake


@pytest.fixture
def ready_file(tmp_path: Path) -> Path:
    """A ready.json of two sites, one application each."""
    path = tmp_path / "ready.json"
    document = {
        "ca": str(tmp_path / "ca.pem"),
        "kmes": {
            name: {"url": f"https://127.0.0.1:900{port}", "kme_id": f"kme-{name}", "pid": 7}
            for port, name in enumerate("ab")
        },
        "saes": {
            f"{name}-app": {
                "kme": name, "cert": f"{name} cert.pem", "key": f"{name}.key",
                "urn": f"urn:qkd:lab:{name}:app",
            }
            for name in "ab"
        },
    }  # fmt: skip
    path.write_bytes(msgspec.json.encode(document))
    return path


@pytest.fixture
def multiplane() -> Callable[..., Result]:
    """Run the command with arguments; output and exit code as a shell would see them."""
    runner = CliRunner()

    def run(*arguments: str) -> Result:
        be_quiet()
        return runner.invoke(app, list(arguments), prog_name="multiplane")

    return run
