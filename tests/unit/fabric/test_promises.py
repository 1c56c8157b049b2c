"""What is said to be attainable is what an order gets, and nobody is turned away for a promise."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from multiplane.api.fabric_units import Attainable, UnitOrder
from multiplane.fabric.control import drafts, promises
from multiplane.fabric.control.choosing import Choosing
from multiplane.fabric.control.links_now import LinksNow
from multiplane.fabric.control.planning import Plan, Unattainable, again, plan
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.promises import PROMISE_NS
from multiplane.fabric.control.windows import needs

from .planning_cases import answered, order, sheet, view

MEMORIES = 8


class Controller:
    """Two links in a row, and what the controller does with them."""

    def __init__(self) -> None:
        self.links = LinksNow()
        for a, b in pairwise("abc"):
            self.links.put(sheet(a, b, memories=(MEMORIES, MEMORIES)), up=True)
        self.choosing = Choosing(self.links, Policies())

    def asks(self, wanted: UnitOrder, now_ns: int = 0) -> Attainable:
        """The answer to a wish."""
        return answered(self.choosing, wanted, now_ns)[1]

    def places(self, name: str, wanted: UnitOrder, now_ns: int = 0) -> Plan:
        """The plan that carries an order, with its memories set aside."""
        found = self.choosing.fitting(msgspec.structs.replace(wanted, order_id=name), now_ns)
        assert isinstance(found, Plan)
        self.links.reserve(name, found.job)
        return found

    def free(self) -> list[int]:
        """Memories that are free for whoever asks next, of each link in order."""
        return [min(fact.free) for _, fact in sorted(self.links.likely.links.items())]


def wish(number: int, *sites: str) -> UnitOrder:
    """Wishes of different numbers are different."""
    return order(*sites, hold_ns=number)


def test_orders_get_what_was_said_whichever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = wish(1, "a", "c"), wish(2, "a", "b"), wish(3, "a", "c")
    net = Controller()
    said = {each.hold_ns: net.asks(each) for each in (one, two, three)}
    assert len({answer.rate_per_s for answer in said.values()}) == 3, "each is told what the others leave"
    monkeypatch.setattr(drafts, "Search", None)
    for each in (three, one, two):
        found = net.places(f"o{each.hold_ns}", each)
        answer = said[each.hold_ns]
        assert (found.rate_per_s, found.fidelity) == (answer.rate_per_s, answer.fidelity)
        assert (found.expected_ns, found.lifetime_ns) == (answer.expected_ns, answer.lifetime_ns)
        assert found.job.order_id == f"o{each.hold_ns}"
    assert [net.links.windows.taken(link) for link in ("a--b", "b--c")] == [7, 6]


@pytest.mark.parametrize(
    "wanted",
    [
        order("a", "c"),
        order("a", "b", "c", min_fidelity=0.6),
        order("a", "b", "c", kind="graph", edges=((0, 1), (1, 2))),
        order("a", "c", size=0, rate_per_s=5.0),
    ],
    ids=lambda wanted: wanted.kind,
)
def test_a_plan_under_another_name_is_the_plan_of_that_order(wanted: UnitOrder) -> None:
    named = msgspec.structs.replace(wanted, order_id="o", deadline_ns=10**12)
    line = view(*(sheet(a, b) for a, b in pairwise("abc")))
    first = plan(wanted, line)
    assert isinstance(first, Plan)
    assert again(first, named, 1) == plan(named, line, now_ns=1)
    assert isinstance(again(first, named, 10**12 - 1), Unattainable), "too late by then"


def test_a_promise_reserves_nothing() -> None:
    net = Controller()
    assert net.asks(wish(1, "a", "b")).possible
    assert net.free() == [4, 8]
    whole = net.choosing.now(wish(2, "a", "b"))
    assert isinstance(whole, Plan)
    net.links.reserve("other", whole.job)
    assert needs(whole.job) == {"a--b": 4}, "half of what is free, as if nothing were promised"
    net.links.reserve("another", whole.job)
    with_less = net.choosing.fitting(wish(1, "a", "b"), 0)
    assert with_less is None, "what was promised went to others"


def test_who_finds_all_promised_is_not_turned_away() -> None:
    net = Controller()
    rates = [net.asks(wish(number, "a", "b")).rate_per_s for number in range(7)]
    assert net.free()[0] == 0
    assert rates[0] == rates[-1] > rates[3], "the fourth is told what is left, the last what is free"
    assert [needs(net.places(f"o{number}", wish(number, "a", "b")).job)["a--b"] for number in range(4)] == [
        4,
        2,
        1,
        1,
    ]


def test_an_order_that_nothing_was_promised_to_leaves_others_what_they_were_promised() -> None:
    net = Controller()
    said = net.asks(wish(1, "a", "b"))
    assert needs(net.places("stranger", wish(2, "a", "b")).job) == {"a--b": 2}
    assert net.places("mine", wish(1, "a", "b")).rate_per_s == said.rate_per_s


def test_who_asks_again_holds_one_promise() -> None:
    net = Controller()
    first = net.asks(wish(1, "a", "c"))
    assert all(net.asks(wish(1, "a", "c")) == first for _ in range(5))
    assert net.free() == [4, 4]


def test_a_promise_lapses() -> None:
    net = Controller()
    net.asks(wish(1, "a", "b"), now_ns=0)
    net.asks(wish(2, "b", "c"), now_ns=PROMISE_NS - 1)
    assert net.free() == [4, 4]
    net.asks(wish(3, "b", "c"), now_ns=PROMISE_NS)
    assert net.free() == [8, 2]
    assert needs(net.places("late", wish(2, "b", "c"), 2 * PROMISE_NS).job) == {"b--c": 4}
    assert net.free() == [8, 4]


def test_a_promise_ends_when_a_link_is_not_what_it_was() -> None:
    net = Controller()
    said = net.asks(wish(1, "a", "c"))
    slow = msgspec.structs.replace(sheet("b", "c", memories=(MEMORIES, MEMORIES)), success_probability=1e-4)
    net.links.put(slow, up=True)
    assert net.places("o", wish(1, "a", "c")).rate_per_s < said.rate_per_s / 10.0
    assert net.free() == [4, 4]


def test_promises_are_kept_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "KEPT_PROMISES", 2)
    net = Controller()
    for number in range(3):
        net.asks(wish(number, "a", "b"))
    assert net.free() == [MEMORIES - 2 - 1, MEMORIES]
