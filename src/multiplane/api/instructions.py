"""Core instructions of the twin: what a node may ask of its quantum devices, and what they report. Version 1.

An instruction is asked for now and its result is published when it is due, on the topic of each node that
learns of it. A result holds what a real device would report: outcomes, handles, times, never the true state.
Memories age between touches without being told to. Reference page: docs/formats/instructions.md.
The set has one more: emission of key blocks by QKD modules, whose door is `api.device`.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from multiplane.kernel.nouns import Caller, Noun

VERSION: Final = 1
BASES: Final = ("x", "y", "z")
STATES: Final = ("0", "1", "+", "-", "+i", "-i")
PROTOCOLS: Final = ("dejmps", "bbpssw")
SINGLE_GATES: Final = ("x", "y", "z", "h", "s", "s-dag", "t", "t-dag")
DOUBLE_GATES: Final = ("cx", "cz", "swap")


def _name(class_name: str) -> str:
    """Name of an instruction in a message: `PrepareSend` is `prepare-send`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", class_name).lower()


class Instruction(Noun, frozen=True, kw_only=True, tag_field="do", tag=_name):
    """Base: `request` is an id minted by the caller, unique at its node; said twice it counts once.

    Only what changes memories at once may have none (an empty one): it counts each time.
    """

    request: str


class Generate(Instruction, frozen=True, kw_only=True):
    """Make pairs on a link: `pairs` of them, or (0) until `Cancel` or `deadline_ns`. Either end may ask.

    Args:
        link: id of an entanglement link at this node.
        min_fidelity: refuse if the link is not built for as much; in [0, 1].
        deadline_ns: Unix time after which pairs are of no use; 0 = none.
        keep: keep the halves in memory; otherwise both are measured in `basis` as soon as they are there.
        corrected: deliver phi+: the frame that the herald names is taken out at once, at no cost.
    """

    link: str
    pairs: int = 1
    min_fidelity: float = 0.0
    deadline_ns: int = 0
    keep: bool = True
    basis: str = "z"
    corrected: bool = False


class Cancel(Instruction, frozen=True, kw_only=True):
    """Make no more pairs for `generate`, the id of a `Generate` of this node; pairs under way still come."""

    generate: str


class Swap(Instruction, frozen=True, kw_only=True):
    """Bell measurement of two qubits at this node. Bits: phase (1: minus), parity (1: psi).

    Args: corrected: the Pauli operation that the bits ask for is applied at the far end of `right` at once.
    """

    left: int
    right: int
    corrected: bool = False


class Teleport(Instruction, frozen=True, kw_only=True):
    """Send the state of `qubit` through the pair of which `half` is here: a Bell measurement of the two.

    Bits as of `Swap`. The state is at the far half, up to the Pauli operation that the bits ask for.
    """

    qubit: int
    half: int
    corrected: bool = False


class Purify(Instruction, frozen=True, kw_only=True):
    """This node's part in distilling one pair out of two; the other end asks with the same `exchange`.

    Bits: this node's outcome. The exchange worked if both nodes have the same one; each is told its own only.

    Args: protocol: one of `PROTOCOLS`, the same at both ends.
    """

    exchange: str
    kept: int
    sacrificed: int
    protocol: str = "dejmps"


class Measure(Instruction, frozen=True, kw_only=True):
    """Measure a qubit in `basis` and free its memory. Bits: the outcome."""

    handle: int
    basis: str = "z"


class Gate(Instruction, frozen=True, kw_only=True):
    """A gate on one or two qubits at this node. Args: gate: of `SINGLE_GATES` or `DOUBLE_GATES`."""

    gate: str
    handles: tuple[int, ...]


class Fuse(Instruction, frozen=True, kw_only=True):
    """Make one GHZ or graph state of two: measure the parity of both, keep `kept`, free `joined`.

    Bits: the parity. 1 asks for a Pauli X on `kept` (GHZ: or on all the rest of one of the two states).
    """

    kept: int
    joined: int


class Prepare(Instruction, frozen=True, kw_only=True):
    """Put a new qubit in `state` (one of `STATES`) into a free memory on the side of `link`."""

    link: str
    state: str = "0"


class PrepareSend(Instruction, frozen=True, kw_only=True):
    """Prepare a photon in `state` and send it over `link`; the far end keeps it, or measures it in `basis`.

    The sender is told that it has left, the far end what arrived; of a lost photon nobody hears.
    """

    link: str
    state: str = "0"
    keep: bool = True
    basis: str = "z"


class Move(Instruction, frozen=True, kw_only=True):
    """Move a qubit to a free memory at this node on the side of `link`; it keeps its handle."""

    handle: int
    link: str


class Discard(Instruction, frozen=True, kw_only=True):
    """Forget a qubit and free its memory."""

    handle: int


class Query(Instruction, frozen=True, kw_only=True):
    """Tell the qubits on the side of `link` at this node, oldest first, and how many memories are free."""

    link: str


