"""Each rule of the state algebra equals density matrices on random inputs, to 1e-12."""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracle.state_rules import RULES


@pytest.mark.parametrize("name", sorted(RULES))
def test_rule_equals_density_matrices(name: str) -> None:
    assert RULES[name](np.random.default_rng(1), 60) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RULES))
def test_rule_equals_density_matrices_on_ten_thousand_inputs(name: str) -> None:
    assert RULES[name](np.random.default_rng(2), 10_000) <= 1e-12
