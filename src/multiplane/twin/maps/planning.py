"""From a map to a scenario: sites, relays, spans, and a report of every decision."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from multiplane.kernel.names import link_id, slug
from multiplane.twin.maps.naming import Labels
from multiplane.twin.maps.options import Options
from multiplane.twin.maps.sphere import between
from multiplane.twin.maps.tidying import Route, Tidy, tidy
from multiplane.twin.maps.value import MAX_PLACES, Map, MapError, Place, Position, Remark, plain
from multiplane.twin.profiles import PROFILES
from multiplane.twin.scenario import MAX_LENGTH_KM, MAX_LOSS_DB, Site, Span, World
from multiplane.twin.scenario_writing import write

DERIVED_PROFILE: Final = "decoy-bb84-1ghz"
STATED_PROFILE: Final = "constant-rate"
_DIGITS: Final = 4
_NAME_CHARACTERS: Final = 40


class SpanReport(msgspec.Struct, frozen=True, kw_only=True):
    """A span and the secret key rate that its profile gives it."""

    link: str
    length_km: float
    loss_db: float
    profile: str
    rate_bit_per_s: float


class Divided(msgspec.Struct, frozen=True, kw_only=True):
    """A link of the map that was too long: its length, and the relays that divide it into equal spans."""

    link: str
    length_km: float
    relays: tuple[str, ...]

    @property
    def said(self) -> str:
        """The relays in words."""
        first, last, number = self.relays[0], self.relays[-1], len(self.relays)
        names = first if number == 1 else f"{first} to {last.rsplit('-', 1)[-1]}"
        each_km = self.length_km / (number + 1)
        return f"{self.length_km:g} km, {number + 1} spans of {each_km:.1f} km, relays {names}"


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an import made and what it changed.

    Args:
        sites: of the map, each with an application; relays: number of relay-only trusted nodes added.
        links: of the map that were kept; divided: those that got relays; spans: of the scenario.
        total_km: of all spans; lengths, losses: number of spans by basis.
        longest, lossiest: spans; without_key: ids of spans on which the profile makes no key.
        stated_rates: links whose measured rate is used.
    """

    name: str
    source: str
    format: str
    options: Options
    sites: int
    relays: int
    links: int
    divided: tuple[Divided, ...]
    spans: int
    total_km: float
    lengths: dict[str, int]
    losses: dict[str, int]
    stated_rates: int
    longest: SpanReport | None
    lossiest: SpanReport | None
    without_key: tuple[str, ...]
    remarks: tuple[Remark, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario, the text of its file and the report."""

    world: World
    text: str
    report: ImportReport


class _Draft:
    """The scenario while it is made."""

    def __init__(self, found: Map, options: Options) -> None:
        self.found, self.options = found, options
        self.labels = Labels()
        self.sites: list[Site] = []
        self.relays: list[Site] = []
        self.spans: list[Span] = []
        self.comments: dict[str, str] = {}
        self.divided: list[Divided] = []
        self.remarks: list[Remark] = []

    def add_sites(self, places: Sequence[Place]) -> dict[str, Site]:
        named = self.labels.sites(places)
        degrees = self.options.planar_km_per_unit is None
        by_key = {}
        for place in places:
            label, title = named[place.key]
            position = place.position if degrees else None
            if title != place.title:
                self.comments[label] = f"in the map: {plain(place.title)}"
            by_key[place.key] = _site(label, title, (f"{label}-1",), position)
        self.sites = list(by_key.values())
        return by_key

    def add_route(self, route: Route, a: Site, b: Site) -> None:
        """Spans for a route, with relays between them if it is too long."""
        a, b = sorted((a, b), key=lambda site: site.name)
        count = self._parts(route)
        labels = self.labels.relays(a.name, b.name, count - 1) if count > 1 else []
        if labels:
            here = Divided(link=link_id(a.name, b.name), length_km=route.length_km, relays=tuple(labels))
            self.divided.append(here)
        for number, label in enumerate(labels, start=1):
            position = _along(a, b, number / count)
            self.relays.append(_site(label, label, (), position))
            self.comments[label] = f"relay {number} of {count - 1} between {a.name} and {b.name}"
        self.spans += self._spans(route, [a.name, *labels, b.name])

    def _parts(self, route: Route) -> int:
        most_km = self.options.max_span_km
        count = max(1, math.ceil(route.length_km / most_km - 1e-9))
        if len(self.sites) + len(self.relays) + count - 1 > MAX_PLACES:
            problem = f"{route.length_km:g} km need {count - 1} relays, more than {MAX_PLACES} sites in all"
            raise MapError(
                self.found.source, route.cable.where, f"{problem}: expected a larger --max-span-km"
            )
        return count

    def _spans(self, route: Route, labels: Sequence[str]) -> Iterator[Span]:
        cable, count = route.cable, len(labels) - 1
        length_km = round(route.length_km / count, _DIGITS)
        if cable.loss_db is None:
            loss_db, loss_basis = length_km * self.options.attenuation_db_per_km, "derived"
        else:
            loss_db, loss_basis = cable.loss_db / count, "stated"
        if length_km > MAX_LENGTH_KM or loss_db > MAX_LOSS_DB:
            problem = f"spans of {length_km:g} km and {loss_db:g} dB"
            hint = f"expected at most {MAX_LENGTH_KM:g} km and {MAX_LOSS_DB:g} dB"
            raise MapError(self.found.source, cable.where, f"{problem}, {hint}")
        rate_bit_per_s = self._rate(route, count)
        for a, b in pairwise(labels):
            yield Span(
                id=link_id(a, b),
                sites=(min(a, b), max(a, b)),
                length_km=length_km,
                loss_db=round(loss_db, _DIGITS),
                profile=STATED_PROFILE if rate_bit_per_s else DERIVED_PROFILE,
                rate_bit_per_s=rate_bit_per_s,
                length_basis=route.length_basis,
                loss_basis=loss_basis,
            )

    def _rate(self, route: Route, count: int) -> float:
        """The measured rate belongs to the whole fibre: a divided one gets its rate from the loss."""
        rate_bit_per_s = route.cable.rate_bit_per_s or 0.0
        if rate_bit_per_s and count > 1:
            done = f"stated {rate_bit_per_s:g} bit/s not used: the link is divided into {count} spans"
            self.remarks.append(Remark(rule="rate", subject=route.cable.where, done=done))
            return 0.0
        return rate_bit_per_s


def plan(found: Map, options: Options) -> Plan:
    """The scenario of a map, by the rules in docs/formats/topology.md.

    Raises: MapError.
    """
    whole = tidy(found, options)
    draft = _Draft(found, options)
    by_key = draft.add_sites(whole.places)
    for route in whole.routes:
        draft.add_route(route, by_key[route.cable.a], by_key[route.cable.b])
    name = options.name or _name(found.name)
    world = World(name=name, domain=name, sites=(*draft.sites, *draft.relays), spans=tuple(draft.spans))
    report = _report(world, draft, whole)
    return Plan(world=world, text=write(world, tuple(_header(found, report)), draft.comments), report=report)


def _site(label: str, title: str, saes: tuple[str, ...], position: Position | None) -> Site:
    if position is None:
        return Site(name=label, title=title, saes=saes)
    lat_deg, lon_deg = (round(value, 6) for value in position)
    return Site(name=label, title=title, saes=saes, lat_deg=lat_deg, lon_deg=lon_deg)


def _along(a: Site, b: Site, share: float) -> Position | None:
    if a.lat_deg is None or a.lon_deg is None or b.lat_deg is None or b.lon_deg is None:
        return None
    return between(Position(a.lat_deg, a.lon_deg), Position(b.lat_deg, b.lon_deg), share)


def _name(name: str) -> str:
    try:
        return slug(name)[:_NAME_CHARACTERS].strip("-")
    except ValueError:
        return "imported"


def _report(world: World, draft: _Draft, whole: Tidy) -> ImportReport:
    spans = [_span_report(span) for span in world.spans]
    return ImportReport(
        name=world.name,
        source=draft.found.source.rsplit("/", 1)[-1],
        format=draft.found.format,
        options=draft.options,
        sites=len(draft.sites),
        relays=len(draft.relays),
        links=len(whole.routes),
        divided=tuple(draft.divided),
        spans=len(spans),
        total_km=round(math.fsum(span.length_km for span in spans), _DIGITS),
        lengths=dict(Counter(span.length_basis for span in world.spans)),
        losses=dict(Counter(span.loss_basis for span in world.spans)),
        stated_rates=sum(span.profile == STATED_PROFILE for span in spans),
        longest=max(spans, key=lambda span: span.length_km, default=None),
        lossiest=max(spans, key=lambda span: span.loss_db, default=None),
        without_key=tuple(span.link for span in spans if span.rate_bit_per_s <= 0.0),
        remarks=(*whole.remarks, *draft.labels.remarks, *draft.remarks),
    )


def _span_report(span: Span) -> SpanReport:
    makes = PROFILES[span.profile].yields(span.loss_db, span.rate_bit_per_s)
    return SpanReport(
        link=span.id,
        length_km=span.length_km,
        loss_db=span.loss_db,
        profile=span.profile,
        rate_bit_per_s=makes.rate_bit_per_s,
    )


def _header(found: Map, report: ImportReport) -> Iterator[str]:
    """The decisions as comment lines for the top of the file."""
    options = report.options
    yield f"Imported from {plain(report.source)} ({report.format}). What it says of itself:"
    yield from (f"  {line}" for line in found.credits)
    yield f"{report.sites} sites and {report.links} links of the map, {report.relays} relays added."
    yield "length_basis: stated = fibre length of the map; great-circle = distance between the sites times"
    yield f"{options.route_factor:g}, by which fibre routes are taken to be longer; minimum = the map says 0."
    if options.planar_km_per_unit is not None:
        yield f"planar = distance in the plane, {options.planar_km_per_unit:g} km a unit, times that factor."
    yield f"loss_basis: stated = of the map; derived = length times {options.attenuation_db_per_km:g} dB/km."
    if report.stated_rates:
        yield f"{report.stated_rates} links have the rate stated in the map (profile {STATED_PROFILE})."
    if report.divided:
        yield f"Links longer than {options.max_span_km:g} km are divided into equal spans by relay-only"
        yield "trusted nodes, which the map does not have. Each knows the keys that pass through it:"
        yield from (f"  {link.link}: {link.said}" for link in report.divided)
    if report.without_key:
        yield "The profile makes no key on these spans; their loss is too high:"
        yield from (f"  {link}" for link in report.without_key)
    if report.remarks:
        yield "Not taken over as it stood:"
        yield from (f"  {remark.rule}: {remark.subject}: {remark.done}" for remark in report.remarks)
