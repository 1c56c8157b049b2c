"""What the controller sees of sites and links: who is there, what is lit, what was said and measured."""

from __future__ import annotations

from collections.abc import Iterable

from multiplane.api.fabric_connectivity import PotentialLink
from multiplane.api.instructions import LinkSheet
from multiplane.fabric.control.drift import Drift
from multiplane.fabric.control.estimation import Counts
from multiplane.fabric.control.links_now import LinksNow
from multiplane.fabric.planes import Job, PairReport
from multiplane.fabric.telemetry import PairLinkView
from multiplane.kernel.names import link_id


class Sight:
    """`links`: as planning sees them. `here`: sites whose agents are there. `sites`: all with links.

    What changes something says which links are not what they were.
    """

    def __init__(self) -> None:
        self.links = LinksNow()
        self.sites: set[str] = set()
        self.here: set[str] = set()
        self._view, self._drift = PairLinkView(), Drift()
        self._lit: frozenset[str] | None = None

    @property
    def knows_light(self) -> bool:
        """Whether it was ever told which fibres are lit."""
        return self._lit is not None

    def light(self, links: Iterable[PotentialLink]) -> set[str]:
        """All links with light; the others make no pairs."""
        lit = frozenset(link_id(*link.ends.sites) for link in links)
        before, self._lit = self._lit, lit
        return self._look(self._view.sheets() if before is None else before ^ lit)

    def joined(self, site: str, sheets: tuple[LinkSheet, ...]) -> set[str]:
        """A site is there, with these links."""
        self._view.learn(sheets)
        self.sites |= {end for sheet in sheets for end in sheet.sites}
        self.here.add(site)
        return self._look(sheet.link for sheet in sheets)

    def left(self, site: str) -> set[str]:
        """Nobody is there any more."""
        self.here.discard(site)
        self._view.forget_site(site)
        self._drift.forget(site)
        return self._look([link for link, sheet in self._view.sheets().items() if site in sheet.sites])

    def report(self, report: PairReport) -> set[str]:
        """What an end says of a link."""
        if not self._view.note(report):
            return set()
        sheet = report.sheet
        end = sheet.sites.index(report.site)
        held = sheet.memories[end] - report.free - self.links.windows.taken(sheet.link)
        self.links.held(sheet.link, end, max(0, held))
        self._drift.note(report.site, sheet.link, report.errors)
        return self._look((sheet.link,))

    def measured(self, source: str, link: str, errors: Counts) -> set[str]:
        """What an order has measured of a link, in all."""
        return self._look((link,)) if self._drift.note(source, link, errors) else set()

    def over(self, source: str) -> None:
        """An order is over: it measures no more."""
        self._drift.forget(source)

    def drifted(self) -> tuple[str, ...]:
        """Links that measure worse than they are calibrated to."""
        return self._drift.followed()

    def why_down(self, link: str) -> str:
        """Why a link makes no pairs."""
        if self._lit is not None and link not in self._lit:
            return f"{link}: no light"
        return f"{link}: {self._view.says_down(link) or 'an end is gone'}"

    def flips(self, job: Job) -> tuple[float, ...]:
        """How often readouts at the sites of a job are wrong, in order."""
        found: dict[str, float] = {}
        for circuit in job.circuits:
            path = circuit.path
            for end, neighbour in ((path[0], path[1]), (path[-1], path[-2])):
                sheet = self._view.sheets().get(link_id(end, neighbour))
                if sheet is not None:
                    found.setdefault(end, sheet.flip_probability[sheet.sites.index(end)])
        return tuple(found.get(site, 0.0) for site in job.sites)

    def _look(self, links: Iterable[str]) -> set[str]:
        sheets = self._view.sheets()
        return {link for link in links if link in sheets and self._put(sheets[link])}

    def _put(self, sheet: LinkSheet) -> bool:
        self._drift.calibrated(sheet)
        lit = self._lit is None or sheet.link in self._lit
        up = lit and self.here.issuperset(sheet.sites) and not self._view.says_down(sheet.link)
        return self.links.put(self._drift.sheet(sheet), up=up)
