"""The pure planes: book of units, routes and admission, register; and the desk that asks for units."""

from __future__ import annotations

import pytest
from tests.unit.service import kit

from multiplane.api.north import KeyRequest
from multiplane.api.operations import ProcessFigures
from multiplane.api.operator import KmeReport, StockFlight, UnitRecord
from multiplane.api.service_connectivity import ClassicalPath
from multiplane.api.service_fabric import OrderPhase, OrderState
from multiplane.assembly.desk import OperatorDesk
from multiplane.assembly.study import Study, run_study
from multiplane.kernel.errors import Faulty, Refused
from multiplane.kernel.nouns import Caller, ends
from multiplane.kernel.ports import Delete, Put
from multiplane.kernel.unit import Phase, endpoint_urn, lifecycle_urn
from multiplane.security.policy import PairingPolicy, Rule
from multiplane.service import control
from multiplane.service.management import RegisterBook
from multiplane.service.planes import Application, KeyRules, KmeControl, KmeEntry, PairPhase, Register
from multiplane.service.resource import units
from multiplane.service.resource.units import Unit, UnitBook
from multiplane.twin.scenario import load_shipped

MASTER, SLAVE = "urn:qkd:lab:a:one", "urn:qkd:lab:b:two"


def unit(slot: int, valid_until_s: int = 1000, size_bit: int = 256) -> Unit:
    """A unit as the near side proposes it."""
    endpoint = endpoint_urn(MASTER, f"{slot:024x}")
    return units.proposed(slot, endpoint, SLAVE, lifecycle_urn(size_bit, valid_until_s))


def committed(one: Unit) -> Unit:
    """The same with both nonces."""
    return units.advanced(one, endpoint_urn(SLAVE, "ff" * 12), Phase.COMMITTED)


def entry(site: str, *names: str, urn: str = "") -> KmeEntry:
    """A key manager with applications."""
    applications = tuple(Application(urn=f"urn:qkd:lab:{site}:{name}", alias=name) for name in names)
    return KmeEntry(urn=urn or f"urn:qkd:lab:{site}:kme", site=site, applications=applications)


# --- units ------------------------------------------------------------------------------------


def test_a_book_comes_back_as_it_was_written() -> None:
    book = UnitBook(units.NEAR_KIND, "b", 3)
    rows = {}
    for one in (unit(0), committed(unit(1, 2000)), committed(unit(2, 1500, 512))):
        for change in book.put(one):
            assert isinstance(change, Put)
            rows[change.key] = change.value
    rows["b/00000002/00001"] = rows["b/00000003/00001"]  # of an older epoch
    rows["bb/00000003/00009"] = rows["b/00000003/00001"]  # of another peer
    again = UnitBook.load(units.NEAR_KIND, "b", 3, sorted(rows.items()))
    assert again.all() == book.all()
    newest = again.current(MASTER, SLAVE, 256)
    assert newest is not None
    assert newest.slot == 1
    assert again.current(MASTER, SLAVE, 128) is None


def test_forgetting_and_renewing_name_the_rows_to_delete() -> None:
    book = UnitBook(units.FAR_KIND, "a", 1)
    for one in (unit(0, 10), unit(1, 20), unit(2, 30)):
        book.put(one)
    assert book.forget(20) == [Delete(units.FAR_KIND, "a/00000001/00000")]
    assert book.slot(0) is None
    assert book.renew(2) == [Delete(units.FAR_KIND, f"a/00000001/0000{slot}") for slot in (1, 2)]
    assert book.all() == []
    (row,) = book.put(unit(1))
    assert row.key == "a/00000002/00001"


def test_a_unit_is_found_under_its_digest_and_its_ends_and_nothing_else() -> None:
    one = committed(unit(4))
    for name in (one.digest, one.master, one.slave, MASTER, SLAVE):
        assert units.named(one, name)
    for name in ("", one.digest[:-1], "urn:qkd:lab:b", one.lifecycle):
        assert not units.named(one, name)
    assert len(units.record("b", one).urns) == 3
    assert not units.named(unit(4), "")  # a proposal has no digest yet


# --- routes and admission ---------------------------------------------------------------------


def directory(*entries: KmeEntry) -> control.Directory:
    """A directory of these key managers."""
    return control.Directory(Register(version=1, kmes=entries))


def test_the_longest_prefix_that_covers_a_urn_wins() -> None:
    outer = entry("a", "one", urn="urn:qkd:lab:kme")
    inner = entry("a", "two", urn="urn:qkd:lab:a:kme")
    routes = directory(outer, inner)
    assert routes.route("urn:qkd:lab:a:x") is inner
    assert routes.route("urn:qkd:lab:a:x?=nonce=1") is inner
    assert routes.route("urn:qkd:lab:ab:x") is outer
    assert routes.route("urn:qkd:other:a:x") is None
    with pytest.raises(ValueError, match="urn"):
        routes.route("http://lab/a")


