"""Scenario files: the world as TOML, format `multiplane-scenario/1`. Meaning: docs/formats/scenario.md."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import msgspec

from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id, slug
from multiplane.twin import happenings_reading
from multiplane.twin.happenings import Attacker, Fault, Traffic
from multiplane.twin.profiles import PROFILES, Profile
from multiplane.twin.quantum import reading
from multiplane.twin.quantum.devices import NONE, Entanglement
from multiplane.twin.quantum.policies import POLICIES, Policies
from multiplane.twin.toml_reading import Reader, Where, choice, show

FORMAT: Final = "multiplane-scenario/1"
MAX_LENGTH_KM: Final = 100_000.0
MAX_LOSS_DB: Final = 1_000.0
MAX_RATE_BIT_PER_S: Final = 1e12
LENGTH_BASES: Final = ("stated", "great-circle", "planar", "minimum")
LOSS_BASES: Final = ("stated", "derived")
_RESERVED_SAES: Final = ("kme",)


# Defaults are not encoded: a state directory knows its world by a digest, which new fields must not change.
class Site(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place and the applications it serves; it has a key manager if there are any.

    Args:
        name: label of the site; title: its name as written.
        saes: labels of its applications; a site without any is a trusted node that only relays.
        lat_deg, lon_deg: position on WGS 84, within ±90 and ±180; both or neither.
    """

    name: str
    title: str
    saes: tuple[str, ...]
    lat_deg: float | None = None
    lon_deg: float | None = None


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fibre between two sites and the pair of modules at its ends.

    Args:
        id: link id; also the id of the quantum link between the two modules.
        sites: labels of the two ends, in order.
        length_km: > 0; loss_db: >= 0, end to end.
        rate_bit_per_s: of a profile that takes one, 0 otherwise.
        length_basis: one of `LENGTH_BASES`; loss_basis: one of `LOSS_BASES`: where the two numbers come from.
    """

    id: str
    sites: tuple[str, str]
    length_km: float
    loss_db: float
    profile: str
    rate_bit_per_s: float
    length_basis: str = "stated"
    loss_basis: str = "stated"


class World(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that exists before anything runs, and what happens to it then."""

    name: str
    domain: str
    sites: tuple[Site, ...]
    spans: tuple[Span, ...]
    entanglement: Entanglement = NONE
    traffic: tuple[Traffic, ...] = ()
    faults: tuple[Fault, ...] = ()
    attackers: tuple[Attacker, ...] = ()


def parse(
    text: str,
    source: str,
    profiles: Mapping[str, Profile] = PROFILES,
    policies: Policies = POLICIES,
) -> World:
    """The world that a scenario file describes.

    Args: text: content of the file; source: its name, for error lines; profiles: known kinds of link;
        policies: what names of models and handshakes stand for.
    Raises: ScenarioError.
    """
    return _Scenario(Reader(text, source), profiles, policies).world()


def shipped() -> tuple[str, ...]:
    """Names of the scenarios that come with the package."""
    folder = resources.files("multiplane.twin") / "scenarios"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_shipped(name: str) -> World:
    """A scenario that comes with the package.

    Raises: Refused(`scenario.unknown`).
    """
    if name not in shipped():
        raise Refused("scenario.unknown", f"scenario: unknown name {show(name)}, {choice(name, shipped())}")
    file = resources.files("multiplane.twin") / "scenarios" / f"{name}.toml"
    return parse(file.read_text(encoding="utf-8"), f"{name}.toml")


