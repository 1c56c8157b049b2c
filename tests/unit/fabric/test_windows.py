"""Reservations that close, and a line in which everybody has his turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.fabric.edc_kit import order

from multiplane.fabric.control.windows import Line, Windows, needs
from multiplane.fabric.planes import Circuit, Job


def job(order_id: str, *paths: tuple[str, ...], window: int = 1) -> Job:
    circuits = tuple(
        Circuit(
            circuit=f"{order_id}/{number}",
            order_id=order_id,
            binding=1,
            path=path,
            levels=(0,) * (len(path) - 2),
            rounds=(0,) * (len(path) - 1),
            window=(window,) * (len(path) - 1),
            cutoff_ns=(0,) * (len(path) - 1),
            fidelity=0.9,
        )
        for number, path in enumerate(paths)
    )
    return Job(order_id=order_id, binding=1, kind="ghz", sites=("a", "b"), circuits=circuits)


def test_circuits_of_one_job_that_share_a_link_need_the_sum() -> None:
    assert needs(job("o", ("a", "b", "c"), ("d", "b", "a"), window=2)) == {"a--b": 4, "b--c": 2, "b--d": 2}


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["abc", "cba", "bd", ""]), st.integers(1, 3))))
def test_what_is_set_aside_is_what_the_jobs_need_and_nothing_stays(steps: list[tuple[int, str, int]]) -> None:
    windows, live = Windows(), dict[str, Job]()
    for number, path, window in steps:
        name = f"o{number}"
        if path:
            live[name] = job(name, tuple(path), window=window)
            windows.reserve(name, live[name])
        else:
            live.pop(name, None)
            windows.release(name)
        for link in ("a--b", "b--c", "b--d"):
            assert windows.taken(link) == sum(needs(each).get(link, 0) for each in live.values())
        assert windows.memories == 2 * sum(sum(needs(each).values()) for each in live.values())
    for name in live:
        windows.release(name)
    assert windows.memories == windows.orders == 0


def turns(line: Line, count: int) -> list[str]:
    """Who is served when one after the other leaves."""
    served = []
    for _ in range(count):
        first = next(line.in_order(lambda _: True))
        line.leave(first, served=True)
        served.append(first)
    return served


def test_many_orders_of_one_pair_do_not_keep_another_waiting() -> None:
    line = Line()
    for number in range(6):
        line.join(order(f"greedy{number}", "a", "b"))
    assert turns(line, 2) == ["greedy0", "greedy1"]
    line.join(order("modest0", "c", "d"))
    line.join(order("modest1", "c", "d"))
    assert turns(line, 4) == ["greedy2", "modest0", "greedy3", "modest1"]
    line.join(order("urgent", "a", "b", priority=1))
    assert turns(line, 3) == ["urgent", "greedy4", "greedy5"]
    assert len(line) == 0


def test_only_those_who_may_go_are_asked() -> None:
    line = Line()
    for name in ("one", "two", "three"):
        line.join(order(name, "a", "b"))
    assert list(line.in_order(lambda name: name != "two")) == ["one", "three"]
    assert "two" in line
    line.leave("two")
    line.leave("two")
    assert "two" not in line
