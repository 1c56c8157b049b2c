"""What a repeater tells of a link of pairs: the plane of telemetry hears of it when it changes."""

from __future__ import annotations

from collections.abc import Sequence

from multiplane.api.instructions import LinkSheet
from multiplane.fabric.planes import PairReport
from multiplane.fabric.resource.job_part import ZEROES, JobPart, added
from multiplane.kernel.quantity import NS_PER_S


class Figures:
    """Counts of one end of a link. Args: now_ns: since when it is counted."""

    def __init__(self, now_ns: int) -> None:
        self.pairs = 0
        self._errors = ZEROES
        self._told_pairs, self._told_ns = 0, now_ns

    def keep(self, part: JobPart, link: str) -> None:
        """A part is over, what its sacrificed pairs have shown of this link stays."""
        self._errors = added(self._errors, part.link_errors(link))

    def report(
        self, sheet: LinkSheet, site: str, *, parts: Sequence[JobPart], free: int, now_ns: int
    ) -> PairReport:
        """The link as it is now; the rate is that since the last report."""
        made, span_ns = self.pairs - self._told_pairs, now_ns - self._told_ns
        self._told_pairs, self._told_ns = self.pairs, now_ns
        errors = self._errors
        for part in parts:
            errors = added(errors, part.link_errors(sheet.link))
        reason = next((said for part in parts if (said := part.trouble(sheet.link))), "")
        return PairReport(
            sheet=sheet,
            site=site,
            up=not reason,
            free=free,
            pairs=self.pairs,
            rate_per_s=made * NS_PER_S / span_ns if span_ns else 0.0,
            errors=errors,
            at_ns=now_ns,
            reason=reason,
        )
