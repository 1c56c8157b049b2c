"""How much key an application may be issued: a token bucket for each pair, a quota for each master. Pure.

A bucket is one number, the time at which it will be full again, so that the elapsed time fills it and a full
one need not be kept. A request larger than the burst is granted by a full bucket and leaves it in debt: the
rate holds, and every wait that is told is true.

*Source*: the bucket is the virtual scheduling algorithm of ITU-T I.371, annex A.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from multiplane.kernel.errors import Busy, Refused
from multiplane.kernel.ports import Put
from multiplane.kernel.quantity import NS_PER_S
from multiplane.kernel.urn import profile
from multiplane.security.policy import matches
from multiplane.service.planes import MeterPolicy

METER_KIND: Final = "meter"
KEPT_BUCKETS: Final = 4096
"""From so many on, those that are full are let go of."""


class Bucket:
    """Tokens of one pair.

    Args: rate_bit_per_s, burst_bit: > 0.
    """

    __slots__ = ("_at_ns", "_burst_ns", "_full_ns", "_rate_bit_per_s")

    def __init__(self, rate_bit_per_s: float, burst_bit: int) -> None:
        self._rate_bit_per_s = rate_bit_per_s
        self._burst_ns = self._filling_ns(burst_bit)
        self._full_ns = self._at_ns = 0

    def _filling_ns(self, size_bit: int) -> int:
        return -int(-size_bit * NS_PER_S // self._rate_bit_per_s)

    def _move_to(self, now_ns: int) -> None:
        """A clock that was set back takes the time at which the bucket is full with it."""
        self._full_ns -= max(0, self._at_ns - now_ns)
        self._at_ns = now_ns

    def is_full(self, now_ns: int) -> bool:
        """Whether it is as good as new."""
        return self._full_ns <= now_ns

    def wait_ns(self, size_bit: int, now_ns: int) -> int:
        """How long until `size_bit` may be taken if nobody takes any before; 0 = now."""
        self._move_to(now_ns)
        needed_ns = min(self._filling_ns(size_bit), self._burst_ns)
        return max(0, max(self._full_ns - now_ns, 0) + needed_ns - self._burst_ns)

    def take(self, size_bit: int, now_ns: int) -> None:
        """Take tokens; `wait_ns` must have said 0."""
        self._move_to(now_ns)
        self._full_ns = max(self._full_ns, now_ns) + self._filling_ns(size_bit)

    def give_back(self, size_bit: int) -> None:
        """Undo a `take`."""
        self._full_ns -= self._filling_ns(size_bit)


class _Use(msgspec.Struct, array_like=True):
    """What a master was issued in one window of its quota."""

    window: int
    used_bit: int


class Charge(NamedTuple):
    """What was taken for one request."""

    master: str
    slaves: tuple[str, ...]
    size_bit: int
    window: int


class Meter:
    """Buckets and quotas of one key manager."""

    def __init__(self, policy: MeterPolicy) -> None:
        self._policy = policy
        self._window_ns = policy.window_s * NS_PER_S
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._limits_bit: dict[str, int] = {}
        self._uses: dict[str, _Use] = {}
        self._unwritten: set[str] = set()

    # --- charging ------------------------------------------------------------------------------------------

    def charge(self, master: str, slaves: tuple[str, ...], size_bit: int, now_ns: int) -> Charge:
        """Take `size_bit` for each pair of `master` and a slave, or nothing.

        Raises: Busy(`key.over_rate`, `key.over_quota`), Refused(`key.number`).
        """
        use = self._check_quota(master, size_bit * len(slaves), now_ns)
        buckets = [self._bucket(master, slave, now_ns) for slave in slaves]
        wait_ns = max((bucket.wait_ns(size_bit, now_ns) for bucket in buckets), default=0)
        if wait_ns:
            reason = f"the rate of keys for this pair is reached, expected {size_bit} bits later"
            raise Busy("key.over_rate", reason, retry_after_ns=wait_ns)
        for bucket in buckets:
            bucket.take(size_bit, now_ns)
        self._add(master, use, size_bit * len(slaves))
        return Charge(master, slaves, size_bit, use.window)

    def give_back(self, charge: Charge) -> None:
        """The request was not granted after all."""
        for slave in charge.slaves:
            bucket = self._buckets.get((charge.master, slave))
            if bucket is not None:
                bucket.give_back(charge.size_bit)
        use = self._uses.get(charge.master)
        if use is not None and use.window == charge.window:
            self._add(charge.master, use, -charge.size_bit * len(charge.slaves))

    def _check_quota(self, master: str, size_bit: int, now_ns: int) -> _Use:
        """The use of the window that is open; a clock that was set back opens no older one."""
        use = self._uses.get(master, _Use(0, 0))
        window = now_ns // self._window_ns
        if window > use.window:
            use = _Use(window, 0)
        limit_bit = self._limit_bit(master)
        if limit_bit and size_bit > limit_bit:
            raise Refused(
                "key.number",
                f"number: expected at most {limit_bit} bits at once, the quota of the caller, got {size_bit}",
            )
        if limit_bit and use.used_bit + size_bit > limit_bit:
            raise Busy(
                "key.over_quota",
                f"the quota of {limit_bit} bits in {self._policy.window_s} s leaves "
                f"{max(0, limit_bit - use.used_bit)}, expected at least {size_bit}",
                retry_after_ns=(use.window + 1) * self._window_ns - now_ns,
            )
        return use

    def _add(self, master: str, use: _Use, size_bit: int) -> None:
        if self._limit_bit(master):
            use.used_bit += size_bit
            self._uses[master] = use
            self._unwritten.add(master)

    def _limit_bit(self, master: str) -> int:
        if master not in self._limits_bit:
            name = profile(master)
            rules = (rule.quota_bit for rule in self._policy.quotas if matches(rule.application, name))
            self._limits_bit[master] = next(rules, self._policy.quota_bit)
        return self._limits_bit[master]

    def _bucket(self, master: str, slave: str, now_ns: int) -> Bucket:
        bucket = self._buckets.get((master, slave))
        if bucket is None:
            if len(self._buckets) >= KEPT_BUCKETS:
                self._buckets = {k: held for k, held in self._buckets.items() if not held.is_full(now_ns)}
            bucket = self._buckets[master, slave] = Bucket(*self._rate(master, slave))
        return bucket

    def _rate(self, master: str, slave: str) -> tuple[float, int]:
        policy = self._policy
        for rule in policy.rules:
            if matches(rule.master, profile(master)) and matches(rule.slave, profile(slave)):
                return rule.rate_bit_per_s, rule.burst_bit
        return policy.rate_bit_per_s, policy.burst_bit

    # --- at rest -------------------------------------------------------------------------------------------

    def load(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """What was issued before this start, as far as it was written."""
        self._uses = {key: msgspec.msgpack.decode(value, type=_Use) for key, value in rows}

    def unwritten(self) -> list[Put]:
        """Rows of quotas used since they were written: to go along with the next commit."""
        return [Put(METER_KIND, name, self._row(name)) for name in sorted(self._unwritten)]

    def written(self, rows: Iterable[Put]) -> None:
        """The rows of `unwritten` are durable."""
        for row in rows:
            if self._row(row.key) == row.value:
                self._unwritten.discard(row.key)

    def _row(self, master: str) -> bytes:
        return msgspec.msgpack.encode(self._uses[master])
