"""Reads the sections `[[traffic]]`, `[[fault]]` and `[[attacker]]` of a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from multiplane.kernel.duration import EXPECTED, duration_ns
from multiplane.kernel.names import link_id, slug
from multiplane.physics.tampered_bb84 import CLOCK_JITTER_PS, Tampering
from multiplane.twin.attackers import tampering, wear
from multiplane.twin.happenings import ATTACKS, EVERY, FAULTS, PROCESSES, Attacker, Fault, Traffic, When
from multiplane.twin.profiles import Profile
from multiplane.twin.toml_reading import Reader, Where, choice, show

SECTIONS: Final = ("traffic", "fault", "attacker")
TRAFFICS: Final = ("keys", "pairs")
FELT_BY_PAIRS: Final = frozenset({"loss_db", "flip_probability"})
"""What of all that is done to light reaches a link of pairs."""
MAX_RATE_PER_S: Final = 1e6
MAX_RATE_PER_H: Final = 3.6e6
MAX_SIZE_BIT: Final = 1 << 20
MAX_NUMBER: Final = 10_000
MAX_LOSS_DB: Final = 1_000.0
MAX_OFFSET_PS: Final = 1_000.0
MAX_TIMES: Final = 10_000
_WHEN: Final = ("at", "every", "rate_per_h", "from", "until", "duration")
# What each kind needs, and what else it may have.
_OF_PROCESS: Final[Mapping[str, tuple[str, ...]]] = {
    "constant": (),
    "poisson": (),
    "diurnal": ("swing_ratio", "period"),
    "bursts": ("burst", "pause"),
}
_OF_FAULT: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "cut": (("link",), ()),
    "drift": (("link",), ("loss_db", "flip_probability", "ramp")),
    "device": (("link", "site"), ()),
    "clock": (("link", "offset_ps"), ("jitter_ps", "ramp")),
    "site": (("site",), ()),
}
_OF_ATTACK: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "intercept-resend": ((), ("share",)),
    "entangling-probe": ((), ("share",)),
    "photon-number-splitting": ((), ("share",)),
    "blinding": ((), ("share",)),
    "jamming": (("background_probability",), ()),
    "tap": (("loss_db",), ()),
    "trojan-horse": (("leak_mu",), ()),
}


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What the sections may speak of.

    Args: sites: labels; saes: labels of applications; links: ends and profile of each, by id;
        pair_links: ids of those that make pairs.
    """

    sites: tuple[str, ...]
    saes: tuple[str, ...]
    links: Mapping[str, tuple[tuple[str, str], Profile]]
    pair_links: tuple[str, ...] = ()


class Happenings(msgspec.Struct, frozen=True, kw_only=True):
    """The three sections, in the order of the file."""

    traffic: tuple[Traffic, ...]
    faults: tuple[Fault, ...]
    attackers: tuple[Attacker, ...]


def read(doc: Reader, world: World) -> Happenings:
    """The sections of a document.

    Raises: ScenarioError.
    """
    reading = _Reading(doc, world)
    traffic, faults, attackers = (doc.tables(doc.document.get(section, []), section) for section in SECTIONS)
    return Happenings(
        traffic=tuple(reading.traffic(table, ("traffic", n)) for n, table in enumerate(traffic)),
        faults=tuple(reading.fault(table, ("fault", n)) for n, table in enumerate(faults)),
        attackers=tuple(reading.attacker(table, ("attacker", n)) for n, table in enumerate(attackers)),
    )


