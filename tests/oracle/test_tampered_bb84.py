"""What attacks and drifts do to decoy BB84: published numbers, limits, and sums over photon numbers."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.physics import attacks, decoy_bb84, tampered_bb84
from multiplane.physics.bell import Correlations
from multiplane.physics.tampered_bb84 import CLEAR, Tampering

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = Path(os.environ.get("MULTIPLANE_SHARED", ROOT.parent / "shared")) / "physics-cases.json"
SETUP: Final = decoy_bb84.Setup(
    bob_efficiency=0.2,
    background_probability=2e-6,
    misalignment_probability=0.01,
    correction_factor=1.16,
)
MU, NU = 0.5, 0.1
losses = st.floats(0.0, 40.0)


def cases() -> dict[str, Any]:
    if not FILE.is_file():
        return {}
    known = json.loads(FILE.read_text())["cases"]
    return {case["id"]: case for case in known if case["id"].startswith(("pub-ir-", "pub-pns-"))}


CASES: Final = cases()
absent = pytest.mark.skipif(not CASES, reason=f"3 physics cases did not run: no {FILE.name}")


@absent
def test_the_published_cases_are_all_here() -> None:
    assert sorted(CASES) == ["pub-ir-0.02-0.1", "pub-ir-0.03-1.0", "pub-pns-0.5-0.01"]


@absent
@pytest.mark.parametrize("name", ["pub-ir-0.02-0.1", "pub-ir-0.03-1.0"])
def test_intercept_resend_has_the_published_error_rate(name: str) -> None:
    inputs, expected = CASES[name]["inputs"], CASES[name]["expected"]["qber"]
    done = tampered_bb84.intercept_resend(inputs["x"])
    assert tampered_bb84.flipped(inputs["e0"], done.flip_probability) == pytest.approx(expected, abs=1e-12)


@absent
def test_photon_number_splitting_has_the_published_decoy_gain() -> None:
    case = CASES["pub-pns-0.5-0.01"]
    mu, nu, eta = (case["inputs"][name] for name in ("mu", "nu", "eta"))
    expected = case["expected"]
    setup = decoy_bb84.Setup(
        bob_efficiency=1.0, background_probability=0.0, misalignment_probability=0.0, correction_factor=1.0
    )
    loss_db, done = -10 * math.log10(eta), Tampering(split_share=1.0)
    signal = -math.expm1(-eta * mu)
    assert tampered_bb84.split_yield(signal, mu) == pytest.approx(expected["Y_multi"], rel=1e-9)
    assert tampered_bb84.seen(setup, loss_db, mu, mu, done).gain == pytest.approx(signal, rel=1e-12)
    decoy = tampered_bb84.seen(setup, loss_db, nu, mu, done).gain
    assert decoy / decoy_bb84.gain(setup, loss_db, nu) == pytest.approx(expected["ratio"], rel=1e-9)
    possible_db = expected["loss_dB_from_which_possible"]
    for shift_db, kept in ((0.01, True), (-0.01, False)):
        honest = decoy_bb84.gain(setup, possible_db + shift_db, mu)
        attacked = tampered_bb84.seen(setup, possible_db + shift_db, mu, mu, done).gain
        assert (attacked == pytest.approx(honest, rel=1e-12)) is kept


@given(losses, st.floats(0.0, 1.0))
def test_each_attack_alone_is_that_of_the_closed_forms(loss_db: float, size: float) -> None:
    def of(done: Tampering) -> tuple[float, float]:
        return tampered_bb84.seen(SETUP, loss_db, MU, MU, done)

    jam, blind, tap = (
        attacks.jammed(SETUP, loss_db, MU, size / 10),
        attacks.blinded(SETUP, loss_db, MU),
        attacks.lossier(SETUP, loss_db, MU, 10 * size),
    )
    near = pytest.approx
    assert of(Tampering(background_probability=size / 10)) == near((jam.gain, jam.error_rate), rel=1e-9)
    assert of(Tampering(blinded_share=1.0)) == near((blind.gain, blind.error_rate), rel=1e-12)
    assert of(Tampering(loss_db=10 * size)) == near((tap.gain, tap.error_rate), rel=1e-9)
    flip = tampered_bb84.intercept_resend(size).flip_probability
    assert tampered_bb84.flipped(0.01, flip) == near(attacks.intercepted_error_rate(0.01, size), rel=1e-14)
    split = attacks.splitting(SETUP, loss_db, MU, NU)
    if split.multi_yield_probability <= 1.0:
        found = tampered_bb84.seen(SETUP, loss_db, NU, MU, Tampering(split_share=1.0)).gain
        assert found / decoy_bb84.gain(SETUP, loss_db, NU) == near(split.ratio, rel=1e-9)


@given(losses)
def test_where_nothing_is_done_it_is_plain_decoy_bb84(loss_db: float) -> None:
    for mu in (MU, NU, 0.0):
        seen = tampered_bb84.seen(SETUP, loss_db, mu, MU, CLEAR)
        assert seen.gain == pytest.approx(decoy_bb84.gain(SETUP, loss_db, mu), rel=1e-14)
        assert seen.error_rate == pytest.approx(decoy_bb84.error_rate(SETUP, loss_db, mu), rel=1e-13)
    plain = decoy_bb84.vacuum_weak_bit_per_pulse(SETUP, loss_db, MU, NU)
    done = tampered_bb84.secret_bit_per_pulse(SETUP, loss_db, MU, NU, CLEAR)
    assert done == pytest.approx(plain, rel=1e-9, abs=1e-15)


def photon_sum(setup: decoy_bb84.Setup, loss_db: float, mu: float, split_share: float) -> float:
    """Signal gain added up photon number by photon number: the intruder drops singles, keeps multis at Y."""
    eta = setup.bob_efficiency * 10 ** (-loss_db / 10)
    weights = [math.exp(-MU) * MU**n / math.factorial(n) for n in range(60)]
    honest_gain = sum(weight * (1 - (1 - eta) ** n) for n, weight in enumerate(weights))
    multi_yield = min(1.0, honest_gain / sum(weights[2:]))
    total = 0.0
    for n in range(60):
        weight = math.exp(-mu) * mu**n / math.factorial(n)
        honest = 1 - (1 - eta) ** n
        total += weight * ((1 - split_share) * honest + split_share * (multi_yield if n > 1 else 0.0))
    return total


@pytest.mark.parametrize("split_share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("mu", [MU, NU])
@pytest.mark.parametrize("loss_db", [0.0, 3.0, 10.0, 25.0])
def test_splitting_agrees_with_a_sum_over_photon_numbers(
    loss_db: float, mu: float, split_share: float
) -> None:
    dark = SETUP.background_probability
    seen = tampered_bb84.seen(SETUP, loss_db, mu, MU, Tampering(split_share=split_share))
    assert seen.gain - dark == pytest.approx(photon_sum(SETUP, loss_db, mu, split_share), rel=1e-9)


def test_each_attack_has_its_signature() -> None:
    """At 10 dB: what moves, by the formula, and what stays."""
    loss_db, eta = 10.0, 0.02
    signal = 1 - math.exp(-eta * MU)
    plain = tampered_bb84.seen(SETUP, loss_db, MU, MU, CLEAR)

    def of(done: Tampering) -> tampered_bb84.Seen:
        return tampered_bb84.seen(SETUP, loss_db, MU, MU, done)

    jam = of(Tampering(background_probability=1e-3))
    dark = 2e-6 + 1e-3 * (1 - 2e-6)
    assert jam.gain == pytest.approx(signal + dark, rel=1e-12)
    assert jam.error_rate == pytest.approx((0.5 * dark + 0.01 * signal) / (signal + dark), rel=1e-12)
    blind = of(Tampering(blinded_share=1.0))
    near = 2e-6 + 1 - math.exp(-0.2 * MU)  # what she sees next to the sender
    assert blind.gain == plain.gain < near / 2
    assert blind.error_rate == pytest.approx((1e-6 + 0.01 * (near - 2e-6)) / near, rel=1e-12)
    assert blind.error_rate < plain.error_rate
    close = tampered_bb84.seen(SETUP, 1.0, MU, MU, Tampering(blinded_share=1.0))
    assert close.gain == pytest.approx(near / 2, rel=1e-12)  # too near to make up for her losses
    tap = of(Tampering(loss_db=3.0))
    assert tap == tampered_bb84.seen(SETUP, 13.0, MU, MU, CLEAR)
    resend = of(tampered_bb84.intercept_resend(0.4))
    assert resend.gain == plain.gain
    assert resend.error_rate * resend.gain == pytest.approx(
        1e-6 + (0.01 + 0.4 * 0.98 / 4) * signal, rel=1e-12
    )
    leak = Tampering(leak_mu=0.01)
    assert of(leak) == plain
    single = decoy_bb84.vacuum_weak(SETUP, loss_db, MU, NU)
    cost = decoy_bb84.vacuum_weak_bit_per_pulse(SETUP, loss_db, MU, NU) - tampered_bb84.secret_bit_per_pulse(
        SETUP, loss_db, MU, NU, leak
    )
    half = (1 - math.exp(-0.02)) / 2
    known = -half * math.log2(half) - (1 - half) * math.log2(1 - half)
    assert cost == pytest.approx(0.5 * single.yield_probability * MU * math.exp(-MU) * known, rel=1e-6)


@given(losses, st.floats(0.0, 1.0))
def test_what_shows_costs_key(loss_db: float, share: float) -> None:
    plain = tampered_bb84.secret_bit_per_pulse(SETUP, loss_db, MU, NU, CLEAR)
    for done in (
        tampered_bb84.intercept_resend(share),
        tampered_bb84.entangling_probe(share),
        Tampering(split_share=share),
        Tampering(background_probability=share / 10),
        Tampering(loss_db=10 * share),
        Tampering(leak_mu=share),
    ):
        assert tampered_bb84.secret_bit_per_pulse(SETUP, loss_db, MU, NU, done) <= max(plain, 0.0) + 1e-12


def test_full_splitting_and_full_interception_leave_no_key() -> None:
    for done in (Tampering(split_share=1.0), tampered_bb84.intercept_resend(1.0)):
        assert tampered_bb84.secret_bit_per_pulse(SETUP, 10.0, MU, NU, done) <= 0.0


tamperings = st.builds(
    Tampering,
    loss_db=st.floats(0, 50),
    flip_probability=st.floats(0, 0.5),
    background_probability=st.floats(0, 1),
    split_share=st.floats(0, 1),
    blinded_share=st.floats(0, 1),
    leak_mu=st.floats(0, 10),
    pairs_left=st.none() | st.builds(Correlations, *[st.floats(0, 1)] * 3),
)


@given(st.lists(tamperings, max_size=5))
def test_things_together_do_not_depend_on_their_order(parts: list[Tampering]) -> None:
    there, back = tampered_bb84.together(parts), tampered_bb84.together(reversed(parts))
    assert there[:-1] == pytest.approx(back[:-1], abs=1e-12)
    left = tampered_bb84.left_of_pairs(there)
    assert left == pytest.approx(tampered_bb84.left_of_pairs(back), abs=1e-12)
    each = [tampered_bb84.left_of_pairs(part) for part in parts]
    assert left == pytest.approx([math.prod(factors) for factors in zip(*each, strict=True)] or (1, 1, 1))
    assert tampered_bb84.together([*parts, CLEAR]) == there


def test_a_wrong_clock_makes_every_other_bit_of_a_neighbouring_slot_wrong() -> None:
    def flip(offset_ps: float) -> float:
        return tampered_bb84.clock_offset(offset_ps, 50.0, 1_000.0).flip_probability

    assert flip(0.0) == pytest.approx(0.0, abs=1e-20)
    assert flip(500.0) == pytest.approx(0.25, rel=1e-12)  # half of the photons are in the next slot
    assert flip(1_000.0) == pytest.approx(0.5, rel=1e-12)
    assert flip(450.0) == pytest.approx(math.erfc(1 / math.sqrt(2)) / 4, rel=1e-12)  # one sigma from the edge
