"""The oracle: true states, which no device can tell. For tests and studies; an import contract says so."""

from __future__ import annotations

from collections.abc import Sequence

from multiplane.physics.bell import Correlations, fidelity, relabel
from multiplane.physics.dense import Matrix, correlations, keep_only, tensor
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.registers import density, qubits_of
from multiplane.twin.quantum.states import Pair, Qubit, Single


class Oracle:
    """Looks at live states without touching them.

    Args: quantum: the engine to look into. `after_ns`, wherever it stands: as the state will be so much later
        (>= 0) if nobody does anything to it.
    """

    def __init__(self, quantum: Quantum) -> None:
        self._quantum = quantum

    def qubit(self, node: str, handle: int) -> Qubit:
        """A live qubit. Raises: as `Node.qubit`."""
        return self._quantum.nodes[node].qubit(handle)

    def pair(self, node: str, handle: int, after_ns: int = 0) -> Correlations:
        """The pair of which `handle` is a half. Raises: ValueError when it is no half of a pair."""
        state, at_ps = self.qubit(node, handle).state, self._at_ps(after_ns)
        if isinstance(state, Pair):
            return state.correlations(at_ps)
        if len(qubits_of(state)) != 2:
            raise ValueError(f"handle: {handle} at {node} is no half of a pair")
        return Correlations(*map(float, correlations(density(state, at_ps))))

    def fidelity(self, node: str, handle: int) -> float:
        """Of the pair of which `handle` is a half, to the Bell state that all announced bits say it is."""
        state = self.qubit(node, handle).state
        frame = 0 if isinstance(state, Single) else state.frame
        return fidelity(relabel(self.pair(node, handle), frame))

    def partner(self, node: str, handle: int) -> tuple[str, int]:
        """Node and handle of the other half; the handle is 0 until its node has heard of it."""
        qubit = self.qubit(node, handle)
        both = qubits_of(qubit.state)
        if len(both) != 2:
            raise ValueError(f"handle: {handle} at {node} is no half of a pair")
        other = both[1 - qubit.index]
        return other.node.name, other.handle

    def bloch(self, node: str, handle: int) -> tuple[float, float, float]:
        """Bloch vector of a qubit that is entangled with nothing. Raises: ValueError when it is."""
        state = self.qubit(node, handle).state
        if not isinstance(state, Single):
            raise ValueError(f"handle: {handle} at {node} is entangled")
        return state.bloch(self._quantum.base_ps())

    def held(self) -> int:
        """Live qubits that their nodes know of."""
        return sum(len(node.qubits) for node in self._quantum.nodes.values())

    def density(self, qubits: Sequence[tuple[str, int]], after_ns: int = 0) -> Matrix:
        """The density matrix of at most 8 qubits, each named by node and handle, in this order."""
        found = [self.qubit(*named) for named in qubits]
        at_ps = self._at_ps(after_ns)
        states = list({id(qubit.state): qubit.state for qubit in found}.values())
        order = [qubit for state in states for qubit in qubits_of(state)]
        return keep_only(tensor(*(density(state, at_ps) for state in states)), *map(order.index, found))

    def _at_ps(self, after_ns: int) -> int:
        return self._quantum.base_ps() + 1000 * after_ns
