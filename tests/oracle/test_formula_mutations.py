"""The checks can fail: every formula, made wrong in any one place, is found out by its checks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest
from tests.oracle import (
    test_attacks,
    test_clocks_and_beams,
    test_codes,
    test_entanglement_cases,
    test_generations,
    test_heralding,
    test_relaxation,
    test_state_refusals,
)
from tests.oracle import test_waiting as waits
from tests.oracle.formula_mutants import mutants
from tests.oracle.state_rules import RULES

from multiplane.physics import (
    attacks,
    bell,
    codes,
    detection,
    free_space,
    generations,
    heralding,
    memory,
    multipartite,
    operations,
    purification,
    sensing,
    timing,
    waiting,
)

Check = Callable[[], None]
# Mutants that change nothing that can be seen, each with its reason.
HARMLESS: Final = {
    "pair.x * signs.x -> pair.x / signs.x": "signs are 1 or -1",
    "pair.y * signs.y -> pair.y / signs.y": "signs are 1 or -1",
    "pair.z * signs.z -> pair.z / signs.z": "signs are 1 or -1",
    "double16[4 * i + j] * _SIGNS[control][i] -> double16[4 * i + j] / _SIGNS[control][i]": "as above",
    "double16[4 * i + j] * _SIGNS[control][i] * _SIGNS[target][j]"
    " -> double16[4 * i + j] * _SIGNS[control][i] / _SIGNS[target][j]": "as above",
    "here + 2 * there -> here - 2 * there": "places from the end: -2 is 2 of 4 and -1 is 3",
}


def rules(*names: str) -> Check:
    """Rules of the state algebra on a few inputs."""

    def check() -> None:
        for name in names:
            assert RULES[name](np.random.default_rng(4), 8) <= 1e-12, name

    return check


def cases(*prefixes: str) -> Check:
    """Cases of the case file."""

    def check() -> None:
        for name, case in test_entanglement_cases.CASES.items():
            if name.startswith(prefixes):
                test_entanglement_cases.check(case)

    return check


def heralds() -> None:
    """Clicks on two benches, several pairs, and the source's law."""
    test_heralding.test_nothing_that_emits_heralds_nothing()
    test_heralding.test_one_photon_of_each_side_of_several_pairs(2)
    test_heralding.test_source_between_by_enumeration()
    test_heralding.test_down_conversion_has_the_mean_and_the_law_that_it_says()
    bench, phase_rad = test_heralding.BENCHES[2]
    test_heralding.test_single_click(bench, phase_rad)
    test_heralding.test_double_click(bench, phase_rad)


def waiting_times() -> None:
    """Sums, Markov chains and cases."""
    for links, p in itertools.product((1, 2, 5), (0.2, 0.7)):
        assert waiting.mean_all_links(links, p) == pytest.approx(waits.slow_sum(links, p), rel=1e-9)
    waits.test_all_links_in_simple_cases()
    for p, cutoff_steps in itertools.product((0.2, 0.7), (0, 3)):
        expected = waits.chain_with_cutoff(p, cutoff_steps)
        assert waiting.mean_with_cutoff(p, cutoff_steps) == pytest.approx(expected[0], rel=1e-9)
        assert waiting.round_probability(p, cutoff_steps) == pytest.approx(expected[1], rel=1e-9)
    assert waiting.nested_doubling(2, 0.5, 0.5).sum() == pytest.approx(1.0, abs=1e-11)
    assert waiting.mean_nested_doubling(2, 0.1, 1.0) == pytest.approx(waits.slow_sum(2, 0.1))
    waits.test_mean_decay_gives_the_fidelity_of_a_swapped_pair()
    assert waiting.deterministic_delivery(1.0) == pytest.approx((1.0 + 3.0 / math.e) / 4.0)


def inner(test: Any) -> Any:
    """The test below its random inputs."""
    return test.hypothesis.inner_test


def attacked() -> None:
    """Sums over photon numbers at a few points."""
    inner(test_attacks.test_honest_double_clicks_equal_the_sum_over_photon_numbers)(10.0, 0.7)
    inner(test_attacks.test_splitting_keeps_the_gain_of_the_signal)(10.0, 0.7, 0.2)
    inner(test_attacks.test_jamming_raises_gain_and_errors_towards_one_half)(0.03, 10.0)
    test_attacks.test_full_interception_ends_every_violation_and_every_key()
    test_attacks.test_blinding_shows_in_double_clicks_not_in_errors()
    test_attacks.test_jamming_keeps_the_errors_of_an_uneven_background()
    test_attacks.test_figures_at_their_limits()
    test_attacks.test_added_loss_is_loss()


def clocks() -> None:
    """Clocks, sensing and beams."""
    test_clocks_and_beams.test_two_way_transfer_cannot_tell_an_uneven_path()
    test_clocks_and_beams.test_dispersion_of_standard_fibre()
    test_clocks_and_beams.test_beam_follows_its_complex_parameter_and_its_integral()
    for entangled in (True, False):
        test_clocks_and_beams.test_the_best_interrogation_is_the_best(entangled)


