"""Durations: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.duration import MAX_NS, duration_ns, duration_text


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("90s", 90 * 10**9),
        ("1h30m", 5_400 * 10**9),
        ("1.5h", 5_400 * 10**9),
        ("2d3h4m5s6ms7us8ns", 183_845_006_007_008),
        ("250ms", 250_000_000),
        ("0s", 0),
        ("0.000000001s", 1),
    ],
)
def test_durations_are_read(text: str, expected_ns: int) -> None:
    assert duration_ns(text) == expected_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "90",
        "1m1h",
        "1h1h",
        "-1s",
        "1 h",
        "1h ",
        "1.s",
        "1e3s",
        "½h",
        "١s",
        "1h30",
        "0.5ns",
        "3651d",
        "1x",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as 90s"):
        duration_ns(text)


@given(st.integers(0, MAX_NS))
def test_what_is_written_is_read(span_ns: int) -> None:
    assert duration_ns(duration_text(span_ns)) == span_ns


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        span_ns = duration_ns(text)
    except ValueError:
        return
    assert duration_ns(duration_text(span_ns)) == span_ns
