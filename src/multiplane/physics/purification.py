"""Two pairs become one better pair, or none: DEJMPS and BBPSSW with noisy gates and readouts.

Both ends apply a CNOT from the half of the kept pair to the half of the sacrificed one, read the latter in Z
and tell one another the bit; the kept pair stays if the bits are equal.
"""

from __future__ import annotations

from multiplane.physics import ranges
from multiplane.physics.bell import Correlations, twirl
from multiplane.physics.operations import pauli_gains

# Places of two-qubit Pauli operators (control, target) in the order II, IX, ... ZZ.
_IZ, _XI, _XZ, _YI, _YZ, _ZI, _ZZ = 3, 4, 7, 8, 11, 12, 15


def dejmps(
    kept: Correlations, sacrificed: Correlations, double16: tuple[float, ...], flip_probability: float
) -> tuple[Correlations, float]:
    """The kept pair after a round of DEJMPS that succeeds, and the probability that it does.

    Before the CNOTs one end turns its two halves by +pi/2 around X, the other by -pi/2: this exchanges phi-
    and psi-, so that rounds take turns at bit and phase errors.
    Args: double16: noise of each of the two CNOTs, as in `operations`; flip_probability in [0, 1] of each of
        the two readouts.
    Raises: ValueError outside of these.
    Holds for: Bell-diagonal pairs, equal or not, in the frame where both are near phi+; Pauli noise.
    Source: Deutsch et al., PRL 77, 2818 (1996); noise: Briegel et al., PRL 81, 5932 (1998).
    """
    turned = Correlations(kept.x, kept.z, kept.y), Correlations(sacrificed.x, sacrificed.z, sacrificed.y)
    return _compared(*turned, double16, flip_probability)


def bbpssw(
    kept: Correlations, sacrificed: Correlations, double16: tuple[float, ...], flip_probability: float
) -> tuple[Correlations, float]:
    """The kept pair after a round of BBPSSW that succeeds, and the probability that it does.

    Both pairs are twirled before; the pair that comes out is not: the next round twirls it.
    Args: as `dejmps`.
    Raises: as `dejmps`.
    Holds for: as `dejmps`; a sequence of rounds is less efficient than DEJMPS.
    Source: Bennett et al., PRL 76, 722 (1996).
    """
    return _compared(twirl(kept), twirl(sacrificed), double16, flip_probability)


def _compared(
    kept: Correlations, sacrificed: Correlations, double16: tuple[float, ...], flip_probability: float
) -> tuple[Correlations, float]:
    """CNOTs from kept to sacrificed, both halves of the latter read in Z, equal bits.

    Each term is the mean of a Pauli operator before the CNOTs; noise of both ends squares its gain.
    """
    ranges.probability("flip_probability", flip_probability)
    gains = pauli_gains(double16)
    (x1, y1, z1), (x2, y2, z2) = kept, sacrificed
    right = (1.0 - 2.0 * flip_probability) ** 2
    equal = 1.0 + right * gains[_IZ] ** 2 * z1 * z2
    if equal <= 0.0:
        return Correlations(0.0, 0.0, 0.0), 0.0
    x = gains[_XI] ** 2 * x1 * x2 + right * gains[_XZ] ** 2 * y1 * y2
    y = gains[_YI] ** 2 * y1 * x2 + right * gains[_YZ] ** 2 * x1 * y2
    z = gains[_ZI] ** 2 * z1 + right * gains[_ZZ] ** 2 * z2
    return Correlations(x / equal, y / equal, z / equal), equal / 2.0
