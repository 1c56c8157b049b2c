"""Core instructions of the twin: what a node may ask of its quantum devices, and what they report. Version 1.

An instruction is asked for now and its result is published when it is due, on the topic of each node that
learns of it. A result holds what a real device would report: outcomes, handles, times, never the true state.
Memories age between touches without being told to. Reference page: docs/formats/instructions.md.
"""

from __future__ import annotations

from typing import Protocol

from multiplane.kernel.nouns import Caller, Noun


class Instruction(Noun, frozen=True, kw_only=True):
    """Base: `request` is an id minted by the caller, unique at its node; said twice it counts once."""

    request: str


class Generate(Instruction, frozen=True, kw_only=True):
    """Make pairs on a link until `pairs` are made (0: until discarded by `Cancel`), or `deadline_ns`."""

    link: str
    pairs: int = 1
    min_fidelity: float = 0.0
    deadline_ns: int = 0
    keep: bool = True
    basis: str = "z"


class Swap(Instruction, frozen=True, kw_only=True):
    """Bell measurement of two halves at this node."""

    left: int
    right: int


class Discard(Instruction, frozen=True, kw_only=True):
    """Forget a qubit and free its memory."""

    handle: int


class Report(Noun, frozen=True, kw_only=True):
    """What a device reports of an instruction or of something that reached this node.

    Args:
        request: the instruction it answers; of the asker's node.
        node: site whose topic it is published on.
        due_ns: when the real device would say so, Unix nanoseconds.
        ok: whether it worked; if not, `code` and `reason` say why.
        handles: qubits at this node that it is about.
        bits: classical outcomes.
    """

    request: str
    node: str
    due_ns: int
    ok: bool = True
    handles: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    code: str = ""
    reason: str = ""


class ReportListener(Protocol):
    """A node's topic. Calls come in order of `due_ns` and never wait."""

    def report(self, report: Report) -> None: ...


class QuantumDevice(Protocol):
    """The quantum devices at the caller's node."""

    async def subscribe(self, caller: Caller, listener: ReportListener) -> None:
        """Hear what is published for the caller's node."""
        ...

    async def submit(self, caller: Caller, instruction: Instruction) -> None:
        """Ask for an instruction; the result comes to the listener when it is due.

        Raises: Refused(`instruction.invalid`) for what can be judged at once.
        """
        ...
