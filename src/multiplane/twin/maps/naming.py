"""Labels for sites and relays: unique, short enough, and what had to change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from multiplane.kernel.names import slug
from multiplane.twin.maps.value import Place, Remark, plain

MAX_SITE_LABEL: Final = 48
_MAX_RELAY_END: Final = 24
_MAX_TITLE: Final = 80


class Labels:
    """Gives out labels; of several that want the same, the later ones get `-2`, `-3` and so on."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}
        self.remarks: list[Remark] = []

    def sites(self, places: Sequence[Place]) -> dict[str, tuple[str, str]]:
        """(label, title) of each place by its key; the label is the slug of the title."""
        return {place.key: self._site(place, number) for number, place in enumerate(places, start=1)}

    def _site(self, place: Place, number: int) -> tuple[str, str]:
        title = " ".join("".join(c if c.isprintable() else " " for c in place.title).split())
        try:
            wanted = slug(title)
        except ValueError:
            wanted = f"site-{number}"
        cut = wanted[:MAX_SITE_LABEL].strip("-")
        label = self._unique(cut)
        if label != wanted:
            why = "another site has its label" if label != cut else f"over {MAX_SITE_LABEL} characters"
            self._renamed(plain(place.title), label, why)
        elif not _is_slug_of(label, title):
            self._renamed(plain(place.title), label, "no ASCII letter or digit in its name")
        as_written = _is_slug_of(label, title) and len(title) <= _MAX_TITLE
        return label, title if as_written else label

    def relays(self, a: str, b: str, count: int) -> list[str]:
        """Labels `<a>-<b>-r1`, ... of the relays between two labels in alphabetical order."""
        first, second = (end[:_MAX_RELAY_END].strip("-") for end in sorted((a, b)))
        wanted = stem = f"{first}-{second}"
        while True:
            labels = [f"{stem}-r{number}" for number in range(1, count + 1)]
            if not self._taken.intersection(labels):
                break
            self._next[wanted] = self._next.get(wanted, 1) + 1
            stem = f"{wanted}-{self._next[wanted]}"
        if stem != wanted:
            self._renamed(f"relays between {a} and {b}", f"{labels[0]}...", "another site has such a label")
        self._taken.update(labels)
        return labels

    def _unique(self, wanted: str) -> str:
        label = wanted
        while label in self._taken:
            self._next[wanted] = self._next.get(wanted, 1) + 1
            label = f"{wanted}-{self._next[wanted]}"
        self._taken.add(label)
        return label

    def _renamed(self, subject: str, label: str, why: str) -> None:
        self.remarks.append(Remark(rule="renamed", subject=subject, done=f"is called {label}: {why}"))


def _is_slug_of(label: str, title: str) -> bool:
    try:
        return slug(title) == label
    except ValueError:
        return False
