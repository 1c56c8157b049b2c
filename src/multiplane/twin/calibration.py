"""What the telemetry of a real link says about it: loss, error and rate, each with its uncertainty.

Two steps, both pure. `invert` asks which loss and which misalignment of the link's model would show the rate
and the error rate that were read. `Trend` joins such answers over time: a quantity rests, drifts or steps.
Meaning of the figures: docs/live-twin.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import msgspec

from multiplane.physics import decoy_bb84
from multiplane.twin.profiles import DECOY_MU, DECOY_NU, DECOY_PULSES_PER_S, DECOY_SETUP, PROFILES, Profile
from multiplane.twin.scenario import Span, World

DECOY: Final = "decoy-bb84-1ghz"
LOSS_FLOOR_DB: Final = 0.002
"""Finest loss that is told apart; also the noise of telemetry that shows none."""
ERROR_FLOOR: Final = 1e-5
RATE_FLOOR: Final = 5e-4
"""Finest logarithm of a rate, for links whose rate does not depend on loss."""
SETTLE_READINGS: Final = 8
"""Readings from which the noise of a link is learnt at first."""
_MEMORY: Final = 0.1
_STEP_SIGMA: Final = 5.0
_CLIP: Final = 25.0
_MEDIAN_OF_SQUARE: Final = 0.4549  # of a normal value of deviation 1
_SPAN_S: Final = 60.0
_HALVINGS: Final = 40
_AS_PROFILE_RATIO: Final = 1e-3
_MOST_LOSS_DB: Final = 80.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What telemetry says of a link that is up: rate > 0, error rate of the sifted key in [0, 0.5]."""

    at_ns: int
    rate_bit_per_s: float
    qber: float


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a link's model that explains a reading.

    Args:
        loss_db: of the quantum path; None where the rate does not depend on it.
        error: misalignment of decoy BB84, else the error rate itself; in [0, 0.5].
    """

    loss_db: float | None
    error: float
    rate_bit_per_s: float


def invert(span: Span, reading: Reading) -> Model:
    """The model of a link's profile that shows this reading.

    Args: span: the link as the scenario has it; reading: its rate and error rate.
    Holds for: profiles whose rate falls with loss. A rate above that of no loss gives loss 0.
    Source: bisection of `physics.decoy_bb84` at the error rate that was read, 1e-9 dB.
    """
    profile, rate_bit_per_s = PROFILES[span.profile], reading.rate_bit_per_s
    if profile.takes_rate:
        return Model(loss_db=None, error=reading.qber, rate_bit_per_s=rate_bit_per_s)
    plain_db = _falls_to_zero(lambda loss_db: profile.yields(loss_db, 0.0).rate_bit_per_s - rate_bit_per_s)
    if profile.name != DECOY:
        return Model(loss_db=plain_db, error=reading.qber, rate_bit_per_s=rate_bit_per_s)
    # Close to the largest loss another pair of loss and error can show the same: that of the profile counts.
    if math.isclose(profile.yields(plain_db, 0.0).qber, reading.qber, rel_tol=_AS_PROFILE_RATIO):
        return Model(
            loss_db=plain_db, error=DECOY_SETUP.misalignment_probability, rate_bit_per_s=rate_bit_per_s
        )

    def rate_above(loss_db: float) -> float:
        error = misalignment(loss_db, reading.qber)
        return predicted_bit_per_s(profile, loss_db, error) - rate_bit_per_s

    loss_db = _falls_to_zero(rate_above)
    error = misalignment(loss_db, reading.qber)
    return Model(loss_db=loss_db, error=error, rate_bit_per_s=rate_bit_per_s)


def misalignment(loss_db: float, qber: float) -> float:
    """Share of detected photons in the wrong detector, in [0, 0.5], that shows error rate `qber`.

    Args: loss_db >= 0; qber in [0, 0.5].
    Holds for: decoy BB84 of the profile's set-up; errors below those of the background alone give 0.
    Source: E = (e0 Y0 + e_det S) / Q solved for e_det; Ma, Qi, Zhao, Lo, PRA 72, 012326 (2005).
    """
    background = DECOY_SETUP.background_probability
    clicks = decoy_bb84.gain(DECOY_SETUP, loss_db, DECOY_MU)
    signal = clicks - background
    if signal <= 0.0:
        return 0.5
    return min(0.5, max(0.0, (qber * clicks - DECOY_SETUP.background_error * background) / signal))


def predicted_bit_per_s(profile: Profile, loss_db: float, error: float) -> float:
    """Secret key rate of a profile without a rate of its own; >= 0.

    Args: loss_db >= 0; error: misalignment in [0, 0.5] (decoy BB84; other profiles have their own).
    """
    if profile.name != DECOY:
        return profile.yields(loss_db, 0.0).rate_bit_per_s
    setup = msgspec.structs.replace(DECOY_SETUP, misalignment_probability=error)
    per_pulse = decoy_bb84.vacuum_weak_bit_per_pulse(setup, loss_db, DECOY_MU, DECOY_NU)
    return max(0.0, DECOY_PULSES_PER_S * per_pulse)


def _falls_to_zero(above: Callable[[float], float]) -> float:
    """Loss at which a falling function reaches 0; 0 when it is not positive anywhere."""
    low_db, high_db = 0.0, _MOST_LOSS_DB
    for _ in range(_HALVINGS):
        middle_db = (low_db + high_db) / 2.0
        if above(middle_db) > 0.0:
            low_db = middle_db
        else:
            high_db = middle_db
    return (low_db + high_db) / 2.0


class Trend:
    """A quantity that rests, drifts or steps, from noisy values: value, slope per second, deviations of both.

    A Kalman filter of value and slope. The noise is learnt from the differences of successive values, so that
    neither drift nor level counts as noise. Two values in a row that lie on one side, further out than five
    deviations, are a step: the filter begins anew from them; one alone is left out.

    Args: floor_value: the finest difference that counts, in the unit of the quantity, > 0.
    Source: R. E. Kalman (1960); noise from successive differences: J. von Neumann et al. (1941).
    """

    def __init__(self, floor_value: float) -> None:
        self._floor = floor_value
        self.count = 0
        self.value = self.slope = 0.0
        self.step = 0.0
        self.step_s: float | None = None
        self._noise = floor_value**2
        self._first: list[tuple[float, float]] = []
        self._at_s = self._last = self._odd = 0.0
        self._value_var = self._both_var = self._slope_var = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of `value`."""
        return math.sqrt(self._value_var)

    @property
    def slope_deviation(self) -> float:
        """Standard deviation of `slope`."""
        return math.sqrt(self._slope_var)

    @property
    def drifts(self) -> bool:
        """Whether it moves: a slope beyond four deviations that makes a difference within a minute."""
        return abs(self.slope) > max(4.0 * self.slope_deviation, self._floor / _SPAN_S)

    def expected(self, at_s: float) -> float:
        """The value that the next reading should show."""
        return self.value + self.slope * (at_s - self._at_s)

    def note(self, at_s: float, value: float) -> bool:
        """Take a value in; whether it completes a step. Values that are not newer are left out."""
        if self.count and at_s <= self._at_s:
            return False
        self.count += 1
        if self.count > SETTLE_READINGS:
            return self._filter(at_s, value)
        self._first.append((at_s, value))
        self._begin(at_s, value)
        return self._settle() if self.count == SETTLE_READINGS else False

    def _settle(self) -> bool:
        """Learn the noise of the first values from the median difference, then filter them in their order.

        The median does not see a step among them, which the filter then finds.
        """
        steps = [(late - soon) ** 2 / 2.0 for (_, soon), (_, late) in pairwise(self._first)]
        self._noise = max(self._floor**2, statistics.median(steps) / _MEDIAN_OF_SQUARE)
        self._begin(*self._first[0])
        stepped = [self._filter(at_s, value) for at_s, value in self._first[1:]]
        self._first.clear()
        return any(stepped)

    def _filter(self, at_s: float, value: float) -> bool:
        took_s = at_s - self._at_s
        apart = value - self.expected(at_s)
        self._age(took_s)
        far = abs(apart) > _STEP_SIGMA * math.sqrt(self._value_var + self._noise)
        if far and self._odd * apart > 0.0:
            self.step, self.step_s = value - self.value, at_s
            self._begin(at_s, value)
            return True
        self._odd = apart if far else 0.0
        seen = min((value - self._last) ** 2 / 2.0, _CLIP * self._noise)
        self._last = value
        self._noise = max(self._floor**2, self._noise + _MEMORY * (seen - self._noise))
        self._take(apart, took_s, at_s)
        return False

    def _begin(self, at_s: float, value: float) -> None:
        self.value, self.slope, self._at_s, self._odd = value, 0.0, at_s, 0.0
        self._last = value
        self._value_var, self._both_var = self._noise, 0.0
        self._slope_var = (self._floor / 10.0) ** 2

    def _age(self, took_s: float) -> None:
        """Uncertainty grows: the slope may change by a floor a minute within a minute."""
        self._value_var += took_s * (2.0 * self._both_var + took_s * self._slope_var)
        self._both_var += took_s * self._slope_var
        self._slope_var += (self._floor / _SPAN_S) ** 2 * took_s / _SPAN_S

    def _take(self, error: float, took_s: float, at_s: float) -> None:
        """Correct value and slope by the error of the expectation; one far out only ages them."""
        self.value += self.slope * took_s
        self._at_s = at_s
        if self._odd:
            return
        total = self._value_var + self._noise
        gain, slope_gain = self._value_var / total, self._both_var / total
        self.value += gain * error
        self.slope += slope_gain * error
        self._slope_var -= slope_gain * self._both_var
        self._both_var *= 1.0 - gain
        self._value_var *= 1.0 - gain


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a following twin knows of one link.

    Args:
        state: `waiting` (never seen up), `steady`, `drifting`; `stepped` for a minute after a step.
        loss_db, loss_sd_db, drift_db_per_h: None where the rate does not depend on loss.
        error: misalignment of decoy BB84, else the error rate; sd_error: its standard deviation.
        rate_bit_per_s: as read last; predicted_bit_per_s: what the twin had expected at that moment.
        prediction_error: of the last reading, (expected - read) / read; mean_prediction_error: average of its
            size with a memory of about ten readings.
        step_db: size of the last step of loss, 0 when there was none; step_at_ns: when it was seen.
    """

    link: str
    state: str
    readings: int
    at_ns: int
    scenario_loss_db: float
    loss_db: float | None
    loss_sd_db: float | None
    drift_db_per_h: float | None
    error: float
    sd_error: float
    rate_bit_per_s: float
    predicted_bit_per_s: float
    prediction_error: float
    mean_prediction_error: float
    step_db: float = 0.0
    step_at_ns: int = 0


class LinkTwin:
    """The twin of one link that follows the real one. `span`: the link as the scenario has it."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self._profile = PROFILES[span.profile]
        self._level = Trend(RATE_FLOOR if self._profile.takes_rate else LOSS_FLOOR_DB)
        self._error = Trend(ERROR_FLOOR)
        self._epoch_ns = 0
        self._reading = Reading(at_ns=0, rate_bit_per_s=0.0, qber=0.0)
        self._predicted_bit_per_s = self._prediction_error = self._mean_error = 0.0

    def note(self, reading: Reading) -> None:
        """Predict, compare, learn. Readings of a link that is not up, and old ones, say nothing."""
        if reading.rate_bit_per_s <= 0.0 or reading.at_ns <= self._reading.at_ns:
            return
        first = self._level.count == 0
        self._epoch_ns = reading.at_ns if first else self._epoch_ns
        at_s = (reading.at_ns - self._epoch_ns) / 1e9
        self._predicted_bit_per_s = self._predict(at_s)
        ratio = self._predicted_bit_per_s / reading.rate_bit_per_s - 1.0
        self._prediction_error = ratio
        self._mean_error += (1.0 if first else _MEMORY) * (abs(ratio) - self._mean_error)
        model = invert(self.span, reading)
        level = math.log(model.rate_bit_per_s) if model.loss_db is None else model.loss_db
        self._level.note(at_s, level)
        self._error.note(at_s, model.error)
        self._reading = reading

    def _predict(self, at_s: float) -> float:
        """Rate expected now; that of the scenario before anything was read."""
        if self._level.count == 0:
            return self._profile.yields(self.span.loss_db, self.span.rate_bit_per_s).rate_bit_per_s
        level = self._level.expected(at_s)
        if self._profile.takes_rate:
            return math.exp(level)
        error = min(0.5, max(0.0, self._error.expected(at_s)))
        return predicted_bit_per_s(self._profile, max(0.0, level), error)

    @property
    def loss_db(self) -> float | None:
        """The loss as calibrated, None while nothing was read or where the rate does not depend on it."""
        known = self._level.count > 0 and not self._profile.takes_rate
        return max(0.0, self._level.value) if known else None

    @property
    def stated_rate_bit_per_s(self) -> float:
        """The rate as calibrated where the profile takes one, as the scenario has it otherwise."""
        known = self._level.count > 0 and self._profile.takes_rate
        return math.exp(self._level.value) if known else self.span.rate_bit_per_s

    def calibration(self) -> Calibration:
        """What is known now."""
        level, lossy = self._level, not self._profile.takes_rate and self._level.count > 0
        return Calibration(
            link=self.span.id,
            state=self._state(),
            readings=level.count,
            at_ns=self._reading.at_ns,
            scenario_loss_db=self.span.loss_db,
            loss_db=self.loss_db,
            loss_sd_db=level.deviation if lossy else None,
            drift_db_per_h=level.slope * 3600.0 if lossy else None,
            error=self._error.value,
            sd_error=self._error.deviation,
            rate_bit_per_s=self._reading.rate_bit_per_s,
            predicted_bit_per_s=self._predicted_bit_per_s,
            prediction_error=self._prediction_error,
            mean_prediction_error=self._mean_error,
            step_db=level.step if lossy else 0.0,
            step_at_ns=0 if level.step_s is None else self._epoch_ns + round(level.step_s * 1e9),
        )

    def _state(self) -> str:
        level = self._level
        if level.count == 0:
            return "waiting"
        now_s = (self._reading.at_ns - self._epoch_ns) / 1e9
        if level.step_s is not None and now_s - level.step_s < _SPAN_S:
            return "stepped"
        return "drifting" if level.drifts else "steady"


def calibrated(world: World, twins: dict[str, LinkTwin]) -> World:
    """The world with losses and rates as calibrated; what was never read stays as it was."""
    spans = []
    for span in world.spans:
        twin = twins[span.id]
        loss_db = span.loss_db if twin.loss_db is None else round(twin.loss_db, 4)
        rate_bit_per_s = twin.stated_rate_bit_per_s
        spans.append(msgspec.structs.replace(span, loss_db=loss_db, rate_bit_per_s=rate_bit_per_s))
    return msgspec.structs.replace(world, spans=tuple(spans))
