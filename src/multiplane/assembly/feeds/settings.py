"""Settings of fed links: who serves ETSI GS QKD 014 at each end, and as whom that end asks.

    [feed."alice--bob"]
    rate_bit_per_s = 100e3

    [feed."alice--bob".alice]
    url = "https://kme-a.example:9443"
    ca = "feed/ca.pem"
    cert = "feed/app-a.pem"
    key = "feed/app-a.key"
    sae_id = "app-a"

    [feed."alice--bob".bob]
    ...

Paths are relative to the folder of the settings file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import msgspec

from multiplane.kernel.errors import Refused
from multiplane.kernel.names import link_id, slug

SECTION: Final = "feed"
RATE_BIT_PER_S: Final = 1e6
MOST_RATE_BIT_PER_S: Final = 1e12
LONGEST_SAE_ID: Final = 256
_URL: Final = re.compile(
    r"https://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:(?P<port>\d{1,5}))?(/[\w.~/-]*)?",
    re.ASCII,
)
_KEYS: Final = ("url", "ca", "cert", "key", "sae_id")


class FeedEnd(msgspec.Struct, frozen=True, kw_only=True):
    """One end of a fed link, as its own site needs it. No secrets: paths only.

    Args:
        link: id of the link; `site` and `peer` are its two sites.
        url: the key manager of the other network at this end.
        ca: PEM file of the authority that signed that key manager's certificate.
        cert, key: PEM files of the application that this end is to that network.
        sae_id, peer_sae_id: ids of this end's and the other end's application in that network.
        rate_bit_per_s: rate that the source is counted on for, and the most that is drawn, > 0.
    """

    link: str
    site: str
    peer: str
    url: str
    ca: str
    cert: str
    key: str
    sae_id: str
    peer_sae_id: str
    rate_bit_per_s: float

    @property
    def leads(self) -> bool:
        """Whether this end is the master: the site with the lower name."""
        return self.site < self.peer

    @property
    def host(self) -> str:
        """Host and port of the key manager."""
        return self.url.removeprefix("https://").partition("/")[0]


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """A fed link: its two ends in order of site, and where the settings say so (`FILE:LINE`)."""

    link: str
    at: str
    ends: tuple[FeedEnd, FeedEnd]


def read_feeds(tables: Any, path: Path, lines: Mapping[str, int]) -> tuple[Feed, ...]:
    """The fed links of a settings file.

    Args:
        tables: what the file holds under `feed`.
        lines: line of each section and key.

    Raises: Refused(`settings.value`, `settings.unknown_key`), naming file, line and key.
    """
    reader = _Reader(path, lines)
    return tuple(reader.feed(link, table) for link, table in reader.table(SECTION, tables).items())


def check_feeds(feeds: Iterable[Feed], spans: Collection[str], rate: float) -> None:
    """Whether a scenario has all links that are fed, and runs in real time, as their sources do.

    Raises: Refused(`settings.value`).
    """
    for feed in feeds:
        if feed.link not in spans:
            near = get_close_matches(feed.link, list(spans), 1) or sorted(spans)[:8]
            reason = f"{feed.at}: feed.{feed.link}: no link of the scenario, expected {' or '.join(near)}"
            raise Refused("settings.value", reason)
        if rate != 1.0:
            reason = (
                f"{feed.at}: feed.{feed.link}: its source lives in real time, expected rate 1, got {rate:g}"
            )
            raise Refused("settings.value", reason)


def ends_at(feeds: Iterable[Feed], site: str) -> tuple[FeedEnd, ...]:
    """The ends of fed links at a site."""
    return tuple(end for feed in feeds for end in feed.ends if end.site == site)


class _Reader:
    """Reads the tables and says what is wrong with them, and where."""

    def __init__(self, path: Path, lines: Mapping[str, int]) -> None:
        self._path, self._lines = path, lines

    def error(self, where: str, problem: str, code: str = "settings.value") -> Refused:
        """At the line of the key, else of the nearest table around it."""
        around = where
        while around not in self._lines and "." in around:
            around = around.rpartition(".")[0]
        return Refused(code, f"{self._path}:{self._lines.get(around, 1)}: {where}: {problem}")

    def table(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(where, f"expected a table, got {value!r}")
        return value

    def known(self, where: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                problem = f"unknown key, expected one of {', '.join(known)}"
                raise self.error(f"{where}.{key}", problem, "settings.unknown_key")

    def feed(self, link: str, table: Any) -> Feed:
        where = f"{SECTION}.{link}"
        sites = self._sites(where, link)
        held = self.table(where, table)
        self.known(where, held, ("rate_bit_per_s", *sites))
        rate = held.get("rate_bit_per_s", RATE_BIT_PER_S)
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not number or not 0 < rate <= MOST_RATE_BIT_PER_S:
            problem = f"expected a number above 0 and at most {MOST_RATE_BIT_PER_S:g}, got {rate!r}"
            raise self.error(f"{where}.rate_bit_per_s", problem)
        texts = [self._texts(f"{where}.{site}", held.get(site)) for site in sites]
        if texts[0]["sae_id"] == texts[1]["sae_id"]:
            problem = f"expected another than at {sites[0]}, got {texts[1]['sae_id']!r}"
            raise self.error(f"{where}.{sites[1]}.sae_id", problem)
        near, far = (
            FeedEnd(
                link=link,
                site=sites[end],
                peer=sites[1 - end],
                peer_sae_id=texts[1 - end]["sae_id"],
                rate_bit_per_s=float(rate),
                **texts[end],
            )
            for end in (0, 1)
        )
        return Feed(link=link, at=f"{self._path}:{self._lines.get(where, 1)}", ends=(near, far))

    def _sites(self, where: str, link: str) -> tuple[str, str]:
        sites = tuple(link.split("--"))
        sound = len(sites) == 2 and all(site and _label(site) == site for site in sites)
        if not sound or link_id(*sites) != link:
            raise self.error(where, "expected a link as its two sites in order, such as alice--bob")
        return sites[0], sites[1]

    def _texts(self, where: str, value: Any) -> dict[str, str]:
        """What one end says, complete and usable."""
        held = self.table(where, value if value is not None else {})
        self.known(where, held, _KEYS)
        for key in _KEYS:
            text = held.get(key)
            if not isinstance(text, str) or not text.strip():
                raise self.error(f"{where}.{key}", f"expected a text, got {text!r}")
        checks: Mapping[str, Callable[[str], str]] = {
            "url": _url,
            "ca": self._file,
            "cert": self._file,
            "key": self._file,
            "sae_id": _sae_id,
        }
        found: dict[str, str] = {}
        for key in _KEYS:
            try:
                found[key] = checks[key](held[key])
            except ValueError as error:
                raise self.error(f"{where}.{key}", str(error)) from error
        return found

    def _file(self, text: str) -> str:
        path = (self._path.parent / text).absolute()
        if not path.is_file() or not os.access(path, os.R_OK):
            raise ValueError(f"expected a readable PEM file, got {text!r}")
        return str(path)


def _url(text: str) -> str:
    found = _URL.fullmatch(text)
    if not found or not 1 <= int(found["port"] or 443) <= 65_535:
        raise ValueError(f"expected https://HOST[:PORT], got {text!r}")
    return text.rstrip("/")


def _sae_id(text: str) -> str:
    if len(text) > LONGEST_SAE_ID or not text.isprintable():
        raise ValueError(f"expected up to {LONGEST_SAE_ID} printable characters, got {text[:80]!r}")
    return text


def _label(name: str) -> str:
    """The label of a name, empty when there is none."""
    try:
        return slug(name)
    except ValueError:
        return ""
