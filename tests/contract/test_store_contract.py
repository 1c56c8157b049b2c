"""One contract for every driver of the Store port: SQLite with a thread, SQLite inline, memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from multiplane.kernel.errors import Faulty
from multiplane.kernel.ports import Change, Delete, Faults, Put
from multiplane.runtime.store_memory import MemoryStore
from multiplane.runtime.store_sqlite import SqliteStore

AnyStore = SqliteStore | MemoryStore
DRIVERS: Final[dict[str, Callable[[Path, Faults], AnyStore]]] = {
    "sqlite": lambda folder, faults: SqliteStore(folder / "state.db", faults),
    "sqlite-inline": lambda folder, faults: SqliteStore(folder / "state.db", faults, inline=True),
    "memory": lambda folder, faults: MemoryStore(faults),
}


class Switch:
    """Faults that fail at `point` as long as it is set."""

    point = ""

    def reach(self, point: str) -> None:
        if point == self.point:
            raise Faulty("fault.injected", f"{point} was told to fail")


def close(store: AnyStore) -> None:
    if isinstance(store, SqliteStore):
        store.close()


@pytest.fixture
def faults() -> Switch:
    return Switch()


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path, faults: Switch) -> Iterator[AnyStore]:
    made = DRIVERS[request.param](tmp_path, faults)
    yield made
    close(made)


class TestStore:
    def test_what_was_never_written_is_an_empty_list(self, store: AnyStore) -> None:
        assert store.scan("a", "chunk") == []

    def test_rows_come_back_in_order_of_key(self, store: AnyStore) -> None:
        async def scene() -> None:
            keys = ["b", "a", "é", "Z", "", "a\x00", "𝄞", "\uffff", "10", "9"]
            await store.commit("a", [Put("chunk", key, key.encode()) for key in keys])
            assert store.scan("a", "chunk") == [(key, key.encode()) for key in sorted(keys)]

        asyncio.run(scene())

    def test_a_row_is_overwritten_and_deleted(self, store: AnyStore) -> None:
        async def scene() -> None:
            await store.commit("a", [Put("chunk", "1", b"one"), Put("chunk", "2", b"")])
            await store.commit("a", [Put("chunk", "1", b"another")])
            assert store.scan("a", "chunk") == [("1", b"another"), ("2", b"")]
            await store.commit("a", [Delete("chunk", "1"), Delete("chunk", "absent")])
            assert store.scan("a", "chunk") == [("2", b"")]

        asyncio.run(scene())

    def test_the_last_change_of_one_commit_to_a_row_counts(self, store: AnyStore) -> None:
        async def scene() -> None:
            await store.commit(
                "a",
                [
                    *(Put("k", "put last", b"1"), Delete("k", "put last"), Put("k", "put last", b"2")),
                    *(Put("k", "gone", b"1"), Delete("k", "gone")),
                ],
            )
            assert store.scan("a", "k") == [("put last", b"2")]

        asyncio.run(scene())

    def test_owners_and_kinds_are_apart(self, store: AnyStore) -> None:
        async def scene() -> None:
            await store.commit("a", [Put("x", "1", b"ax"), Put("y", "1", b"ay")])
            await store.commit("b", [Put("x", "1", b"bx"), Delete("y", "1")])
            scans = [store.scan(owner, kind) for owner, kind in ("ax", "ay", "bx", "by")]
            assert scans == [[("1", b"ax")], [("1", b"ay")], [("1", b"bx")], []]

        asyncio.run(scene())

    def test_a_commit_of_nothing_succeeds(self, store: AnyStore) -> None:
        asyncio.run(store.commit("a", ()))
        assert store.scan("a", "chunk") == []

    def test_a_commit_keeps_what_it_was_called_with(self, store: AnyStore) -> None:
        async def scene() -> None:
            changes: list[Change] = [Put("k", "1", b"1")]
            task = asyncio.create_task(store.commit("a", changes))
            await asyncio.sleep(0)
            changes.append(Put("k", "2", b"2"))
            await task
            assert store.scan("a", "k") == [("1", b"1")]

        asyncio.run(scene())

    def test_concurrent_commits_take_effect_in_order_of_call(self, store: AnyStore) -> None:
        async def scene() -> None:
            await asyncio.gather(
                *(
                    store.commit("a", [Put("k", "shared", b"%d" % n), Put("k", f"own {n:03}", b"")])
                    for n in range(200)
                )
            )
            rows = dict(store.scan("a", "k"))
            assert rows.pop("shared") == b"199"
            assert sorted(rows) == [f"own {n:03}" for n in range(200)]

        asyncio.run(scene())

    def test_a_failed_transaction_leaves_nothing_and_tells_every_waiter(
        self, store: AnyStore, faults: Switch
    ) -> None:
        async def scene() -> None:
            await store.commit("a", [Put("k", "kept", b"old"), Put("k", "stays", b"")])
            faults.point = "commit.before"
            outcomes = await asyncio.gather(
                *(
                    store.commit("a", [Put("k", "kept", b"new"), Put("k", f"{n}", b""), Delete("k", "stays")])
                    for n in range(20)
                ),
                return_exceptions=True,
            )
            assert {o.code for o in outcomes if isinstance(o, Faulty)} == {"store.commit_failed"}
            assert all(isinstance(outcome, Faulty) for outcome in outcomes)
            assert len({id(outcome) for outcome in outcomes}) == 20
            assert store.scan("a", "k") == [("kept", b"old"), ("stays", b"")]
            faults.point = ""
            await store.commit("a", [Put("k", "kept", b"newer")])
            assert store.scan("a", "k") == [("kept", b"newer"), ("stays", b"")]

        asyncio.run(scene())

    def test_a_failure_after_the_commit_is_durable_and_still_a_failure(
        self, store: AnyStore, faults: Switch
    ) -> None:
        async def scene() -> None:
            faults.point = "commit.after"
            with pytest.raises(Faulty, match=r"store\.commit_failed"):
                await store.commit("a", [Put("k", "1", b"1")])
            assert store.scan("a", "k") == [("1", b"1")]

        asyncio.run(scene())

    def test_what_waited_behind_a_failed_commit_fails_too_and_the_owner_is_told_first(
        self, store: AnyStore, faults: Switch
    ) -> None:
        async def scene() -> None:
            heard: list[str] = []
            store.watch("a", lambda: heard.append("watcher"))
            faults.point = "commit.before"

            async def first() -> None:
                with pytest.raises(Faulty):
                    await store.commit("a", [Put("k", "1", b"")])
                heard.append("waiter")

            waiting = asyncio.create_task(first())
            behind = []
            while not heard:
                await asyncio.sleep(0)
                if not heard:
                    behind.append(asyncio.create_task(store.commit("a", [Put("k", "2", b"")])))
            faults.point = ""
            await waiting
            outcomes = await asyncio.gather(*behind, return_exceptions=True)
            assert heard[:2] == ["watcher", "waiter"]
            # The last one may have begun after its owner was told: a new start, which may succeed.
            assert all(isinstance(outcome, Faulty) for outcome in outcomes[:-1])
            last = [("2", b"")] if outcomes and outcomes[-1] is None else []
            assert store.scan("a", "k") == last
            await store.commit("a", [Put("k", "3", b"")])
            assert store.scan("a", "k") == [*last, ("3", b"")]

        asyncio.run(scene())

    def test_a_cancelled_waiter_harms_no_other(self, store: AnyStore) -> None:
        async def scene() -> None:
            tasks = [asyncio.create_task(store.commit("a", [Put("k", f"{n}", b"")])) for n in range(9)]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(not task.cancelled() for n, task in enumerate(tasks) if n % 3)
            await store.commit("a", [Put("k", "later", b"")])
            kept = {key for key, _ in store.scan("a", "k")}
            assert kept >= {"1", "2", "4", "5", "7", "8", "later"}

        asyncio.run(scene())


OWNERS = st.sampled_from(["a", "b"])
CHANGES = st.lists(
    st.one_of(
        st.builds(
            Put, st.sampled_from(["x", "y"]), st.text(alphabet="01é\x00", max_size=2), st.binary(max_size=9)
        ),
        st.builds(Delete, st.sampled_from(["x", "y"]), st.text(alphabet="01é\x00", max_size=2)),
    ),
    max_size=4,
)
Rows = dict[tuple[str, str, str], bytes]


class Model(RuleBasedStateMachine):
    """The store against a dictionary; commits fail before or after, and the file is opened again."""

    driver: str

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.faults = Switch()
        self.rows: Rows = {}
        self.runner = asyncio.Runner()
        self.store = self.make()

    def make(self) -> AnyStore:
        return DRIVERS[self.driver](Path(self.folder.name), self.faults)

    def apply(self, owner: str, changes: list[Change]) -> None:
        for change in changes:
            if isinstance(change, Put):
                self.rows[owner, change.kind, change.key] = change.value
            else:
                self.rows.pop((owner, change.kind, change.key), None)

    @rule(owner=OWNERS, changes=CHANGES)
    def commit(self, owner: str, changes: list[Change]) -> None:
        self.runner.run(self.store.commit(owner, changes))
        self.apply(owner, changes)

    @rule(commits=st.lists(st.tuples(OWNERS, CHANGES), min_size=2, max_size=6))
    def commit_together(self, commits: list[tuple[str, list[Change]]]) -> None:
        async def together() -> None:
            await asyncio.gather(*(self.store.commit(owner, changes) for owner, changes in commits))

        self.runner.run(together())
        for owner, changes in commits:
            self.apply(owner, changes)

    @rule(owner=OWNERS, changes=CHANGES, point=st.sampled_from(["commit.before", "commit.after"]))
    def fail(self, owner: str, changes: list[Change], point: str) -> None:
        self.faults.point = point
        with pytest.raises(Faulty, match=r"store\.commit_failed"):
            self.runner.run(self.store.commit(owner, changes))
        self.faults.point = ""
        if point == "commit.after":
            self.apply(owner, changes)

    @precondition(lambda self: self.driver != "memory")
    @rule()
    def reopen(self) -> None:
        close(self.store)
        self.store = self.make()

    @invariant()
    def same_as_the_dictionary(self) -> None:
        for owner in "ab":
            for kind in "xy":
                expected = sorted(
                    (key, value) for (o, k, key), value in self.rows.items() if (o, k) == (owner, kind)
                )
                assert self.store.scan(owner, kind) == expected

    def teardown(self) -> None:
        if hasattr(self, "store"):
            close(self.store)
            self.runner.close()
            self.folder.cleanup()


@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
def test_any_sequence_leaves_what_a_dictionary_would_hold(driver: str) -> None:
    machine: type[Any] = type("Machine", (Model,), {"driver": driver})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=30, stateful_step_count=20, deadline=None)
    )
