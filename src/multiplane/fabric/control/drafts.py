"""What a search comes to: the best way above the floor, or above the best floor that can be kept. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.chains import Least
from multiplane.fabric.control.hops import rested
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.searching import Search, Woven
from multiplane.fabric.control.views import PairView

KEPT_DRAFTS: Final = 256
SPARE: Final = 1.25
"""Links that shall make states at a rate can make so much more: chance has its ups and downs."""
_HALVINGS: Final = 12
_LOWER: Final = 1e-3
_LOWERED: Final = 8
"""Each twice as far down as the last: of many parties only a bound is known of what can be had."""


class Draft(NamedTuple):
    """What a search has come to; an order of another name or with another deadline comes to the same.

    Args:
        woven: the best way that keeps `floor_fidelity`: that of the order, or else the best that can be kept.
        reached: whether any links with free memories lead there; full: whether only memories are missing.
        looked: free memories of the links that had a say.
    """

    floor_fidelity: float
    woven: Woven | None
    best_fidelity: float
    lifetime_s: float
    reached: bool
    full: bool
    looked: dict[str, int]

    def good_for(self, order: UnitOrder) -> bool:
        """Whether there is a way above the floor."""
        return self.woven is not None and self.floor_fidelity >= order.min_fidelity

    def holds(self, view: PairView) -> bool:
        """Whether a search would come to the same again: what it takes is free, nothing else is more free."""
        taken = self.woven.takes() if self.woven else self.looked
        return all(
            (now := min(view.links[link].free)) == free or (now < free and link not in taken)
            for link, free in self.looked.items()
        )


def draft(order: UnitOrder, view: PairView, policies: Policies) -> Draft:
    """Look for the best way above the floor, or for the best floor that there is.

    Raises: Faulty(`plugin.failed`): a policy of one's own; ValueError as `planning.plan`.
    """
    return next(found for found in drafting(order, view, policies) if found is not None)


def drafting(order: UnitOrder, view: PairView, policies: Policies) -> Iterator[Draft | None]:
    """The same in steps, None after each but the last. The view must stay as it is."""
    first = search = Search(order, view, policies)
    yield from search.steps()
    woven, floor_fidelity = search.best, order.min_fidelity
    if woven is not None and order.rate_per_s:
        woven = _thrifty(woven, order, view, policies)
    looked, best_fidelity = first.looked, first.best_fidelity
    for step in range(_LOWERED) if woven is None and first.reached else ():
        floor_fidelity = best_fidelity * (1.0 - _LOWER * 2.0**step)
        search = first.lower(floor_fidelity)
        yield from search.steps()
        woven, looked = search.best, looked | search.looked
        if woven is not None:
            break
        best_fidelity = min(floor_fidelity, search.best_fidelity)
    yield Draft(
        floor_fidelity=floor_fidelity,
        woven=woven,
        best_fidelity=best_fidelity,
        lifetime_s=_lifetime_s(woven, floor_fidelity) if woven else 0.0,
        reached=first.reached,
        full=first.full,
        looked=looked,
    )


def _thrifty(woven: Woven, order: UnitOrder, view: PairView, policies: Policies) -> Woven:
    """A way with few memories of each link that has some rate to spare, or else the given one."""
    wanted_per_s = SPARE * order.rate_per_s / (1.0 - order.sacrifice_share)
    most = 1
    while most < max(max(one.shape.windows) for one in woven.chains):
        search = Search(order, view, policies, most_memories=most)
        for _ in search.steps():
            pass
        found = search.best
        if found is not None and found.rate_per_s >= wanted_per_s:
            return found
        most *= 2
    return woven


def _lifetime_s(woven: Woven, floor_fidelity: float) -> float:
    """How long a state in the mean stays above the floor, or above 1/2 without one; infinite = for ever."""
    decays = [(one.gives.flip_per_s, one.gives.relax_per_s) for one in woven.chains]
    fastest = max(max(both) for both in decays)
    if fastest <= 0.0:
        return math.inf

    def after(held_s: float) -> float:
        held = zip(woven.pairs, decays, strict=True)
        return woven.layout.fidelity(
            [rested(pair, flip * held_s, relax * held_s) for pair, (flip, relax) in held]
        )

    worth = Least(woven.pairs[0], *decays[0]).fidelity if woven.layout.kind == "bell" else after
    low_s, high_s = 0.0, 4.0 / fastest
    for _ in range(_HALVINGS):
        middle_s = (low_s + high_s) / 2.0
        stays = worth(middle_s) >= (floor_fidelity or 0.5)
        low_s, high_s = (middle_s, high_s) if stays else (low_s, middle_s)
    return low_s


def wish_of(order: UnitOrder) -> UnitOrder:
    """What is wished for, whatever the order is called and whenever it is due."""
    return msgspec.structs.replace(order, order_id="", deadline_ns=0)


class Drafts:
    """What searches came to lately, by what was wished for: asked again, nobody searches again."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._known: OrderedDict[tuple[UnitOrder, int], Draft] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def draft(self, order: UnitOrder, view: PairView) -> Draft:
        """The best way in a view. Deadlines and names of orders do not change it."""
        return next(found for found in self.drafting(order, view) if found is not None)

    def drafting(self, order: UnitOrder, view: PairView) -> Iterator[Draft | None]:
        """The same in steps, None after each but the last. The view must stay as it is."""
        wish = wish_of(order), view.revision
        known = self._known.pop(wish, None)
        if known is not None and known.holds(view):
            self._keep(wish, known)
            yield known
            return
        for found in drafting(order, view, self._policies):
            if found is not None:
                self._keep(wish, found)
            yield found

    def _keep(self, wish: tuple[UnitOrder, int], known: Draft) -> None:
        self._known[wish] = known
        if len(self._known) > KEPT_DRAFTS:
            self._known.popitem(last=False)