def coded() -> None:
    """Codes by enumeration, and in the order in which they fail."""
    test_codes.test_golay_is_met_by_samples()
    for code in (codes.STEANE, codes.GOLAY):
        test_codes.test_few_errors_fail_in_the_published_lowest_order_and_below_the_binomial_tail(code)
    inner(test_codes.test_flips_of_a_bare_qubit_stay_and_opposite_words_mirror)(0.3)
    inner(test_codes.test_steane_equals_its_128_patterns)(0.2)
    inner(test_codes.test_votes_are_fair)(6, 0.2)
    for small in test_codes.SMALL:
        test_codes.test_a_parity_code_equals_every_loss_and_every_wrong_readout(small)
    test_codes.test_what_hardly_comes_is_decoded_and_what_never_comes_is_not()
    inner(test_codes.test_success_is_the_published_formula_and_no_code_is_cloned)(3, 4, 0.8)


def repeated() -> None:
    """Chains of all three generations against published forms, chance and circuits, the quickest first."""
    test_generations.test_key_and_cost()
    test_generations.test_encoded_pairs_are_counted_by_chance_and_by_the_poorest_hop()
    test_generations.test_bare_pairs_that_neighbours_swap_are_the_plain_chain()
    test_generations.test_first_generation_without_purification_is_one_swap_after_another()
    test_generations.test_first_generation_loses_pairs_in_purification_as_by_chance()
    test_generations.test_first_generation_with_noisy_gates_is_swap_wait_and_purify_step_by_step()
    test_generations.test_errors_of_both_kinds_add_up_as_independent_ones()
    test_generations.test_pairs_made_in_a_window_by_whole_attempts()
    test_generations.test_rest_in_memories_costs_fidelity_by_the_window_and_the_way()
    inner(test_generations.test_one_way_chains_follow_the_published_formula)(5, 3, 2, 0.9)
    for hops, basis in ((2, "x"), (3, "z")):
        test_generations.test_encoded_chains_equal_circuits_of_noisy_gates(hops, basis)


CHECKS: Final[dict[ModuleType, tuple[Check, ...]]] = {
    bell: (rules("weights", "named_states", "werner", "swap", "twirl", "relabel"),),
    memory: (
        rules("rest", "merged_rest"),
        test_relaxation.test_each_further_half_that_shifts_counts_by_its_level,
        test_relaxation.test_long_rest_leaves_nothing_that_is_sure,
    ),
    operations: (rules("gains", "noisy_swap", "pauli", "depolarising", "teleport", "measured"),),
    purification: (
        rules("dejmps", "bbpssw"),
        test_state_refusals.test_purification_that_cannot_succeed_says_so,
    ),
    multipartite: (rules("ghz_star", "ghz_with_centre", "ghz_tree", "graph_state"),),
    heralding: (cases("pub-singleclick-", "pub-doubleclick-"), heralds),
    codes: (coded,),
    generations: (repeated,),
    waiting: (waiting_times, cases("pub-wait-", "pub-decay-", "pub-detdeliver-")),
    attacks: (rules("intercepted", "probed"), attacked, cases("pub-ir-", "pub-pns-")),
    detection: (
        test_attacks.test_levels_make_the_likelihood_ratio_a_fair_game,
        test_attacks.test_a_fixed_test_of_the_size_it_says_keeps_its_errors,
        cases("pub-sprt-"),
    ),
    timing: (clocks, cases("pub-timetransfer-")),
    sensing: (clocks, cases("pub-ghz-metrology-")),
    free_space: (clocks, cases("pub-diffraction-")),
}


def survivors(module: ModuleType, every: int) -> list[str]:
    """Mutants that no check finds, but for the harmless ones."""
    found = []
    for mutant in itertools.islice(mutants(module), 0, None, every):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in mutant.values.items():
                patch.setattr(module, name, value)
            if mutant.change not in HARMLESS and not is_found_out(module):
                found.append(f"{module.__name__}:{mutant.line}: {mutant.change}")
    return found


def is_found_out(module: ModuleType) -> bool:
    """Whether a check fails, or the formula breaks down altogether."""
    try:
        with np.errstate(all="ignore"):
            for check in CHECKS[module]:
                check()
    except (AssertionError, ArithmeticError, ValueError, TypeError, IndexError, KeyError):
        return True
    return False


@pytest.mark.skipif(not test_entanglement_cases.CASES, reason="no physics cases (set MULTIPLANE_SHARED)")
@pytest.mark.parametrize("module", CHECKS, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_without_a_fault_nothing_is_found(module: ModuleType) -> None:
    assert not is_found_out(module)


@pytest.mark.slow
@pytest.mark.skipif(not test_entanglement_cases.CASES, reason="no physics cases (set MULTIPLANE_SHARED)")
@pytest.mark.parametrize("module", CHECKS, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_every_fault_is_found(module: ModuleType) -> None:
    assert survivors(module, 1) == []
