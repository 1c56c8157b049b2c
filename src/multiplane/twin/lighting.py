"""What happens to fibres and devices, as links of pairs feel it.

Whatever the cause, the world is looked at anew. While no light passes, or a device at an end has failed,
nobody tries, and what is held lives on. Other loss makes another pace; flipped bits, and whoever measures
or probes what travels, make other pairs. A device that fails loses what its memories held.
"""

from __future__ import annotations

import msgspec

from multiplane.kernel.errors import Refused
from multiplane.physics.bell import PHI_PLUS
from multiplane.physics.tampered_bb84 import left_of_pairs
from multiplane.twin.modules import Modules
from multiplane.twin.optics import Optics
from multiplane.twin.quantum.building import retune
from multiplane.twin.quantum.engine import Quantum
from multiplane.twin.quantum.links import FAILED, Link, lose
from multiplane.twin.quantum.nodes import Side
from multiplane.twin.quantum.policies import Policies
from multiplane.twin.scenario import World


class Lighting:
    """Keeps the links of pairs of a world in step with its fibres and devices."""

    def __init__(
        self, world: World, quantum: Quantum, optics: Optics, modules: Modules, policies: Policies
    ) -> None:
        self._words = {words.id: words for words in world.entanglement.links}
        self._left = dict.fromkeys(self._words, PHI_PLUS)
        self._hopeless: set[str] = set()
        self._quantum, self._optics, self._modules, self._policies = quantum, optics, modules, policies
        if self._words:
            optics.on_change = modules.on_change = self.look

    def look(self, span: str) -> None:
        """The fibre of a link, or a device at one of its ends, is not what it was."""
        if span not in self._words:
            return
        link = self._quantum.links[span]
        failed = self._modules.failed_at(span)
        if failed or self._optics.is_lost(span):
            link.darken()
        self._tune(span, link)
        for side in link.sides:
            works = side.node.name not in failed
            if side.working and not works:
                side.working = False
                self._lose_all(side)
            side.working = works
        if not failed and not self._optics.is_lost(span) and span not in self._hopeless:
            link.light()

    def _tune(self, span: str, link: Link) -> None:
        loss_db, left = self._optics.loss_db(span), left_of_pairs(self._optics.done(span))
        if (loss_db, left) == (self._words[span].loss_db, self._left[span]):
            return
        words = self._words[span] = msgspec.structs.replace(self._words[span], loss_db=loss_db)
        self._left[span] = left
        try:
            retune(link, words, left, self._policies)
            self._hopeless.discard(span)
        except (ValueError, Refused):  # so much is lost that it would never make a pair
            self._hopeless.add(span)
            link.darken()

    def _lose_all(self, side: Side) -> None:
        for qubit in [one for one in side.node.qubits.values() if one.side is side]:
            if qubit.slot >= 0:
                lose(qubit, self._quantum.now_ns(), FAILED)