CoreInstruction = (
    Generate
    | Cancel
    | Swap
    | Teleport
    | Purify
    | Measure
    | Gate
    | Fuse
    | Prepare
    | PrepareSend
    | Move
    | Discard
    | Query
)


class Report(Noun, frozen=True, kw_only=True):
    """What a device reports of an instruction or of something that reached this node.

    Args:
        request: the instruction it answers; asker: the node that asked for it.
        node: site whose topic it is published on.
        due_ns: when the real device would say so, Unix nanoseconds.
        ok: whether it worked; if not, `code` and `reason` say why.
        handles: qubits at this node that it is about.
        bits: classical outcomes.
        link: where a qubit came from or is held; empty when it does not matter.
        number: of the pair on its link, the same at both ends, from 1; 0 when there is none.
        since_ns: since when the qubit has been in its memory, Unix nanoseconds; 0 when there is none.
        free: free memories on that side; only in the answer to `Query`.
        tag_ps: of a new half: when this node's own device saw it come, by its clock and with its jitter,
            counted from `since_ns`; of either sign. None: it tells no times.
    """

    request: str
    node: str
    due_ns: int
    ok: bool = True
    handles: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    code: str = ""
    reason: str = ""
    asker: str = ""
    link: str = ""
    number: int = 0
    since_ns: int = 0
    free: int = 0
    tag_ps: int | None = None


class ReportListener(Protocol):
    """A node's topic. Calls come in order of `due_ns` and never wait."""

    def report(self, report: Report) -> None: ...


class LinkSheet(Noun, frozen=True, kw_only=True):
    """A link of pairs as its devices are calibrated: what planning and promises are made from.

    Args:
        sites: the two ends, in order; all pairs of numbers below are in the order of the ends.
        memories: at each end.
        success_probability: of one attempt; attempt_ns: from one attempt of a memory to its next.
        delay_ns: one way, of the classical companion.
        weights: of a fresh pair, when both ends know of it: phi+, phi-, psi+, psi-; they sum to 1.
        t1_s, t2_s: of the memories, 0 = for ever.
        cutoff_ns: age at which a qubit is thrown away, 0 = never.
        swap_probability: that a Bell measurement succeeds.
        keep_single, keep_double: that a gate on one, on two qubits does its work and no more (depolarising).
        flip_probability: of a readout. operation_ns: of a local operation.
        photon_probability: that a photon sent from one end is stored at the other.
    """

    link: str
    sites: tuple[str, str]
    memories: tuple[int, int]
    success_probability: float
    attempt_ns: int
    delay_ns: int
    weights: tuple[float, float, float, float]
    t1_s: tuple[float, float] = (0.0, 0.0)
    t2_s: tuple[float, float] = (0.0, 0.0)
    cutoff_ns: tuple[int, int] = (0, 0)
    swap_probability: tuple[float, float] = (1.0, 1.0)
    keep_single: tuple[float, float] = (1.0, 1.0)
    keep_double: tuple[float, float] = (1.0, 1.0)
    flip_probability: tuple[float, float] = (0.0, 0.0)
    operation_ns: tuple[int, int] = (0, 0)
    photon_probability: float = 0.0


class QuantumDesk(Protocol):
    """The operator's way to the quantum devices of every node, beside the agent that may be there."""

    async def watch(self, caller: Caller, node: str, listener: ReportListener) -> None:
        """Hear what is published for `node`, for as long as the session lives.

        Raises: Refused(`instruction.nobody`) when there are no quantum devices at `node`.
        """
        ...

    async def instruct(self, caller: Caller, node: str, instruction: CoreInstruction) -> None:
        """Ask in the name of `node`; the result is published there when it is due.

        Raises: as `QuantumDevice.submit`.
        """
        ...


class QuantumDevice(Protocol):
    """The quantum devices at the caller's node."""

    async def describe(self, caller: Caller) -> tuple[LinkSheet, ...]:
        """The links of pairs at the caller's node, as their devices are calibrated now.

        Raises: Refused(`instruction.nobody`).
        """
        ...

    async def subscribe(self, caller: Caller, listener: ReportListener) -> None:
        """Hear what is published for the caller's node, in the place of whoever heard it before.

        Raises: Refused(`instruction.nobody`) when the caller is not at a node of this domain.
        """
        ...

    async def submit(self, caller: Caller, instruction: CoreInstruction) -> None:
        """Ask for an instruction; the result comes to the listener when it is due.

        Raises:
            Refused(`instruction.nobody`, `instruction.value`, `instruction.unknown_link`,
                `instruction.unknown_handle`, `instruction.foreign_handle`, `instruction.expired`,
                `instruction.deadline`, `instruction.fidelity`, `instruction.not_entangled`,
                `instruction.too_many_qubits`).
            Busy(`instruction.memory_full`, `instruction.queue_full`, `instruction.unfinished`).
        """
        ...