class _Scenario:
    """A document as a world."""

    def __init__(self, toml: Reader, profiles: Mapping[str, Profile], policies: Policies) -> None:
        self._doc = toml
        self._profiles = profiles
        self._policies = policies

    def world(self) -> World:
        document = self._doc.document
        self._doc.keys(
            document,
            (),
            ("format", "name", "domain", "site"),
            ("link", "defaults", *reading.SECTIONS, *happenings_reading.SECTIONS),
        )
        if document["format"] != FORMAT:
            problem = f"unknown format {show(document['format'])}, expected {FORMAT!r}"
            raise self._doc.error(("format",), problem)
        name = self._doc.label(document["name"], ("name",))
        domain = self._doc.label(document["domain"], ("domain",))
        default = self._default_profile(document.get("defaults", {}))
        sites = self._sites(self._doc.tables(document["site"], "site"))
        labels = [site.name for site in sites]
        spans = self._spans(self._doc.tables(document.get("link", []), "link"), labels, default)
        fibres = [reading.Fibre(span.id, span.sites, span.length_km, span.loss_db) for span in spans]
        entanglement = reading.read(self._doc, fibres, self._policies)
        happens = self._happenings(sites, spans, entanglement)
        return World(
            name=name,
            domain=domain,
            sites=sites,
            spans=spans,
            entanglement=entanglement,
            traffic=happens.traffic,
            faults=happens.faults,
            attackers=happens.attackers,
        )

    def _happenings(
        self, sites: tuple[Site, ...], spans: tuple[Span, ...], entanglement: Entanglement
    ) -> happenings_reading.Happenings:
        known = happenings_reading.World(
            sites=tuple(site.name for site in sites),
            saes=tuple(sae for site in sites for sae in site.saes),
            links={span.id: (span.sites, self._profiles[span.profile]) for span in spans},
            pair_links=tuple(link.id for link in entanglement.links),
        )
        return happenings_reading.read(self._doc, known)

    def _default_profile(self, defaults: Any) -> str | None:
        if not isinstance(defaults, dict):
            raise self._doc.error(("defaults",), f"got {show(defaults)}, expected a table [defaults]")
        self._doc.keys(defaults, ("defaults",), (), ("profile",))
        if "profile" not in defaults:
            return None
        return self._profile(defaults["profile"], ("defaults", "profile"))

    def _sites(self, tables: list[dict[str, Any]]) -> tuple[Site, ...]:
        if not tables:
            raise self._doc.error(("site",), "got none, expected at least one [[site]]")
        sites: dict[str, Site] = {}
        saes: set[str] = set()
        for number, table in enumerate(tables):
            where: Where = ("site", number)
            self._doc.keys(table, where, ("name",), ("saes", "lat_deg", "lon_deg"))
            site = self._site(table, where)
            if site.name in sites:
                problem = f"{show(site.title)} has the label {site.name!r} of {sites[site.name].title!r}"
                raise self._doc.error((*where, "name"), f"{problem}, expected a name with a label of its own")
            for sae in site.saes:
                if sae in saes:
                    raise self._doc.error((*where, "saes"), f"{sae!r} exists already, expected unique labels")
                saes.add(sae)
            sites[site.name] = site
        return tuple(sites.values())

    def _site(self, table: dict[str, Any], where: Where) -> Site:
        title = self._doc.text(table["name"], (*where, "name"))
        try:
            label = slug(title)
        except ValueError as error:
            raise self._doc.error((*where, "name"), str(error)) from None
        saes = table.get("saes", [f"{label}-1"])
        if not isinstance(saes, list):
            raise self._doc.error((*where, "saes"), f"got {show(saes)}, expected a list of labels")
        labels = tuple(self._doc.label(sae, (*where, "saes")) for sae in saes)
        for sae in labels:
            if sae in _RESERVED_SAES:
                raise self._doc.error((*where, "saes"), f"{sae!r} is reserved, expected another label")
        lat_deg, lon_deg = self._position(table, where)
        return Site(name=label, title=title, saes=labels, lat_deg=lat_deg, lon_deg=lon_deg)

    def _position(self, table: dict[str, Any], where: Where) -> tuple[float | None, float | None]:
        if "lat_deg" not in table and "lon_deg" not in table:
            return None, None
        for key in ("lat_deg", "lon_deg"):
            if key not in table:
                raise self._doc.error((*where, key), "missing, expected both lat_deg and lon_deg, or neither")
        lat_deg = self._doc.number(table["lat_deg"], (*where, "lat_deg"), 90.0, least=-90.0)
        return lat_deg, self._doc.number(table["lon_deg"], (*where, "lon_deg"), 180.0, least=-180.0)

    def _spans(
        self, tables: list[dict[str, Any]], labels: list[str], default: str | None
    ) -> tuple[Span, ...]:
        spans: dict[str, Span] = {}
        required = ("a", "b", "length_km", "loss_db") + (() if default else ("profile",))
        for number, table in enumerate(tables):
            where: Where = ("link", number)
            self._doc.keys(
                table, where, required, ("profile", "rate_bit_per_s", "length_basis", "loss_basis")
            )
            span = self._span(table, where, labels, default)
            if span.id in spans:
                problem = f"{span.sites[0]!r} and {span.sites[1]!r} are linked already"
                raise self._doc.error((*where, "b"), f"{problem}, expected one link between two sites")
            spans[span.id] = span
        return tuple(spans.values())

    def _span(self, table: dict[str, Any], where: Where, labels: list[str], default: str | None) -> Span:
        a, b = sorted(self._end(table[key], (*where, key), labels) for key in ("a", "b"))
        if a == b:
            raise self._doc.error((*where, "b"), f"both ends are {a!r}, expected two different sites")
        profile = self._profile(table.get("profile", default), (*where, "profile"))
        return Span(
            id=link_id(a, b),
            sites=(a, b),
            length_km=self._doc.number(table["length_km"], (*where, "length_km"), MAX_LENGTH_KM),
            loss_db=self._doc.number(table["loss_db"], (*where, "loss_db"), MAX_LOSS_DB, least=0.0),
            profile=profile,
            rate_bit_per_s=self._rate(table, where, profile),
            length_basis=self._doc.one_of(table, where, "length_basis", LENGTH_BASES),
            loss_basis=self._doc.one_of(table, where, "loss_basis", LOSS_BASES),
        )

    def _rate(self, table: dict[str, Any], where: Where, profile: str) -> float:
        here = (*where, "rate_bit_per_s")
        if not self._profiles[profile].takes_rate:
            if "rate_bit_per_s" in table:
                raise self._doc.error(here, f"profile {profile!r} derives its rate, expected no rate here")
            return 0.0
        if "rate_bit_per_s" not in table:
            raise self._doc.error(here, f"missing, expected the rate of profile {profile!r}")
        return self._doc.number(table["rate_bit_per_s"], here, MAX_RATE_BIT_PER_S)

    def _end(self, value: Any, where: Where, labels: list[str]) -> str:
        text = self._doc.text(value, where)
        try:
            label = slug(text)
        except ValueError:
            label = text
        if label not in labels:
            raise self._doc.error(where, f"unknown site {show(value)}, {choice(label, labels)}")
        return label

    def _profile(self, value: Any, where: Where) -> str:
        name = self._doc.text(value, where)
        if name not in self._profiles:
            raise self._doc.error(where, f"unknown profile {show(name)}, {choice(name, self._profiles)}")
        return name
