"""The links of pairs as planning sees them: what is up, what is free, what each is thought to make. Pure.

The views are kept, not made: an order that comes or goes changes the few links that it uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from multiplane.api.instructions import LinkSheet
from multiplane.fabric.control.views import LinkFact, PairView
from multiplane.fabric.control.windows import Windows
from multiplane.fabric.planes import Job


class LinksNow:
    """`now`: what is free now; `likely`: and promised to nobody; `whole`: as if nothing were reserved."""

    def __init__(self) -> None:
        self.windows = Windows()
        self._now: dict[str, LinkFact] = {}
        self._likely: dict[str, LinkFact] = {}
        self._whole: dict[str, LinkFact] = {}
        self._held: dict[str, tuple[int, int]] = {}
        self._promised = Counter[str]()
        self._asides = 0
        self._renew(0)

    def _renew(self, revision: int) -> None:
        self.now = PairView(links=self._now, revision=revision)
        self.likely = PairView(links=self._likely, revision=revision)
        self.whole = PairView(links=self._whole, revision=revision)

    def put(self, sheet: LinkSheet, *, up: bool) -> bool:
        """A link as it is now; whether that is news."""
        fact = LinkFact(sheet=sheet, free=sheet.memories, up=up)
        if self._whole.get(sheet.link) == fact:
            return False
        self._whole[sheet.link] = fact
        self._free(sheet.link)
        self._renew(self.now.revision + 1)
        return True

    def held(self, link: str, end: int, memories: int) -> bool:
        """Memories at one end that are in use though nothing reserves them; whether that is news."""
        known = self._held.get(link, (0, 0))
        told = (memories, known[1]) if end == 0 else (known[0], memories)
        self._held[link] = told
        if told != known:
            self._free(link)
        return told != known

    def up(self, link: str) -> bool:
        """Whether it makes pairs."""
        fact = self._whole.get(link)
        return fact is not None and fact.up

    def reserve(self, order_id: str, job: Job) -> None:
        """Set aside what a job needs, in the place of what the order had."""
        for link in self.windows.reserve(order_id, job):
            self._free(link)

    def release(self, order_id: str) -> set[str]:
        """Free what an order had; the links where it had something."""
        links = self.windows.release(order_id)
        for link in links:
            self._free(link)
        return links

    def promise(self, takes: Mapping[str, int]) -> None:
        """Somebody was told that these memories are likely his."""
        for link, count in takes.items():
            self._promised[link] += count
            self._free(link)

    def take_back(self, takes: Mapping[str, int]) -> None:
        """The end of a promise."""
        for link, count in takes.items():
            self._promised[link] -= count
            self._free(link)

    def room(self, needed: dict[str, int]) -> bool:
        """Whether every link of `needed` is up and has a memory free at each end."""
        return all((fact := self._now.get(link)) and fact.up and min(fact.free) > 0 for link in needed)

    def without(self, links: set[str]) -> PairView:
        """The view now, with some links taken out."""
        kept = {link: fact for link, fact in self._now.items() if link not in links}
        self._asides -= 1  # never the revision of another view
        return PairView(links=kept, revision=self._asides)

    def _free(self, link: str) -> None:
        whole = self._whole.get(link)
        if whole is not None:
            taken, held = self.windows.taken(link), self._held.get(link, (0, 0))
            self._now[link] = self._likely[link] = now = _less(whole, taken + held[0], taken + held[1])
            promised = self._promised[link]
            if promised:
                self._likely[link] = _less(now, promised, promised)


def _less(fact: LinkFact, near: int, far: int) -> LinkFact:
    """A link with so many memories less at each end."""
    free = max(0, fact.free[0] - near), max(0, fact.free[1] - far)
    return LinkFact(sheet=fact.sheet, free=free, up=fact.up)
