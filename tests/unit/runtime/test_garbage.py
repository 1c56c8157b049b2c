"""When a process looks for garbage after it has built a network."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from multiplane.runtime import garbage
from multiplane.runtime.garbage import THRESHOLDS, built_to_stay


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the collector as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(("size", "seldom"), [(2_000, True), (500, False)])
def test_only_a_large_network_is_looked_through_seldom(
    size: int, seldom: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "LARGE", 1_000)
    before = gc.get_threshold()
    with built_to_stay():
        assert not gc.isenabled()
        kept: list[list[int]] = [[] for _ in range(size)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(kept)
    assert gc.get_threshold() == (THRESHOLDS if seldom else before)
