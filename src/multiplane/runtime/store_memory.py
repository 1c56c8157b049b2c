"""A store that forgets: the semantics of the durable one, inline and deterministic, for tests and studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from multiplane.kernel.errors import Faulty
from multiplane.kernel.ports import Change, Faults, Put


class MemoryStore:
    """Rows in a dictionary; each commit is a transaction of its own, done on the caller's stack."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._watchers: dict[str, Callable[[], None]] = {}
        self._rows: defaultdict[tuple[str, str], dict[str, bytes]] = defaultdict(dict)

    def scan(self, owner: str, kind: str) -> list[tuple[str, bytes]]:
        """All rows of one kind of one owner, in order of key."""
        return sorted(self._rows.get((owner, kind), {}).items())

    async def commit(self, owner: str, changes: Sequence[Change]) -> None:
        """Apply all changes or none. Raises: Faulty(`store.commit_failed`)."""
        try:
            self._faults.reach("commit.before")
            for change in changes:
                rows = self._rows[owner, change.kind]
                if isinstance(change, Put):
                    rows[change.key] = change.value
                else:
                    rows.pop(change.key, None)
            self._faults.reach("commit.after")
        except Faulty as error:
            if owner in self._watchers:
                self._watchers[owner]()
            raise Faulty("store.commit_failed", f"commit of {owner}: {error.reason}") from error

    def watch(self, owner: str, failed: Callable[[], None]) -> None:
        """Call `failed` when a commit of `owner` has failed, before the caller is told."""
        self._watchers[owner] = failed
