"""Conversions, against values known from elsewhere."""

from __future__ import annotations

import pytest

from multiplane.kernel import quantity


def test_times() -> None:
    assert quantity.ns_from_s(1.5) == 1_500_000_000
    assert quantity.ns_from_s(-0.25) == -250_000_000
    assert quantity.s_from_ns(250_000_000) == 0.25
    assert quantity.ps_from_s(1e-9) == 1_000
    assert quantity.ps_from_s(3600.0) == 3_600_000_000_000_000
    assert quantity.ps_from_ns(1_750_708_945_123_456_789) == 1_750_708_945_123_456_789_000
    assert quantity.NS_PER_S == 1_000 * quantity.NS_PER_MS
    assert quantity.PS_PER_S == quantity.PS_PER_NS * quantity.NS_PER_S


def test_fibre_delay() -> None:
    assert quantity.delay_ns(1.0) == 5_000
    assert quantity.delay_ns(0.0) == 0
    assert quantity.delay_ns(80.0) == 400_000
    assert quantity.delay_ns(1e-4) in {0, 1}


def test_loss() -> None:
    assert quantity.db_to_ratio(0.0) == 1.0
    assert quantity.db_to_ratio(10.0) == pytest.approx(0.1, rel=1e-12)
    assert quantity.db_to_ratio(3.0) == pytest.approx(0.50119, abs=1e-5)


def test_sizes() -> None:
    assert quantity.bit_from_byte(32) == 256
    assert quantity.byte_from_bit(256) == 32
    with pytest.raises(ValueError, match="multiple of 8, got 257"):
        quantity.byte_from_bit(257)
