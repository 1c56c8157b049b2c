"""Scenario files: the world as TOML, format `multiplane-scenario/1`. Meaning: docs/formats/scenario.md."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import resources
from typing import Any, Final

import msgspec

from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id, slug
from multiplane.twin.profiles import PROFILES, Profile

FORMAT: Final = "multiplane-scenario/1"
MAX_LENGTH_KM: Final = 100_000.0
MAX_LOSS_DB: Final = 1_000.0
MAX_RATE_BIT_PER_S: Final = 1e12
LENGTH_BASES: Final = ("stated", "great-circle", "planar", "minimum")
LOSS_BASES: Final = ("stated", "derived")
_RESERVED_SAES: Final = ("kme",)
_SHOWN_CHARACTERS: Final = 60
_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY: Final = re.compile(r"""\s*["']?([A-Za-z0-9_.-]+)["']?\s*=""")

Where = tuple[str | int, ...]


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


class World(msgspec.Struct, frozen=True, kw_only=True):
    """All that exists before anything runs."""

    name: str
    domain: str
    sites: tuple[Site, ...]
    spans: tuple[Span, ...]


class ScenarioError(Refused):
    """A scenario that cannot be; `reason` is one line `FILE:LINE: key: what is wrong, expected what`."""

    def __init__(self, source: str, line: int, key: str, problem: str) -> None:
        super().__init__("scenario.invalid", f"{source}:{line}: {key}: {problem}")
        self.line = line
        self.key = key


def parse(text: str, source: str, profiles: Mapping[str, Profile] = PROFILES) -> World:
    """The world that a scenario file describes.

    Args: text: content of the file; source: its name, for error lines; profiles: known kinds of link.
    Raises: ScenarioError.
    """
    # TOML counts CRLF and LF alike; the index must see the lines that people see.
    text = text.replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ScenarioError(source, 1, "syntax", "nested too deeply, expected flat tables") from None
    except ValueError as error:
        raise _syntax_error(str(error), text, source) from None
    return _Reader(source, _index(text), profiles).world(document)


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
        raise Refused("scenario.unknown", f"scenario: unknown name {_show(name)}, {_choice(name, shipped())}")
    file = resources.files("multiplane.twin") / "scenarios" / f"{name}.toml"
    return parse(file.read_text(encoding="utf-8"), f"{name}.toml")


class _Reader:
    """Checks a parsed document key by key and stops at the first fault."""

    def __init__(self, source: str, lines: Mapping[Where, int], profiles: Mapping[str, Profile]) -> None:
        self._source = source
        self._lines = lines
        self._profiles = profiles

    def world(self, document: dict[str, Any]) -> World:
        self._keys(document, (), ("format", "name", "domain", "site"), ("link", "defaults"))
        if document["format"] != FORMAT:
            raise self._error(("format",), f"unknown format {_show(document['format'])}, expected {FORMAT!r}")
        name = self._label(document["name"], ("name",))
        domain = self._label(document["domain"], ("domain",))
        default = self._default_profile(document.get("defaults", {}))
        sites = self._sites(self._tables(document["site"], "site"))
        labels = [site.name for site in sites]
        spans = self._spans(self._tables(document.get("link", []), "link"), labels, default)
        return World(name=name, domain=domain, sites=sites, spans=spans)

    def _default_profile(self, defaults: Any) -> str | None:
        if not isinstance(defaults, dict):
            raise self._error(("defaults",), f"got {_show(defaults)}, expected a table [defaults]")
        self._keys(defaults, ("defaults",), (), ("profile",))
        if "profile" not in defaults:
            return None
        return self._profile(defaults["profile"], ("defaults", "profile"))

    def _sites(self, tables: list[dict[str, Any]]) -> tuple[Site, ...]:
        if not tables:
            raise self._error(("site",), "got none, expected at least one [[site]]")
        sites: dict[str, Site] = {}
        saes: set[str] = set()
        for number, table in enumerate(tables):
            where: Where = ("site", number)
            self._keys(table, where, ("name",), ("saes", "lat_deg", "lon_deg"))
            site = self._site(table, where)
            if site.name in sites:
                problem = f"{_show(site.title)} has the label {site.name!r} of {sites[site.name].title!r}"
                raise self._error((*where, "name"), f"{problem}, expected a name with a label of its own")
            for sae in site.saes:
                if sae in saes:
                    raise self._error((*where, "saes"), f"{sae!r} exists already, expected unique labels")
                saes.add(sae)
            sites[site.name] = site
        return tuple(sites.values())

    def _site(self, table: dict[str, Any], where: Where) -> Site:
        title = self._text(table["name"], (*where, "name"))
        try:
            label = slug(title)
        except ValueError as error:
            raise self._error((*where, "name"), str(error)) from None
        saes = table.get("saes", [f"{label}-1"])
        if not isinstance(saes, list):
            raise self._error((*where, "saes"), f"got {_show(saes)}, expected a list of labels")
        labels = tuple(self._label(sae, (*where, "saes")) for sae in saes)
        for sae in labels:
            if sae in _RESERVED_SAES:
                raise self._error((*where, "saes"), f"{sae!r} is reserved, expected another label")
        lat_deg, lon_deg = self._position(table, where)
        return Site(name=label, title=title, saes=labels, lat_deg=lat_deg, lon_deg=lon_deg)

    def _position(self, table: dict[str, Any], where: Where) -> tuple[float | None, float | None]:
        if "lat_deg" not in table and "lon_deg" not in table:
            return None, None
        for key in ("lat_deg", "lon_deg"):
            if key not in table:
                raise self._error((*where, key), "missing, expected both lat_deg and lon_deg, or neither")
        lat_deg = self._number(table["lat_deg"], (*where, "lat_deg"), 90.0, least=-90.0)
        return lat_deg, self._number(table["lon_deg"], (*where, "lon_deg"), 180.0, least=-180.0)

    def _spans(
        self, tables: list[dict[str, Any]], labels: list[str], default: str | None
    ) -> tuple[Span, ...]:
        spans: dict[str, Span] = {}
        required = ("a", "b", "length_km", "loss_db") + (() if default else ("profile",))
        for number, table in enumerate(tables):
            where: Where = ("link", number)
            self._keys(table, where, required, ("profile", "rate_bit_per_s", "length_basis", "loss_basis"))
            span = self._span(table, where, labels, default)
            if span.id in spans:
                problem = f"{span.sites[0]!r} and {span.sites[1]!r} are linked already"
                raise self._error((*where, "b"), f"{problem}, expected one link between two sites")
            spans[span.id] = span
        return tuple(spans.values())

    def _span(self, table: dict[str, Any], where: Where, labels: list[str], default: str | None) -> Span:
        a, b = sorted(self._end(table[key], (*where, key), labels) for key in ("a", "b"))
        if a == b:
            raise self._error((*where, "b"), f"both ends are {a!r}, expected two different sites")
        profile = self._profile(table.get("profile", default), (*where, "profile"))
        return Span(
            id=link_id(a, b),
            sites=(a, b),
            length_km=self._number(table["length_km"], (*where, "length_km"), MAX_LENGTH_KM),
            loss_db=self._number(table["loss_db"], (*where, "loss_db"), MAX_LOSS_DB, least=0.0),
            profile=profile,
            rate_bit_per_s=self._rate(table, where, profile),
            length_basis=self._one_of(table, where, "length_basis", LENGTH_BASES),
            loss_basis=self._one_of(table, where, "loss_basis", LOSS_BASES),
        )

    def _rate(self, table: dict[str, Any], where: Where, profile: str) -> float:
        here = (*where, "rate_bit_per_s")
        if not self._profiles[profile].takes_rate:
            if "rate_bit_per_s" in table:
                raise self._error(here, f"profile {profile!r} derives its rate, expected no rate here")
            return 0.0
        if "rate_bit_per_s" not in table:
            raise self._error(here, f"missing, expected the rate of profile {profile!r}")
        return self._number(table["rate_bit_per_s"], here, MAX_RATE_BIT_PER_S)

    def _end(self, value: Any, where: Where, labels: list[str]) -> str:
        text = self._text(value, where)
        try:
            label = slug(text)
        except ValueError:
            label = text
        if label not in labels:
            raise self._error(where, f"unknown site {_show(value)}, {_choice(label, labels)}")
        return label

    def _profile(self, value: Any, where: Where) -> str:
        name = self._text(value, where)
        if name not in self._profiles:
            raise self._error(where, f"unknown profile {_show(name)}, {_choice(name, self._profiles)}")
        return name

    def _one_of(self, table: dict[str, Any], where: Where, key: str, known: tuple[str, ...]) -> str:
        name = self._text(table.get(key, known[0]), (*where, key))
        if name not in known:
            raise self._error((*where, key), f"got {_show(name)}, {_choice(name, known)}")
        return name

    def _number(self, value: Any, where: Where, most: float, *, least: float | None = None) -> float:
        """A number from `least` to `most`; without `least` it must be above 0."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (least or 0.0) <= value <= most or (least is None and value == 0):
            bound = "above 0" if least is None else f"of at least {least:g}"
            raise self._error(where, f"got {_show(value)}, expected a number {bound} and at most {most:g}")
        return float(value)

    def _label(self, value: Any, where: Where) -> str:
        text = self._text(value, where)
        try:
            label = slug(text)
        except ValueError:
            label = "a-label"
        if label != text:
            raise self._error(where, f"got {_show(text)}, expected lower-case letters, digits and -: {label}")
        return text

    def _text(self, value: Any, where: Where) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self._error(where, f"got {_show(value)}, expected a text")
        return value

    def _tables(self, value: Any, key: str) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._error((key,), f"got {_show(value)}, expected tables [[{key}]]")
        return value

    def _keys(
        self, table: dict[str, Any], where: Where, required: tuple[str, ...], optional: tuple[str, ...]
    ) -> None:
        known = tuple(dict.fromkeys(required + optional))
        for key in table:
            if key not in known:
                raise self._error((*where, key), f"unknown key, {_choice(key, known)}")
        for key in required:
            if key not in table:
                raise self._error((*where, key), "missing, expected this key")

    def _error(self, where: Where, problem: str) -> ScenarioError:
        """The line is that of the key, else of the nearest table around it that the index knows."""
        line = next((self._lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self._lines), 1)
        return ScenarioError(self._source, line, _path(where), problem)


def _index(text: str) -> dict[Where, int]:
    """Line of each table header and key, by a scan: enough for error lines, no second parser."""
    lines: dict[Where, int] = {}
    tables: dict[str, int] = {}
    here: Where = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.match(line):
            name = header[2].strip("\"'")
            here = (name,)
            lines.setdefault(here, number)
            if header[1] == "[[":
                tables[name] = tables.get(name, -1) + 1
                here = (name, tables[name])
            lines.setdefault(here, number)
        elif key := _KEY.match(line):
            lines.setdefault((*here, *key[1].split(".")), number)
    return lines


def _syntax_error(message: str, text: str, source: str) -> ScenarioError:
    """A fault of TOML itself; the parser says the line in words."""
    found = re.search(r" \(at line (\d+), column \d+\)$", message)
    line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
    problem = re.sub(r" \(at .*\)$", "", message, flags=re.DOTALL)
    return ScenarioError(source, line, "syntax", f"{_one_line(problem)}, expected TOML 1.0")


def _path(where: Where) -> str:
    """`("link", 2, "loss_db")` as `link[3].loss_db`, counted from 1 as people do."""
    text = ""
    for part in where:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return _one_line(text.removeprefix("."))


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return _one_line(repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a huge number")


def _one_line(text: str) -> str:
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= _SHOWN_CHARACTERS else plain[:_SHOWN_CHARACTERS] + "..."


def _choice(wrong: str, known: Any) -> str:
    """What was probably meant, else everything that is known."""
    near = get_close_matches(wrong, list(known), n=1)
    return f"expected {near[0]!r}" if near else f"expected one of {', '.join(list(known)[:12])}"
