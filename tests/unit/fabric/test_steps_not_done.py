"""What a device that did not do a step is told as: wait, gone, or cannot be."""

from __future__ import annotations

import pytest

from multiplane.api.instructions import Report
from multiplane.api.states import Step
from multiplane.fabric.resource.memories import why_not
from multiplane.kernel.errors import Busy, MultiplaneError, Refused


@pytest.mark.parametrize(
    ("told", "kind", "code"),
    [
        ("instruction.memory_full", Busy, "fabric.no_memory"),
        ("instruction.expired", Refused, "fabric.expired"),
        ("instruction.value", Refused, "fabric.step"),
    ],
)
def test_a_full_memory_is_no_refusal(told: str, kind: type[MultiplaneError], code: str) -> None:
    step = Step(do="prepare", on=("data1",), state="+")
    report = Report(request="r", node="a", due_ns=0, ok=False, code=told, reason="none is free")
    error = why_not(step, report)
    assert isinstance(error, kind)
    assert (error.code, error.reason) == (code, "do: prepare on data1: none is free")