class _Reading:
    def __init__(self, doc: Reader, world: World) -> None:
        self._doc = doc
        self._world = world

    def traffic(self, table: dict[str, Any], where: Where) -> Traffic:
        kind = self._doc.one_of(table, where, "kind", TRAFFICS)
        along = kind == "pairs" and "path" in table
        needed = ("path",) if along else ("link",) if kind == "pairs" else ("master", "slave")
        process = self._kind(table, where, "process", PROCESSES)
        own = _OF_PROCESS[process]
        more = ("peak",) if process == "diurnal" else ()
        size = ("size_bit",) if kind == "keys" else ()
        optional = (*more, *size, "kind", "number", "from", "until")
        self._doc.keys(table, where, (*needed, "process", "rate_per_s", *own), optional)
        master, slave = self._applications(table, where) if kind == "keys" else ("", "")
        from_ns, until_ns = self._window(table, where)
        return Traffic(
            kind="pairs" if kind == "pairs" else "keys",
            master=master,
            slave=slave,
            links=self._pair_links(table["link"], (*where, "link")) if "link" in needed else (),
            path=self._path(table["path"], (*where, "path")) if along else (),
            process=process,
            rate_per_s=self._doc.number(table["rate_per_s"], (*where, "rate_per_s"), MAX_RATE_PER_S),
            size_bit=self._size(table, where),
            number=self._whole(table.get("number", 1), (*where, "number"), 1, MAX_NUMBER),
            swing_ratio=self._needed(table, where, "swing_ratio", 1.0),
            period_ns=self._time(table, where, "period", least_ns=1) if "period" in own else 0,
            peak_ns=self._time(table, where, "peak") if "peak" in table else 0,
            burst_ns=self._time(table, where, "burst", least_ns=1) if "burst" in own else 0,
            pause_ns=self._time(table, where, "pause", least_ns=1) if "pause" in own else 0,
            from_ns=from_ns,
            until_ns=until_ns,
        )

    def fault(self, table: dict[str, Any], where: Where) -> Fault:
        kind = self._kind(table, where, "kind", FAULTS)
        needed, more = _OF_FAULT[kind]
        self._doc.keys(table, where, ("kind", *needed), (*more, *_WHEN))
        links = self._links(table["link"], (*where, "link")) if "link" in needed else ()
        sites = self._sites(table["site"], (*where, "site")) if "site" in needed else ()
        if kind == "device":
            self._check_end(links, sites, (*where, "site"))
        if kind == "drift" and not ("loss_db" in table or "flip_probability" in table):
            raise self._doc.error(where, "drifts nothing, expected loss_db or flip_probability")
        jitter_ps = table.get("jitter_ps", CLOCK_JITTER_PS)
        fault = Fault(
            kind=kind,
            when=self._when(table, where),
            links=links,
            sites=sites,
            loss_db=self._optional(table, where, "loss_db", MAX_LOSS_DB),
            flip_probability=self._optional(table, where, "flip_probability", 0.5),
            offset_ps=self._needed(table, where, "offset_ps", MAX_OFFSET_PS),
            jitter_ps=self._doc.number(jitter_ps, (*where, "jitter_ps"), MAX_OFFSET_PS),
            ramp_ns=self._time(table, where, "ramp") if "ramp" in table else 0,
        )
        if kind in ("drift", "clock"):
            return msgspec.structs.replace(fault, links=self._reached(links, wear(fault, 1.0), where, kind))
        return fault

    def attacker(self, table: dict[str, Any], where: Where) -> Attacker:
        kind = self._kind(table, where, "kind", ATTACKS)
        needed, more = _OF_ATTACK[kind]
        self._doc.keys(table, where, ("kind", "link", *needed), (*more, *_WHEN))
        attacker = Attacker(
            kind=kind,
            when=self._when(table, where),
            links=self._links(table["link"], (*where, "link")),
            share=self._doc.number(table.get("share", 1.0), (*where, "share"), 1.0),
            background_probability=self._needed(table, where, "background_probability", 1.0),
            loss_db=self._needed(table, where, "loss_db", MAX_LOSS_DB),
            leak_mu=self._needed(table, where, "leak_mu", 10.0),
        )
        links = self._reached(attacker.links, tampering(attacker), where, kind)
        return msgspec.structs.replace(attacker, links=links)

    # parts

    def _kind(self, table: dict[str, Any], where: Where, key: str, known: Sequence[str]) -> str:
        if key not in table:
            raise self._doc.error((*where, key), f"missing, expected one of {', '.join(known)}")
        return self._doc.one_of(table, where, key, tuple(known))

    def _when(self, table: dict[str, Any], where: Where) -> When:
        ways = [key for key in ("at", "every", "rate_per_h") if key in table]
        if len(ways) > 1:
            raise self._doc.error((*where, ways[1]), f"beside {ways[0]!r}, expected only one of them")
        if "at" in table and "from" in table:
            raise self._doc.error((*where, "from"), "beside 'at', expected only one of them")
        if "duration" in table and not ways:
            raise self._doc.error(
                (*where, "duration"), "without at, every or rate_per_h, expected from, until"
            )
        for key in ("every", "rate_per_h"):
            if key in table and "duration" not in table:
                raise self._doc.error(
                    (*where, "duration"), f"missing, expected how long it lasts beside {key!r}"
                )
        from_ns, until_ns = self._window(table, where)
        lasts_ns = self._time(table, where, "duration", least_ns=1) if "duration" in table else None
        every_ns = self._time(table, where, "every", least_ns=1) if "every" in table else 0
        if every_ns and lasts_ns is not None and lasts_ns >= every_ns:
            raise self._doc.error((*where, "duration"), "lasts into the next, expected less than 'every'")
        return When(
            at_ns=self._times(table, where),
            every_ns=every_ns,
            rate_per_h=self._needed(table, where, "rate_per_h", MAX_RATE_PER_H),
            from_ns=from_ns,
            until_ns=until_ns,
            duration_ns=lasts_ns,
        )

    def _window(self, table: dict[str, Any], where: Where) -> tuple[int, int | None]:
        from_ns = self._time(table, where, "from") if "from" in table else 0
        until_ns = self._time(table, where, "until") if "until" in table else None
        if until_ns is not None and until_ns <= from_ns:
            raise self._doc.error((*where, "until"), "is not after the begin, expected a later time")
        return from_ns, until_ns

    def _times(self, table: dict[str, Any], where: Where) -> tuple[int, ...]:
        if "at" not in table:
            return ()
        here, value = (*where, "at"), table["at"]
        if isinstance(value, list) and not 1 <= len(value) <= MAX_TIMES:
            raise self._doc.error(here, f"got {len(value)} times, expected 1 to {MAX_TIMES}")
        times = tuple(self._read_time(one, here) for one in (value if isinstance(value, list) else [value]))
        if any(later <= sooner for sooner, later in pairwise(times)):
            raise self._doc.error(here, "times are out of order, expected each after the one before")
        return times

    def _time(self, table: dict[str, Any], where: Where, key: str, *, least_ns: int = 0) -> int:
        span_ns = self._read_time(table[key], (*where, key))
        if span_ns < least_ns:
            raise self._doc.error((*where, key), f"got {show(table[key])}, expected more than 0")
        return span_ns

    def _read_time(self, value: Any, where: Where) -> int:
        if not isinstance(value, str):
            raise self._doc.error(where, f"got {show(value)}, expected {EXPECTED}")
        try:
            return duration_ns(value)
        except ValueError:
            raise self._doc.error(where, f"got {show(value)}, expected {EXPECTED}") from None

    def _optional(self, table: dict[str, Any], where: Where, key: str, most: float) -> float:
        return self._doc.number(table[key], (*where, key), most, least=0.0) if key in table else 0.0

    def _needed(self, table: dict[str, Any], where: Where, key: str, most: float) -> float:
        return self._doc.number(table[key], (*where, key), most) if key in table else 0.0

    def _whole(self, value: Any, where: Where, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._doc.error(where, f"got {show(value)}, expected a whole number from {least} to {most}")
        return value

    def _size(self, table: dict[str, Any], where: Where) -> int:
        size_bit = self._whole(table.get("size_bit", 0), (*where, "size_bit"), 0, MAX_SIZE_BIT)
        if size_bit % 8:
            raise self._doc.error((*where, "size_bit"), f"got {size_bit}, expected a multiple of 8")
        return size_bit

    def _applications(self, table: dict[str, Any], where: Where) -> tuple[str, str]:
        master, slave = (self._application(table[key], (*where, key)) for key in ("master", "slave"))
        if master == slave != EVERY:
            raise self._doc.error((*where, "slave"), f"{slave!r} is the master too, expected another")
        return master, slave

    def _pair_links(self, value: Any, where: Where) -> tuple[str, ...]:
        known = self._world.pair_links
        if value == EVERY and known:
            return known
        (link,) = self._links(value, where) if value != EVERY else ("*",)
        if link not in known:
            expected = f"expected one of {', '.join(known)}" if known else "expected an [[entangled]] link"
            raise self._doc.error(where, f"{show(link)} makes no pairs, {expected}")
        return (link,)

    def _path(self, value: Any, where: Where) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) < 3:
            raise self._doc.error(where, f"got {show(value)}, expected three sites or more along a chain")
        sites = tuple(self._site(one, where) for one in value)
        if len(set(sites)) < len(sites):
            raise self._doc.error(where, "passes a site twice, expected different sites")
        for a, b in pairwise(sites):
            if link_id(a, b) not in self._world.pair_links:
                raise self._doc.error(where, f"no [[entangled]] link between {a!r} and {b!r}, expected one")
        return sites

    def _application(self, value: Any, where: Where) -> str:
        name = self._doc.text(value, where)
        if name != EVERY and name not in self._world.saes:
            raise self._doc.error(
                where, f"unknown application {show(name)}, {choice(name, self._world.saes)}"
            )
        return name

    def _links(self, value: Any, where: Where) -> tuple[str, ...]:
        if value == EVERY and self._world.links:
            return tuple(self._world.links)
        if not isinstance(value, list) or len(value) != 2:
            raise self._doc.error(where, f'got {show(value)}, expected two sites ["a", "b"], or "{EVERY}"')
        a, b = (self._site(one, where) for one in value)
        if a == b or link_id(a, b) not in self._world.links:
            raise self._doc.error(where, f"no link between {a!r} and {b!r}, expected the two ends of one")
        return (link_id(a, b),)

    def _sites(self, value: Any, where: Where) -> tuple[str, ...]:
        return self._world.sites if value == EVERY else (self._site(value, where),)

    def _site(self, value: Any, where: Where) -> str:
        text = self._doc.text(value, where)
        try:
            label = slug(text)
        except ValueError:
            label = text
        if label not in self._world.sites:
            raise self._doc.error(where, f"unknown site {show(value)}, {choice(label, self._world.sites)}")
        return label

    def _check_end(self, links: tuple[str, ...], sites: tuple[str, ...], where: Where) -> None:
        ends = self._world.links[links[0]][0] if len(links) == 1 else ()
        if len(sites) != 1 or sites[0] not in ends:
            expected = " or ".join(map(repr, ends)) or "one link and one of its ends"
            raise self._doc.error(where, f"no module of that link stands there, expected {expected}")

    def _reached(self, links: tuple[str, ...], done: Tampering, where: Where, what: str) -> tuple[str, ...]:
        """The links to which it matters, one at least: else the scenario says less than it seems to."""
        touched = {name for name, value in zip(done._fields, done, strict=True) if value}
        reached = tuple(
            link
            for link in links
            if touched - self._world.links[link][1].deaf
            or (link in self._world.pair_links and touched & FELT_BY_PAIRS)
        )
        if not reached:
            profile = self._world.links[links[0]][1].name
            problem = f"{what} does nothing to profile {profile!r} of {links[0]}, expected another link"
            raise self._doc.error((*where, "link"), problem)
        return reached
