"""Links that are not what they were calibrated to be, as their sacrificed pairs tell. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from multiplane.api.instructions import LinkSheet
from multiplane.fabric.control import estimation
from multiplane.fabric.control.estimation import Counts, Estimate, Window
from multiplane.physics.bell import Weights

STEP: Final = 0.01
"""Less than that in each weight is no reason to plan anew."""


class Drift:
    """Estimation windows of links.

    A link is followed from when its upper bound falls below its sheet, until it measures as well again or its
    counters begin anew: it was calibrated.
    """

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], Window] = {}
        self._followed: set[str] = set()
        self._told: dict[str, Weights] = {}

    def note(self, source: str, sheet: LinkSheet, counts: Counts) -> bool:
        """Counters of a link that only rise, as `source` has them; whether it is thought of anew."""
        window = self._windows.setdefault((sheet.link, source), Window())
        before = window.restarts
        if not window.note(counts):
            return False
        if window.restarts > before:
            self._forget(sheet.link)
        estimate = self.estimate(sheet)
        followed = sheet.link in self._followed
        if estimate.checked and estimate.high < sheet.weights[0]:
            self._followed.add(sheet.link)
        elif estimate.fidelity + estimate.error / 2.0 >= sheet.weights[0]:
            self._forget(sheet.link)
        return followed or sheet.link in self._followed

    def forget(self, source: str) -> None:
        """What `source` counted does not go on."""
        for key in [key for key in self._windows if key[1] == source]:
            del self._windows[key]

    def estimate(self, sheet: LinkSheet) -> Estimate:
        """Fidelity of a link's fresh pairs, of all that was counted lately."""
        return estimation.bell(self._counts(sheet.link), sheet.flip_probability)

    def followed(self, link: str) -> bool:
        """Whether a link is worse than its sheet says."""
        return link in self._followed

    def sheet(self, sheet: LinkSheet) -> LinkSheet:
        """The sheet to plan with."""
        if sheet.link not in self._followed:
            return sheet
        counts = self._counts(sheet.link)
        if not all(checked for checked, _ in counts):
            return sheet
        weights = estimation.bell_weights(counts, sheet.flip_probability)
        told = self._told.get(sheet.link)
        if told is None or max(abs(new - old) for new, old in zip(weights, told, strict=True)) > STEP:
            told = self._told[sheet.link] = weights
        return msgspec.structs.replace(sheet, weights=told)

    def _forget(self, link: str) -> None:
        self._followed.discard(link)
        self._told.pop(link, None)

    def _counts(self, link: str) -> Counts:
        return estimation.together(
            window.counts for (name, _), window in self._windows.items() if name == link
        )
