"""Offers name the code and the logical error rate of the generation of repeaters that a scenario names."""

from __future__ import annotations

import msgspec
import pytest
from tests.support.shared import Quis, in_study, order, world

from multiplane.api.fabric_units import Attainable
from multiplane.api.units import Part
from multiplane.assembly.plugins import NO_PLUGINS
from multiplane.assembly.repeaters import compare_generations
from multiplane.assembly.study import Study
from multiplane.service.control.admission import Found, judge, less, states_offer
from multiplane.service.planes.units import Admission, Admitted, UnitCase
from multiplane.twin.scenario import World

BOUND = 2e-4


def repeating(generation: str) -> World:
    """A chain of good stations with many memories."""
    found = world(
        [("a", "b"), ("b", "c"), ("c", "d")], memories=24, fidelity=0.999, success_probability=0.5, t2_s=20.0
    )
    planning = (("generation", generation),) if generation else ()
    return msgspec.structs.replace(
        found, entanglement=msgspec.structs.replace(found.entanglement, planning=planning)
    )


def attained(generation: str, bound: float = BOUND, *sites: str) -> Attainable:
    found: list[Attainable] = []

    async def workload(study: Study, quis: Quis) -> None:
        asked = order("o", *(sites or ("a", "d")), max_logical_error_rate=bound)
        found.append(await study.centre.units.attainable(study.centre.caller, asked))

    in_study(repeating(generation), 1, workload)
    return found[0]


@pytest.mark.parametrize("generation", ["encoded", "one-way"])
def test_the_fabric_tells_what_the_generation_would_reach(generation: str) -> None:
    reports = compare_generations(repeating(""), "a", "d", BOUND, NO_PLUGINS)
    (figures,) = [one.figures for one in reports if one.generation == generation]
    found, bare = attained(generation), attained("")
    assert figures is not None
    assert found.encoding == figures.encoding != ""
    # The fabric knows pairs as they are when both ends have heard of them.
    assert found.logical_error_rate == pytest.approx(figures.logical_error_rate, rel=0.05)
    assert msgspec.structs.replace(found, encoding="", logical_error_rate=0.0) == bare


@pytest.mark.parametrize("generation", ["", "purified"])
def test_bare_pairs_have_no_code(generation: str) -> None:
    found = attained(generation)
    assert (found.possible, found.encoding, found.logical_error_rate) == (True, "", 0.0)


def test_a_state_of_many_is_wrong_when_one_circuit_is() -> None:
    two = attained("encoded", BOUND, "a", "b")
    three = attained("encoded", BOUND, "a", "b", "c")
    assert three.encoding == two.encoding
    assert three.logical_error_rate == pytest.approx(1 - (1 - two.logical_error_rate) ** 2, rel=1e-6)


def test_admission_holds_the_bound_against_it() -> None:
    found = attained("encoded")
    reached = found.logical_error_rate
    yes = asked(found, reached * 1.01)
    assert (yes.answer, yes.offer.encoding) == (Admitted.YES, found.encoding)
    assert yes.offer.logical_error_rate == reached
    no = asked(found, reached / 2)
    assert (no.answer, no.code) == (Admitted.LESS, "unit.fidelity")
    assert no.reason.startswith(f"max_logical_error_rate: expected {reached:.3g} or more, got ")
    taken = less(case(reached / 2), no.offer)
    assert taken.parts[0].max_logical_error_rate == reached
    assert asked(found, taken.parts[0].max_logical_error_rate).answer is Admitted.YES


def test_a_bound_where_nobody_encodes_is_answered_with_bare_pairs() -> None:
    bare = attained("")
    no = asked(bare, 0.01)
    assert no.answer is Admitted.LESS
    assert "repeaters here do not encode" in no.reason
    assert less(case(0.01), no.offer).parts[0].max_logical_error_rate == 0.0
    assert asked(bare, 0.0).answer is Admitted.YES


def case(bound: float) -> UnitCase:
    return UnitCase(
        parties=("a-1", "d-1"),
        sites=("a", "d"),
        parts=(Part(kind="bell", max_logical_error_rate=bound),),
        valid_s=1.0,
        fixed=False,
        rate_per_s=0.0,
        consumption="reactive",
    )


def asked(found: Attainable, bound: float) -> Admission:
    return judge(case(bound), [Found((states_offer(found, kept=True),))], (0, 0), True)
