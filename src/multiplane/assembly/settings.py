"""Settings of an installation: command line over environment over `multiplane.toml`, parsed strictly.

The command line hands over what it and the environment say; the file fills the rest. Every refusal names
file and line:

    [up]
    scenario = "ring6"
    rate = 1.0

    [keys]
    default_size_bit = 256
    ttl_s = 86400

    [etsi014]
    unknown_key_status = 404

    [pairing]
    allow_self = false
    [[pairing.rules]]
    master = "madqci:quijote"
    slave = "*"
    allow = false

    [metering]
    rate_bit_per_s = 1e6
    burst_bit = 1000000
    quota_bit = 100000000
    window_s = 3600
    [[metering.rules]]
    master = "madqci:quijote"
    slave = "*"
    rate_bit_per_s = 2048.0
    burst_bit = 8192
    [[metering.quotas]]
    application = "madqci:quijote"
    quota_bit = 1000000

    [units]
    max_size = 1024
    sacrifice_share = 0.1

    [pace]
    policy = "warn"
    late_limit_ms = 500

    [http]
    connections = 1000
    head_s = 10.0

    [feed."alice--bob"]         see feeds/settings.py
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from multiplane.assembly.feeds.settings import SECTION, Feed, read_feeds
from multiplane.kernel.errors import Refused
from multiplane.kernel.urn import covers
from multiplane.runtime.http_limits import Limits
from multiplane.runtime.lateness import LatePolicy
from multiplane.security.policy import ANY, PairingPolicy
from multiplane.service.planes import MeterPolicy, QuotaRule, RateRule
from multiplane.service.planes.units import UnitRules
from multiplane.standards.etsi014 import FaceProfile
from multiplane.twin.scenario import World

FILE_NAME: Final = "multiplane.toml"
LONGEST_GRACE_S: Final = 60.0
_PREFIXES: Final = (
    ("pairing", "rules", ("master", "slave")),
    ("metering", "rules", ("master", "slave")),
    ("metering", "quotas", ("application",)),
)
_TABLES: Final = ("keys", "etsi014", "pairing", "metering", "units", "pace", "http")
_NOT_SAID: Final = ("state", "feeds", "prefixes", *_TABLES)


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What key managers issue.

    Args:
        default_size_bit: size of a key when the request names none; a multiple of 8.
        min_size_bit, max_size_bit: range of sizes, multiples of 8.
        max_number: keys in one request, >= 1.
        ttl_s: lifetime of an uncollected key, simulated seconds > 0.
        max_additional: slaves in one request beside the first, 0 to 64; 0 turns multicast off.
    """

    default_size_bit: int = 256
    min_size_bit: int = 64
    max_size_bit: int = 4096
    max_number: int = 128
    ttl_s: float = 86_400.0
    max_additional: int = 8

    def __post_init__(self) -> None:
        sizes = (self.min_size_bit, self.default_size_bit, self.max_size_bit)
        if not 8 <= sizes[0] <= sizes[1] <= sizes[2]:
            raise ValueError(
                f"keys: expected 8 <= min_size_bit <= default_size_bit <= max_size_bit, got {sizes}"
            )
        if any(size % 8 for size in sizes):
            raise ValueError(f"keys: expected sizes that are multiples of 8, got {sizes}")
        if self.max_number < 1:
            raise ValueError(f"max_number: expected at least 1, got {self.max_number}")
        if not self.ttl_s > 0:
            raise ValueError(f"ttl_s: expected more than 0, got {self.ttl_s}")
        if not 0 <= self.max_additional <= 64:
            raise ValueError(f"max_additional: expected 0 to 64, got {self.max_additional}")


class UpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that `multiplane up` needs to know.

    Args:
        scenario: path of a scenario file or name of a shipped one.
        state: directory of everything that outlives a run, absolute.
        spread: one process per site instead of one for all.
        rate: simulated seconds per wall second, > 0.
        for_s: stop after so many wall seconds; None = until told.
        port_base: first of the listening ports; None = free ones, remembered in `state`.
        seed: makes random numbers repeatable and NOT SECRET; None = entropy of the machine.
        ops_port: port of metrics and probes; None = a free one, remembered in `state`.
        grace_s: wall seconds that requests have to end when the network is told to stop, >= 0.
        log: lines for people, or JSON.
        log_level: the lowest level that is logged.
        access_log: whether each request becomes a log event.
        http: what the servers of key managers take from strangers.
        feeds: links whose key comes from real devices or another network.
        prefixes: of applications, in the rules; each with where it stands (`FILE:LINE: KEY`).
        state_model: how states of quantum devices are kept; None = as the scenario says.
        traffic: whether the applications of the scenario's `[[traffic]]` ask.
        plugins: files with classes of one's own, which a scenario may name.
        kek_command: prints the key-encryption key of the stores; None = none is run (see assembly/kek.py).
    """

    state: Path
    scenario: str = "madqci"
    spread: bool = False
    rate: float = 1.0
    for_s: float | None = None
    port_base: int | None = None
    seed: int | None = None
    ops_port: int | None = None
    grace_s: float = 5.0
    log: Literal["human", "json"] = "human"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: bool = False
    kek_command: str | None = None
    traffic: bool = False
    plugins: tuple[Path, ...] = ()
    state_model: Literal["pairs", "dense"] | None = None
    keys: KeySettings = KeySettings()
    etsi014: FaceProfile = FaceProfile()
    pairing: PairingPolicy = PairingPolicy()
    metering: MeterPolicy = MeterPolicy()
    units: UnitRules = UnitRules()
    pace: LatePolicy = LatePolicy()
    http: Limits = Limits()
    feeds: tuple[Feed, ...] = ()
    prefixes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.spread and self.pace.policy != "warn":
            raise ValueError(
                f"late: expected warn where --spread makes several processes, got {self.pace.policy}"
            )
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"rate: expected more than 0, got {self.rate}")
        if self.for_s is not None and not self.for_s > 0:
            raise ValueError(f"for_s: expected more than 0, got {self.for_s}")
        if self.port_base is not None and not 1024 <= self.port_base <= 65_000:
            raise ValueError(f"port_base: expected 1024 to 65000, got {self.port_base}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")
        if self.ops_port is not None and not 1024 <= self.ops_port <= 65_535:
            raise ValueError(f"ops_port: expected 1024 to 65535, got {self.ops_port}")
        if not 0 <= self.grace_s <= LONGEST_GRACE_S:
            raise ValueError(f"grace_s: expected 0 to {LONGEST_GRACE_S:g}, got {self.grace_s}")


# What each section may hold; lists of tables are written with a trailing [].
_SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("up", *_TABLES, SECTION),
    "up": tuple(name for name in UpSettings.__struct_fields__ if name not in _NOT_SAID),
    "keys": KeySettings.__struct_fields__,
    "etsi014": FaceProfile.__struct_fields__,
    "pairing": PairingPolicy.__struct_fields__,
    "pairing.rules[]": ("master", "slave", "allow"),
    "http": Limits.__struct_fields__,
    "metering": MeterPolicy.__struct_fields__,
    "metering.rules[]": RateRule.__struct_fields__,
    "metering.quotas[]": QuotaRule.__struct_fields__,
    "units": UnitRules.__struct_fields__,
    "pace": LatePolicy.__struct_fields__,
}


def load(state: Path, given: Mapping[str, Any], config: Path | None = None) -> UpSettings:
    """Settings from what the command line and the environment gave and from the settings file.

    Args:
        state: the state directory; its `multiplane.toml` is read if there is one.
        given: fields of UpSettings that were said; None = not said.
        config: another settings file, which then must exist.

    Raises: Refused(`settings.unreadable`, `settings.syntax`, `settings.unknown_key`, `settings.value`).
    """
    path = config or state / FILE_NAME
    document = _read(path) if config or path.exists() else {}
    lines = _line_index(path.read_text(encoding="utf-8")) if document else {}
    for section in ("up", *_TABLES):
        _expect_known(path, lines, section, document.get(section, {}))
    _expect_known(path, lines, "", document)
    for section, name, _ in _PREFIXES:
        for place, rule in enumerate(document.get(section, {}).get(name, ())):
            _expect_known(path, lines, f"{section}.{name}[]", rule, place)
    feeds = read_feeds(document.get(SECTION, {}), path, lines)
    said = {name: value for name, value in given.items() if value is not None}
    tables = {name: document.get(name, {}) for name in _TABLES}
    if late := said.pop("late", None):
        tables["pace"] = {**tables["pace"], "policy": late}
    try:
        settings = msgspec.convert(
            {
                **document.get("up", {}),
                **said,
                "state": str(state.absolute()),
                **tables,
            },
            UpSettings,
            dec_hook=lambda kind, value: kind(value),
        )
    except msgspec.ValidationError as error:
        raise _bad_value(path, lines, error, said) from error
    prefixes = tuple(
        (f"{path}:{lines.get(f'{where}.{key}', 1)}: {where}.{key}", rule[key])
        for section, name, keys in _PREFIXES
        for place, rule in enumerate(document.get(section, {}).get(name, ()))
        for where in (f"{section}.{name}[{place}]",)
        for key in keys
    )
    return msgspec.structs.replace(settings, feeds=feeds, prefixes=prefixes)


def check_prefixes(prefixes: Iterable[tuple[str, str]], world: World) -> None:
    """Whether each rule is about an application of the scenario: one about nobody would be no rule.

    Raises: Refused(`settings.value`).
    """
    names = [f"{world.domain}:{place.name}:{alias}" for place in world.sites for alias in place.saes]
    for at, prefix in prefixes:
        if prefix == ANY or any(covers(prefix, name) for name in names):
            continue
        meant = [name for name in names if prefix.rpartition(":")[2] in name.split(":")] or names
        reason = f"{at}: {prefix!r} is no application of {world.name}, expected '*' or such as '{meant[0]}'"
        raise Refused("settings.value", reason)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Refused("settings.unreadable", f"{path}: expected a readable TOML file: {error}") from error
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = found.group(1) if found else "1"
        raise Refused("settings.syntax", f"{path}:{line}: {error}") from error


def _line_index(text: str) -> dict[str, int]:
    """Line of each section and key: `keys`, `keys.ttl_s`, `pairing.rules[1].allow`."""
    index: dict[str, int] = {}
    section, tables = "", dict[str, int]()
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            name = found.group(1)
            tables[name] = tables.get(name, -1) + 1
            section = f"{name}[{tables[name]}]"
            index[section] = number
        elif found := re.match(r"""\s*\[\s*([\w."'-]+)\s*\]""", line):
            section = re.sub("[\"']", "", found.group(1))
            index[section] = number
        elif found := re.match(r"\s*([\w-]+)\s*=", line):
            index[f"{section}.{found.group(1)}".lstrip(".")] = number
    return index


def _expect_known(path: Path, lines: Mapping[str, int], section: str, table: Any, place: int = 0) -> None:
    """Refuse a table that is none, or holds a key that nobody reads."""
    where = section.replace("[]", f"[{place}]")
    if not isinstance(table, dict):
        reason = f"{path}:{lines.get(where, 1)}: {where}: expected a table, got {table!r}"
        raise Refused("settings.value", reason)
    for key in table:
        if key not in _SECTIONS[section]:
            line = lines.get(f"{where}.{key}".lstrip("."), lines.get(where, 1))
            near = get_close_matches(key, _SECTIONS[section], 1)
            hint = (
                f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(_SECTIONS[section])}"
            )
            inside = f" in [{section}]" if section else ""
            raise Refused("settings.unknown_key", f"{path}:{line}: unknown key `{key}`{inside}: {hint}")


def _bad_value(
    path: Path, lines: Mapping[str, int], error: msgspec.ValidationError, said: Mapping[str, Any]
) -> Refused:
    """The refusal of a wrong value: at its line of the file, or as the option that gave it."""
    text, _, at = str(error).partition(" - at `$.")
    key = at.rstrip("`") or text.split(":")[0]
    if key in said:
        return Refused("settings.value", f"{key}: {text.removeprefix(key + ': ')}")
    candidates = (f"{key}.{text.split(':')[0]}", key, f"up.{key}", key.rsplit(".", 1)[0])
    line = next((lines[name] for name in candidates if name in lines), 1)
    return Refused("settings.value", f"{path}:{line}: {key}: {text.removeprefix(key + ': ')}")
