"""The clients' own book of keys: what was answered, what was collected, what is in doubt.

It knows nothing of the network and holds it to one promise: every key that a master was answered can be
collected by its slave exactly once, with the same bytes. Only a request that was open when its server was
killed may have happened or not; then at most once still holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.scenes.tools.client014 import NOT_FOUND, Key, Said


@dataclass(slots=True)
class Entry:
    """One key that an `enc_keys` answered."""

    key_id: str
    key: bytes
    master: str
    slave: str
    collected: int = 0
    in_doubt: bool = False
    burnt: bool = False
    open: bool = False

    def __repr__(self) -> str:
        fate = f"collected={self.collected} in_doubt={self.in_doubt} burnt={self.burnt}"
        return f"Entry({self.key_id} {self.master}->{self.slave} {fate})"


class Book:
    """Every key of a scene, over all restarts of the network.

    Args:
        faults_are_doubtful: a `dec_keys` that was answered with a fault of the server may have happened or
            not (a commit that reached the disk but was reported as failed); else it consumes nothing.
    """

    def __init__(self, *, faults_are_doubtful: bool = False) -> None:
        self.faults_are_doubtful = faults_are_doubtful
        self.entries: dict[str, Entry] = {}
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.open_at: Counter[str] = Counter()
        self._bytes: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self.entries)

    @contextmanager
    def open_request(self, site: str) -> Iterator[None]:
        """Mark a request to `site` as open for the length of the block."""
        self.open_at[site] += 1
        try:
            yield
        finally:
            self.open_at[site] -= 1

    def problem(self, text: str) -> None:
        """Write down a broken promise."""
        self.problems.append(text)

    # --- enc ----------------------------------------------------------------------------------

    def issued(self, master: str, slave: str, keys: Iterable[Key]) -> None:
        """A master was answered these keys."""
        for key in keys:
            self.counts["issued"] += 1
            if key.key_id in self.entries:
                self.problem(f"key id issued twice: {key.key_id} to {master} for {slave}")
                continue
            twin = self._bytes.get(key.key) if len(key.key) >= 16 else None
            if twin is not None:
                self.problem(f"the same key bytes issued under two ids: {twin} and {key.key_id}")
            self._bytes[key.key] = key.key_id
            self.entries[key.key_id] = Entry(key.key_id, key.key, master, slave)

    # --- dec ----------------------------------------------------------------------------------

    def collecting(self, key_ids: Iterable[str]) -> None:
        """A `dec_keys` for these keys is about to be sent."""
        for key_id in key_ids:
            self.entries[key_id].open = True

    def collected(self, keys: Iterable[Key]) -> None:
        """A slave was answered these keys."""
        for key in keys:
            entry = self.entries[key.key_id]
            entry.open = False
            entry.collected += 1
            self.counts["collected"] += 1
            if key.key != entry.key:
                self.problem(f"wrong bytes: {entry}, key {self._number(entry)} of its pair")
            if entry.collected > 1:
                self.problem(f"delivered twice: {entry}")
            if entry.burnt:
                self.problem(f"delivered after it was said to be gone: {entry}")

    def _number(self, wanted: Entry) -> int:
        """Which key of its pair it was, in order of issue."""
        pair = (wanted.master, wanted.slave)
        same = [entry for entry in self.entries.values() if (entry.master, entry.slave) == pair]
        return next(number for number, entry in enumerate(same) if entry is wanted)

    def collect_lost(self, key_ids: Iterable[str]) -> None:
        """The connection was lost while a `dec_keys` for these keys was open."""
        for key_id in key_ids:
            entry = self.entries[key_id]
            entry.open, entry.in_doubt = False, True
            self.counts["in doubt"] += 1

    def collect_not_sent(self, key_ids: Iterable[str]) -> None:
        """Nothing left this side: the keys are as they were."""
        for key_id in key_ids:
            self.entries[key_id].open = False

    def collect_refused(self, key_ids: Sequence[str], said: Said) -> None:
        """A `dec_keys` was answered with an error; 503 consumes nothing, 400 must have a reason."""
        entries = [self.entries[key_id] for key_id in key_ids]
        for entry in entries:
            entry.open = False
            entry.in_doubt |= said.faulty and self.faults_are_doubtful
        self.counts["dec faulty" if said.faulty else f"dec {said.status}"] += 1
        if said.status == 503:
            return
        if said.status == 401:
            self.problem(f"refused its own key with 401: {entries}")
            return
        if said.message != NOT_FOUND:
            self.problem(f"400 with another text: {said.message!r} for {entries}")
        excused = [entry for entry in entries if entry.in_doubt or entry.collected]
        if not excused:
            self.problem(f"lost: answered to the master, never asked for, not found: {entries}")
        if len(entries) == 1:
            entries[0].burnt = True

    # --- verdicts -----------------------------------------------------------------------------

    def outstanding(self) -> list[Entry]:
        """Keys that no `dec_keys` has settled: not collected, not known to be gone."""
        return [e for e in self.entries.values() if not e.collected and not e.burnt and not e.open]

    def in_doubt(self) -> list[Entry]:
        """Outstanding keys whose `dec_keys` was open when the connection was lost."""
        return [entry for entry in self.outstanding() if entry.in_doubt]

    def delivered_bit(self, master: str, slave: str) -> tuple[int, int]:
        """Least and most bits that slave can have been delivered of master's keys."""
        keys = [e for e in self.entries.values() if (e.master, e.slave) == (master, slave)]
        sure = sum(len(e.key) * 8 for e in keys if e.collected)
        doubt = sum(len(e.key) * 8 for e in keys if e.in_doubt and not e.collected)
        return sure, sure + doubt

    def verify(self, *, at_least: int) -> None:
        """Raises AssertionError on any broken promise, or when too little happened to say anything."""
        assert not self.problems, f"{len(self.problems)} broken promises: " + "; ".join(self.problems[:10])
        done = sum(1 for entry in self.entries.values() if entry.collected)
        assert done >= at_least, f"only {done} keys collected, expected {at_least}: {dict(self.counts)}"

    def verify_settled(self) -> None:
        """Raises AssertionError when a key is neither collected nor excused by an open request."""
        left = self.outstanding()
        assert not left, f"{len(left)} keys never collected: {left[:5]}"

    def summary(self) -> str:
        """One line for the log of a scene."""
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return f"{len(self.entries)} keys; {counts}; {len(self.problems)} problems"
