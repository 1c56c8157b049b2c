"""Links that are not what they were calibrated to be, as their sacrificed pairs tell. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from multiplane.api.instructions import LinkSheet
from multiplane.fabric.control import estimation
from multiplane.fabric.control.estimation import ALARM, NONE, Counts, Estimate, Window
from multiplane.physics.bell import Weights

STEP: Final = 0.01
"""Less than that in each weight is no reason to plan anew."""


class Drift:
    """Estimation windows of links, whoever counted.

    A link is followed from when its sheet does not explain its errors, until it measures as well again or has
    another sheet: it was calibrated.
    """

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._last: dict[tuple[str, str], Counts] = {}
        self._sheets: dict[str, LinkSheet] = {}
        self._followed: dict[str, Weights] = {}

    def calibrated(self, sheet: LinkSheet) -> None:
        """A link has this sheet; another one than before makes what was measured void."""
        if self._sheets.get(sheet.link) != sheet:
            self._sheets[sheet.link] = sheet
            self._windows[sheet.link] = Window()
            self._followed.pop(sheet.link, None)

    def note(self, source: str, link: str, counts: Counts) -> bool:
        """States of a link that were measured, in all since `source` began to count; whether any are new."""
        sheet = self._sheets.get(link)
        last = self._last.get((source, link), NONE)
        self._last[source, link] = counts
        if sheet is None or not self._windows[link].add(estimation.since(last, counts)):
            return False
        if not all(checked for checked, _ in self._windows[link].counts):
            return True
        estimate = self.estimate(link)
        told = self._followed.get(link)
        window = self._windows[link].counts
        halves = estimation.error_weights("bell", 2)
        surprise = estimation.surprise(window, sheet.weights[0], halves, sheet.flip_probability)
        if surprise > ALARM or told is not None:
            weights = estimation.bell_weights(window, sheet.flip_probability)
            if told is None or max(abs(new - old) for new, old in zip(weights, told, strict=True)) > STEP:
                self._followed[link] = weights
        if estimate.fidelity + estimate.error / 2.0 >= sheet.weights[0]:
            self._followed.pop(link, None)
        return True

    def forget(self, source: str) -> None:
        """It counts no more."""
        for key in [key for key in self._last if key[0] == source]:
            del self._last[key]

    def estimate(self, link: str) -> Estimate:
        """Fidelity of a link's fresh pairs, of all that was measured lately."""
        sheet = self._sheets[link]
        return estimation.bell(self._windows[link].counts, sheet.flip_probability)

    def followed(self) -> tuple[str, ...]:
        """Links that are worse than their sheets say."""
        return tuple(sorted(self._followed))

    def sheet(self, sheet: LinkSheet) -> LinkSheet:
        """The sheet to plan with."""
        weights = self._followed.get(sheet.link)
        return sheet if weights is None else msgspec.structs.replace(sheet, weights=weights)
