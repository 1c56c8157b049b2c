"""Telemetry plane of the fabric: what the agents last said of their links, as one view."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from multiplane.api.device import LinkState
from multiplane.api.instructions import LinkSheet
from multiplane.fabric.planes import LinkReport, PairReport, SiteBeat
from multiplane.kernel.quantity import NS_PER_S

FRESH_NS: Final = 25 * NS_PER_S
"""Two heartbeats of a site may be lost: what happens to a link is told at once."""


class LinkView:
    """The latest report of each end of each link."""

    def __init__(self) -> None:
        self._reports: dict[str, dict[str, LinkReport]] = {}
        self._beats: dict[str, SiteBeat] = {}

    def note(self, report: LinkReport) -> bool:
        """Take a report in.

        False when it is older than the one held, not from an end of its link, or its rate is no rate.
        """
        ends = self._reports.setdefault(report.link, {})
        known = ends.get(report.site)
        sound = report.site in report.link.split("--") and 0.0 <= report.rate_bit_per_s < math.inf
        if not sound or (known is not None and report.at_ns < known.at_ns):
            return False
        ends[report.site] = msgspec.structs.replace(  # what was decoded brings new copies of all names
            report,
            link=sys.intern(report.link),
            site=sys.intern(report.site),
            path_id=sys.intern(report.path_id),
            state=sys.intern(report.state),
        )
        return True

    def hear(self, beat: SiteBeat) -> None:
        """A site lives: what it last told of its links holds still, as far as it came here."""
        known = self._beats.get(beat.site)
        if known is None or beat.at_ns >= known.at_ns:
            told_ns = {sys.intern(link): at_ns for link, at_ns in beat.told_ns.items()}
            self._beats[beat.site] = msgspec.structs.replace(beat, told_ns=told_ns)

    def forget_site(self, site: str) -> None:
        """A site began anew: what it said before means nothing now."""
        for ends in self._reports.values():
            ends.pop(site, None)
        self._beats.pop(site, None)

    def links(self) -> Collection[str]:
        """All links that an end has told of."""
        return self._reports.keys()

    def reports(self, link: str) -> tuple[LinkReport, ...]:
        """The latest report of each end, in order of site."""
        ends = self._reports.get(link, {})
        return tuple(ends[site] for site in sorted(ends))

    def rate_bit_per_s(self, link: str, path_id: str, now_ns: int) -> float:
        """Rate of a link; 0 unless both ends say up, on this path, in one epoch, within the last 25 s."""
        reports = self._reports.get(link)
        if reports is None or len(reports) != 2:
            return 0.0
        a, b = reports.values()
        if a.epoch != b.epoch or not (self._up(a, path_id, now_ns) and self._up(b, path_id, now_ns)):
            return 0.0
        return min(a.rate_bit_per_s, b.rate_bit_per_s)

    def faulted(self, link: str, path_id: str) -> bool:
        """Whether an end last said that no key can be made on this path."""
        reports = self._reports.get(link, {}).values()
        return any(one.path_id == path_id and one.state == LinkState.FAULTED.value for one in reports)

    def _up(self, report: LinkReport, path_id: str, now_ns: int) -> bool:
        if report.state != LinkState.UP.value or report.path_id != path_id:
            return False
        if now_ns - report.at_ns <= FRESH_NS:
            return True
        beat = self._beats.get(report.site)
        if beat is None or now_ns - beat.at_ns > FRESH_NS:
            return False
        told_ns = beat.told_ns.get(report.link)
        return told_ns is not None and told_ns <= report.at_ns


class PairLinkView:
    """Links that make pairs: what their devices are calibrated to, and what each end last said."""

    def __init__(self) -> None:
        self._sheets: dict[str, LinkSheet] = {}
        self._reports: dict[str, dict[str, PairReport]] = {}

    def learn(self, sheets: Iterable[LinkSheet]) -> bool:
        """Take in sheets; whether one of them is new or says something new."""
        fresh = {sheet.link: sheet for sheet in sheets if self._sheets.get(sheet.link) != sheet}
        self._sheets.update(fresh)
        return bool(fresh)

    def note(self, report: PairReport) -> bool:
        """Take a report in; False when it is older than the one held, or not from an end of its link."""
        link = report.sheet.link
        ends = self._reports.setdefault(link, {})
        known = ends.get(report.site)
        if report.site not in report.sheet.sites or (known is not None and report.at_ns < known.at_ns):
            return False
        ends[report.site] = report
        self._sheets[link] = report.sheet
        return True

    def forget_site(self, site: str) -> None:
        """A site began anew: what it said before means nothing now."""
        for ends in self._reports.values():
            ends.pop(site, None)

    def sheets(self) -> Mapping[str, LinkSheet]:
        """All links that were ever told of."""
        return self._sheets

    def report(self, link: str, site: str) -> PairReport | None:
        """What one end last said."""
        return self._reports.get(link, {}).get(site)

    def says_down(self, link: str) -> str:
        """Why an end says that no pairs can be made; empty when none does."""
        down = [report for report in self._reports.get(link, {}).values() if not report.up]
        return (down[0].reason or f"{down[0].site} makes no pairs") if down else ""
