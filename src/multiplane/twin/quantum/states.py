"""Live qubits, and the states of one and two of them as three numbers. Ageing is lazy and never twice.

A half remembers when it was last touched. What rest has done to it since is applied when something is done
to it, not when somebody looks: so decay is merged over any number of looks, and exact for T1 too until
an operation makes the pair Bell-diagonal again (docs/physics/entanglement.md says by how much that is off).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from multiplane.api.policy import Decay, PauliErrors
from multiplane.physics.bell import Correlations

if TYPE_CHECKING:
    from multiplane.twin.quantum.nodes import Node, Side
    from multiplane.twin.quantum.purifying import Exchange
    from multiplane.twin.quantum.registers import Register

# What phi+, phi-, psi+, psi- are to (<XX>, -<YY>, <ZZ>); also what I, Z, X, Y on a half do to a pair.
SIGN_X: Final = (1.0, -1.0, 1.0, -1.0)
SIGN_Y: Final = (1.0, -1.0, -1.0, 1.0)
SIGN_Z: Final = (1.0, 1.0, -1.0, -1.0)
PAULI_INDEX: Final = {"z": 1, "x": 2, "y": 3}
_BLOCH: Final = {
    "0": (0.0, 0.0, 1.0),
    "1": (0.0, 0.0, -1.0),
    "+": (1.0, 0.0, 0.0),
    "-": (-1.0, 0.0, 0.0),
    "+i": (0.0, 1.0, 0.0),
    "-i": (0.0, -1.0, 0.0),
}
_ROOT_HALF: Final = 0.5**0.5


class Qubit:
    """A qubit in a memory of a node; `index` is its place in `state`."""

    __slots__ = (
        "busy",
        "handle",
        "index",
        "node",
        "number",
        "request",
        "side",
        "since_ps",
        "slot",
        "state",
        "touched_ps",
    )

    def __init__(self, side: Side, slot: int, since_ps: int, number: int, request: str) -> None:
        self.node: Node = side.node
        self.side = side
        self.slot = slot
        self.since_ps = since_ps
        self.touched_ps = since_ps
        self.number = number
        self.request = request
        self.handle = 0
        self.index = 0
        self.busy: Exchange | None = None
        self.state: State

    def rest(self, now_ps: int) -> Decay:
        """What rest since the last touch has done to it."""
        return self.side.decay(now_ps - self.touched_ps)


class Single:
    """A qubit that is entangled with nothing: its Bloch vector when it was last touched."""

    __slots__ = ("qubit", "x", "y", "z")

    def __init__(self, qubit: Qubit, x: float, y: float, z: float) -> None:
        self.qubit = qubit
        self.x = x
        self.y = y
        self.z = z
        qubit.state = self
        qubit.index = 0

    def touch(self, qubit: Qubit, now_ps: int) -> None:
        """Apply the rest since the last touch."""
        self.x, self.y, self.z = self.bloch(now_ps)
        qubit.touched_ps = now_ps

    def bloch(self, now_ps: int) -> tuple[float, float, float]:
        """Its Bloch vector at `now_ps`."""
        decay = self.qubit.rest(now_ps)
        return self.x * decay.x, self.y * decay.y, self.z * decay.z + decay.shift

    def gate(self, name: str) -> None:
        """Apply a one-qubit gate."""
        x, y, z = self.x, self.y, self.z
        match name:
            case "x":
                y, z = -y, -z
            case "y":
                x, z = -x, -z
            case "z":
                x, y = -x, -y
            case "h":
                x, y, z = z, -y, x
            case "s":
                x, y = -y, x
            case "s-dag":
                x, y = y, -x
            case "t":
                x, y = (x - y) * _ROOT_HALF, (x + y) * _ROOT_HALF
            case "t-dag":
                x, y = (x + y) * _ROOT_HALF, (y - x) * _ROOT_HALF
        self.x, self.y, self.z = x, y, z

    def errors(self, errors: PauliErrors) -> None:
        """Mix in Pauli errors."""
        self.x *= 1.0 - 2.0 * (errors.y + errors.z)
        self.y *= 1.0 - 2.0 * (errors.x + errors.z)
        self.z *= 1.0 - 2.0 * (errors.x + errors.y)


def prepared(qubit: Qubit, state: str) -> Single:
    """A qubit in one of `api.instructions.STATES`."""
    return Single(qubit, *_BLOCH[state])


class Pair:
    """Two halves; correlations as of the last touch of each half.

    `frame` is the Bell state (phi+, phi-, psi+, psi-) that everybody who was told all outcomes takes it for.
    """

    __slots__ = ("far", "frame", "near", "x", "y", "z")

    def __init__(self, near: Qubit, far: Qubit, state: tuple[float, float, float], frame: int) -> None:
        self.near = near
        self.far = far
        self.x, self.y, self.z = state
        self.frame = frame
        near.state = far.state = self
        near.index = 0
        far.index = 1

    def other(self, half: Qubit) -> Qubit:
        """The other half."""
        return self.near if half is self.far else self.far

    def correlations(self, now_ps: int) -> Correlations:
        """The state at `now_ps`; nothing is touched."""
        return Correlations(*self._rested(now_ps))

    def settle(self, now_ps: int) -> None:
        """Apply the rest of both halves."""
        self.x, self.y, self.z = self._rested(now_ps)
        self.near.touched_ps = self.far.touched_ps = now_ps

    def _rested(self, now_ps: int) -> tuple[float, float, float]:
        x1, y1, z1, shift1 = self.near.rest(now_ps)
        x2, y2, z2, shift2 = self.far.rest(now_ps)
        return self.x * x1 * x2, self.y * y1 * y2, self.z * z1 * z2 + shift1 * shift2

    def touch(self, half: Qubit, now_ps: int) -> float:
        """Apply the rest of one half; the Z that it alone has got, which the pair cannot keep."""
        x, y, z, shift = half.side.decay(now_ps - half.touched_ps)
        self.x *= x
        self.y *= y
        self.z *= z
        half.touched_ps = now_ps
        return shift

    def pauli(self, index: int) -> None:
        """Apply I, Z, X or Y (0 to 3) to either half."""
        self.x *= SIGN_X[index]
        self.y *= SIGN_Y[index]
        self.z *= SIGN_Z[index]
        self.frame ^= index

    def errors(self, errors: PauliErrors) -> None:
        """Mix in Pauli errors of one half."""
        self.x *= 1.0 - 2.0 * (errors.y + errors.z)
        self.y *= 1.0 - 2.0 * (errors.x + errors.z)
        self.z *= 1.0 - 2.0 * (errors.x + errors.y)

    def twirl(self) -> None:
        """Make it a Werner pair of the same fidelity to its frame."""
        sx, sy, sz = SIGN_X[self.frame], SIGN_Y[self.frame], SIGN_Z[self.frame]
        mean = (sx * self.x + sy * self.y + sz * self.z) / 3.0
        self.x, self.y, self.z = sx * mean, sy * mean, sz * mean

    def weights(self) -> tuple[float, float, float, float]:
        """Odds of phi+, phi-, psi+, psi- as of the last touches."""
        x, y, z = self.x, self.y, self.z
        return (1 + x + y + z) / 4, (1 - x - y + z) / 4, (1 + x - y - z) / 4, (1 - x + y - z) / 4


State: TypeAlias = "Single | Pair | Register"
