"""A noise model: phase errors (ZI, IZ, ZZ) of two-qubit gates come `bias_ratio` times as often as others."""

from multiplane.api.policy import PauliErrors


class Biased:
    def __init__(self, error_probability: float, bias_ratio: float) -> None:
        if not 0 <= error_probability <= 1:
            raise ValueError(f"error_probability: {error_probability}, expected a number from 0 to 1")
        if not bias_ratio >= 0:
            raise ValueError(f"bias_ratio: {bias_ratio}, expected 0 or more")
        self.other = error_probability / (1 + bias_ratio)
        self.phase = error_probability - self.other

    def single(self) -> PauliErrors:
        return PauliErrors(0.0, 0.0, 0.0)

    def double(self) -> tuple[float, ...]:
        odds = [self.other / 12] * 16
        odds[0] = 1 - self.other - self.phase  # II
        odds[3] = odds[12] = odds[15] = self.phase / 3  # IZ, ZI, ZZ
        return tuple(odds)

    def flip_probability(self) -> float:
        return 0.0


NOISE_MODELS = {"biased": Biased}
