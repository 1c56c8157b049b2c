"""What happens in a world while it runs: traffic, faults, attackers, and when. Words only.

Times count from the start of a run, in nanoseconds; `docs/formats/scenario.md` says what each word means.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from multiplane.physics.tampered_bb84 import CLOCK_JITTER_PS

PROCESSES: Final = ("constant", "poisson", "diurnal", "bursts")
FAULTS: Final = ("cut", "drift", "device", "clock", "site")
ATTACKS: Final = (
    "intercept-resend",
    "entangling-probe",
    "photon-number-splitting",
    "blinding",
    "jamming",
    "tap",
    "trojan-horse",
)
EVERY: Final = "*"
"""Stands for every application; the reader writes links and sites out."""


class Happening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all of them."""


class When(Happening, frozen=True, kw_only=True, omit_defaults=True):
    """At stated times, every so often, or by chance; without any of these once, from `from_ns` to `until_ns`.

    Args:
        at_ns: stated times, ascending.
        every_ns: period, from `from_ns` on; 0 = not periodic.
        rate_per_h: times an hour while it is not happening, by chance; 0 = not by chance.
        from_ns, until_ns: it neither begins before the first nor lasts beyond the second; None = no end.
        duration_ns: of each; None = until `until_ns`.
    """

    at_ns: tuple[int, ...] = ()
    every_ns: int = 0
    rate_per_h: float = 0.0
    from_ns: int = 0
    until_ns: int | None = None
    duration_ns: int | None = None


class Traffic(Happening, frozen=True, kw_only=True, omit_defaults=True):
    """Requests of applications.

    Args:
        kind: what is asked for: keys, or pairs of links, measured as they are made.
        master, slave: of keys: labels of applications, or `EVERY`; those of one site do not ask one another.
        links: of pairs: link ids; path: or sites along a chain of links, between whose ends they are made.
        size_bit: of a key, 0 = as the network has it; number: keys or pairs in a request.
        process: how requests arrive, one of `PROCESSES`.
        rate_per_s: of requests of two applications, or on a link: mean, of bursts while one lasts.
        swing_ratio, period_ns, peak_ns: of `diurnal`, swing in (0, 1]: the rate is
            `rate_per_s` x (1 + swing x cos(2 pi (t - peak) / period)).
        burst_ns, pause_ns: of `bursts`: mean lengths, exponential.
        from_ns, until_ns: when there is any; None = no end.
    """

    master: str = ""
    slave: str = ""
    process: str
    rate_per_s: float
    kind: Literal["keys", "pairs"] = "keys"
    size_bit: int = 0
    number: int = 1
    swing_ratio: float = 0.0
    period_ns: int = 0
    peak_ns: int = 0
    burst_ns: int = 0
    pause_ns: int = 0
    from_ns: int = 0
    until_ns: int | None = None
    links: tuple[str, ...] = ()
    path: tuple[str, ...] = ()


class Fault(Happening, frozen=True, kw_only=True, omit_defaults=True):
    """Something breaks, on each of the links or sites on its own.

    Args:
        kind: one of `FAULTS`.
        links: link ids; sites: labels; of `device` one link and the site of the module.
        loss_db, flip_probability: of `drift`, reached at the end of the ramp.
        offset_ps, jitter_ps: of `clock`: how far the receiver's clock is off, and spread of arrival.
        ramp_ns: time in which `drift` and `clock` reach their full size.
    """

    kind: str
    when: When
    links: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    loss_db: float = 0.0
    flip_probability: float = 0.0
    offset_ps: float = 0.0
    jitter_ps: float = CLOCK_JITTER_PS
    ramp_ns: int = 0


class Attacker(Happening, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody tampers with the light, on each of the links on its own.

    Args:
        kind: one of `ATTACKS`.
        share: of the pulses (intercept-resend, splitting), of the time (blinding), or 1 - overlap of the
            states of the probe, in (0, 1].
        background_probability: of `jamming`: clicks of an empty pulse, added.
        loss_db: of `tap`; leak_mu: of `trojan-horse`, photons that come back from a pulse.
    """

    kind: str
    when: When
    links: tuple[str, ...]
    share: float = 1.0
    background_probability: float = 0.0
    loss_db: float = 0.0
    leak_mu: float = 0.0