def test_applications_are_known_by_urn_and_by_alias_only() -> None:
    routes = directory(entry("a", "one"), entry("b", "two"))
    assert routes.application("two") == routes.application(SLAVE)
    for stranger in ("three", "urn:qkd:lab:b:two?=nonce=1", "", "urn:qkd:lab:b:kme"):
        with pytest.raises(Refused) as error:
            routes.application(stranger)
        assert error.value.code == "north.unknown_application"


@pytest.mark.parametrize(
    ("peer", "number", "size_bit", "code"),
    [
        ("nobody", 1, 0, "north.unknown_application"),
        ("one", 1, 0, "north.not_allowed"),
        ("three", 1, 0, "north.not_allowed"),
        ("two", 0, 0, "key.number"),
        ("two", 129, 0, "key.number"),
        ("two", 1, 56, "key.size"),
        ("two", 1, 8200, "key.size"),
        ("two", 1, -8, "key.size"),
        ("two", 1, 100, "key.size_multiple"),
    ],
)
def test_what_is_not_admitted_says_why(peer: str, number: int, size_bit: int, code: str) -> None:
    routes = directory(entry("a", "one"), entry("b", "two"), entry("c", "three"))
    policy = PairingPolicy(rules=(Rule(master="*", slave="lab:c", allow=False),))
    request = KeyRequest(peer=peer, number=number, size_bit=size_bit)
    with pytest.raises(Refused) as error:
        control.admit(KeyRules(), policy, routes, MASTER, request)
    assert error.value.code == code


def test_an_admitted_request_has_its_defaults_filled_in() -> None:
    routes = directory(entry("a", "one"), entry("b", "two"))
    admitted = control.admit(KeyRules(), PairingPolicy(), routes, MASTER, KeyRequest(peer="two"))
    assert (admitted.target.kme.site, admitted.size_bit, admitted.number) == ("b", 256, 1)


@pytest.mark.parametrize("path", [True, False])
def test_a_pair_is_ready_when_key_and_words_get_through(path: bool) -> None:
    order = OrderState(
        order_id="a--b", phase=OrderPhase.READY, route=("a", "b"), rate_bit_per_s=5.0, expected_ns=0
    )
    state = control.pair_state("b", order, ClassicalPath(ends=ends("a", "b"), delay_ns=7) if path else None)
    assert state.phase is (PairPhase.READY if path else PairPhase.UNREACHABLE)
    assert state.delay_ns == (7 if path else 0)
    assert bool(state.reason) is not path


# --- management -------------------------------------------------------------------------------


def test_the_register_changes_its_version_only_when_it_changes() -> None:
    book = RegisterBook()
    assert book.enter(entry("a", "one"))
    assert not book.enter(entry("a", "one"))
    assert book.register().version == 1
    assert book.enter(entry("a", "one", "more"))
    assert book.enter(entry("b", "two"))
    assert [kme.site for kme in book.register().kmes] == ["a", "b"]
    for name in ("one", "more"):
        with pytest.raises(Refused) as error:
            book.enter(entry("c", name))
        assert error.value.code == "register.conflict"
    assert book.register().version == 3


# --- the operator's desk ----------------------------------------------------------------------


class Gone:
    """A key manager whose process has just died."""

    async def report(self, caller: Caller) -> KmeReport:
        raise Faulty("channel.closed", "gone")

    async def flights(self, caller: Caller) -> tuple[StockFlight, ...]:
        raise Faulty("channel.closed", "gone")

    async def find_unit(self, caller: Caller, name: str) -> tuple[UnitRecord, ...]:
        raise Faulty("channel.closed", "gone")


async def no_figures() -> tuple[ProcessFigures, ...]:
    """A desk that nobody asks for figures."""
    return ()


def test_a_unit_is_found_though_a_key_manager_is_gone() -> None:
    async def workload(study: Study) -> None:
        (key,) = await kit.issue(study, "alice-1", "bob-1")
        kmes: dict[str, KmeControl] = {
            "alice": Gone(),
            "bob": study.sites["bob"].kme,
            "relay": study.sites["relay"].kme,
        }
        desk = OperatorDesk(
            study.centre,
            study.clock,
            lambda: kmes,
            figures=no_figures,
            behind_s=study.timeline.behind_s,
            secret=False,
            stop=lambda: None,
        )
        (record,) = await desk.unit(study.centre.caller, key.key_id)
        assert record.key_state == "waiting"
        assert len((await desk.report(study.centre.caller)).kmes) == 2
        with pytest.raises(Refused):
            await desk.unit(study.centre.caller, "nothing")

    run_study(load_shipped("lab3"), 1, workload)
