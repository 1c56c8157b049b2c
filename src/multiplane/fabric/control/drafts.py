"""What a search comes to: the best way above the floor, or above the best floor that can be kept. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, NamedTuple

import msgspec

from multiplane.api.fabric_units import UnitOrder
from multiplane.fabric.control.chains import Least
from multiplane.fabric.control.hops import rested
from multiplane.fabric.control.policies import Policies
from multiplane.fabric.control.searching import FEW_SHAPES, PUREST_SHAPES, QUICK_SHAPES, Search
from multiplane.fabric.control.views import PairView
from multiplane.fabric.control.weaving import Woven

KEPT_DRAFTS: Final = 256
SPARE: Final = 1.25
"""Links that shall make states at a rate can make so much more: chance has its ups and downs."""
_HALVINGS: Final = 30
_EXACT: Final = 2.0**-10
_LOWER: Final = 1e-3


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
    """Look for the best way above the floor, or for the best floor that there is, in a view that stays.

    Raises: Faulty(`plugin.failed`): a policy of one's own; ValueError as `planning.plan`.
    """
    search, pure = Search(order, view, policies, most_shapes=FEW_SHAPES), None
    search.look()
    if search.best is None and search.reached:
        pure = _purest(search)
        if not pure.good_for(order):
            return pure
    if search.cut_short:
        search = search.lower(order.min_fidelity)
        search.look()
    return _quickest(search) if search.best is not None or pure is None else pure


def quick(order: UnitOrder, view: PairView, policies: Policies) -> Draft | None:
    """The same where the first few shapes show a way above the floor, or that there is none: else None."""
    search = Search(order, view, policies, most_shapes=QUICK_SHAPES)
    search.look()
    longer = search.cut_short or (search.best is None and search.reached)
    return None if longer else _quickest(search)


def _quickest(search: Search) -> Draft:
    """What a search above the floor of its order has come to."""
    return _drafted(search, search.best, search.order.min_fidelity, search.best_fidelity)


def _purest(search: Search) -> Draft:
    """The best floor that can be kept, or that of the order, after a search above that has found nothing."""
    pure = search.lower(0.0, PUREST_SHAPES)
    woven, best_fidelity = pure.purest()
    search.looked |= pure.looked
    if woven is None:
        return _drafted(search, None, 0.0, search.best_fidelity)
    floor_fidelity = made_fidelity = search.order.min_fidelity
    if best_fidelity < floor_fidelity:  # what is made stays above what is offered for some time
        floor_fidelity, made_fidelity = best_fidelity * (1.0 - _LOWER), best_fidelity * (1.0 - _LOWER / 2.0)
    quicker = search.lower(made_fidelity)
    quicker.look(woven.layout)
    search.looked |= quicker.looked
    return _drafted(search, quicker.best or woven, floor_fidelity, best_fidelity)


def _drafted(search: Search, woven: Woven | None, floor_fidelity: float, best_fidelity: float) -> Draft:
    if woven is not None and search.order.rate_per_s and floor_fidelity >= search.order.min_fidelity:
        woven = _thrifty(woven, search)
    return Draft(
        floor_fidelity=floor_fidelity,
        woven=woven,
        best_fidelity=best_fidelity,
        lifetime_s=_lifetime_s(woven, floor_fidelity) if woven else 0.0,
        reached=search.reached,
        full=search.full,
        looked=search.looked,
    )


def _thrifty(woven: Woven, found_by: Search) -> Woven:
    """A way with few memories of each link that has some rate to spare, or else the given one."""
    order = found_by.order
    wanted_per_s = SPARE * order.rate_per_s / (1.0 - order.sacrifice_share)
    most = 1
    while most < max(max(one.shape.windows) for one in woven.chains):
        search = Search(order, found_by.view, found_by.policies, most_memories=most)
        search.look()
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
        if high_s - low_s <= _EXACT * high_s:
            break
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
        known = self._recalled(order, view) or draft(order, view, self._policies)
        self.learn(order, view, known)
        return known

    def quick(self, order: UnitOrder, view: PairView) -> Draft | None:
        """The same if it is known, or found at once."""
        known = self._recalled(order, view) or quick(order, view, self._policies)
        if known is not None:
            self.learn(order, view, known)
        return known

    def learn(self, order: UnitOrder, view: PairView, found: Draft) -> None:
        """What a search in a view has come to, for the wish and for what is offered in its place."""
        wishes = [order]
        if found.woven is not None and not found.good_for(order):
            wishes.append(msgspec.structs.replace(order, min_fidelity=found.floor_fidelity))
        for wish in wishes:
            self._known[wish_of(wish), view.revision] = found
        while len(self._known) > KEPT_DRAFTS:
            self._known.popitem(last=False)

    def _recalled(self, order: UnitOrder, view: PairView) -> Draft | None:
        """What a search has come to, if it would come to the same again."""
        known = self._known.pop((wish_of(order), view.revision), None)
        return known if known is not None and known.holds(view) else None
