"""What is delivered is what was promised: states judged by the oracle, which the strata cannot ask.

A sample of the campaign of 100,000 states, `python -m bench quality`.
"""

from __future__ import annotations

import pytest
from bench.quality import at_most
from tests.support.judged_worlds import CASES

CASE_BY_NAME = {case.name: case for case in CASES}
SAMPLE = (
    "two links, short memories",
    "five links, unlike memories, gates that err",
    "single clicks, dark counts",
    "swaps of linear optics, slow gates",
    "GHZ of three and four, a party in the middle",
    "asked at the service door",
)
STATES = 1_050
"""Of each world of the sample."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SAMPLE)
def test_no_delivered_state_is_below_its_floor(name: str) -> None:
    case = CASE_BY_NAME[name]
    judged = case.judge(99, STATES // len(case.asks))
    assert len(judged) >= STATES - len(case.asks)
    assert not [one for one in judged if one.below]
    aged = 1e-4 if case.door else 1e-8  # applications are told what a state was worth before its ends agreed
    assert max(one.overclaim for one in judged) < aged, "an end said more than is true"
    assert min(one.last for one in judged) < 0.01, "no floor was near: this test could not fail"


def test_the_bound_of_a_share_is_that_of_clopper_and_pearson() -> None:
    assert at_most(0, 4_603) == pytest.approx(1.0 - 0.01 ** (1 / 4_603), rel=1e-9)
    assert at_most(0, 4_603) < 1e-3 < at_most(0, 4_602)
    assert at_most(3, 10) == pytest.approx(0.7028835276794626, rel=1e-9)  # 99 % quantile of Beta(4, 7)
