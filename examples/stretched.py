"""A memory model: coherence falls as exp(-(t / T2)^n), as slow noise around a spin makes it."""

from math import exp

from multiplane.api.policy import Decay


class Stretched:
    def __init__(self, t2_s: float, exponent: float = 1.0) -> None:
        if not t2_s > 0:
            raise ValueError(f"t2_s: {t2_s}, expected more than 0")
        if not 0 < exponent <= 3:
            raise ValueError(f"exponent: {exponent}, expected more than 0, at most 3")
        self.t2_ps, self.exponent = t2_s * 1e12, exponent

    def decay(self, elapsed_ps: int) -> Decay:
        coherence = exp(-((elapsed_ps / self.t2_ps) ** self.exponent))
        return Decay(coherence, coherence, 1.0, 0.0)


MEMORY_MODELS = {"stretched": Stretched}
