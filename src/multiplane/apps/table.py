"""The applications by name, and how one is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from multiplane.api.units import Consumption, Part, Wish
from multiplane.apps.bell_tests import chsh, e91
from multiplane.apps.blind import blind_gate
from multiplane.apps.clock import clock_offset
from multiplane.apps.ghz_uses import conference_key, sensing
from multiplane.apps.results import Findings
from multiplane.apps.states import Party
from multiplane.apps.teleportation import remote_cnot, teleport
from multiplane.kernel.errors import Refused

_REQUEST_BIT: Final = 96
MOST_PARTIES: Final = 6


class Application(NamedTuple):
    """An application.

    Args:
        run: what it does; kind: of the unit that it asks for; parties: fewest and most.
        size: states that it asks for when nobody says how many.
        about: in a few words.
    """

    run: Callable[[Sequence[Party], Wish, Random], Awaitable[Findings]]
    kind: str
    parties: tuple[int, int]
    size: int
    about: str
    consumption: Consumption = Consumption.REACTIVE


APPLICATIONS: Final[Mapping[str, Application]] = {
    "chsh": Application(chsh, "bell", (2, 2), 400, "violation of a Bell inequality"),
    "e91": Application(e91, "bell", (2, 2), 6000, "key whose secrecy shows in a Bell inequality"),
    "teleport": Application(teleport, "bell", (2, 2), 200, "six states sent over pairs"),
    "cnot": Application(remote_cnot, "bell", (2, 2), 200, "a CNOT between qubits of two nodes"),
    "blind": Application(blind_gate, "bell", (2, 2), 300, "a gate computed by who must not know it"),
    "conference": Application(conference_key, "ghz", (3, MOST_PARTIES), 2000, "one key for all parties"),
    "sensing": Application(sensing, "sensing", (2, MOST_PARTIES), 200, "the sum of phases at several places"),
    "clock": Application(clock_offset, "timeline", (2, 2), 200, "offset of two clocks", Consumption.TOLERANT),
}


def application(name: str, parties: int) -> Application:
    """The application of this name for so many parties. Raises: Refused(`input.app`)."""
    if name not in APPLICATIONS:
        raise Refused("input.app", f"app {name!r}: expected one of {', '.join(APPLICATIONS)}")
    found = APPLICATIONS[name]
    fewest, most = found.parties
    if not fewest <= parties <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise Refused("input.app", f"app {name}: got {parties} ends, expected {wanted}")
    return found


async def run(
    name: str,
    parties: Sequence[Party],
    chance: Random,
    *,
    size: int = 0,
    min_fidelity: float = 0.0,
    valid_s: float = 0.0,
    options: Sequence[tuple[str, str]] = (),
) -> Findings:
    """Run an application once.

    Args: parties: the first asks; chance: by which ends draw what they measure; size: states, 0 = as it
        likes; min_fidelity in [0, 1]; valid_s: of the unit, 0 = the kind's default;
        options: of its kind.
    Raises: Refused(`input.app`), and what `states.use` raises.
    """
    chosen = application(name, len(parties))
    wish = Wish(
        request=f"{name}-{chance.getrandbits(_REQUEST_BIT):024x}",
        parties=tuple(party.name for party in parties[1:]),
        parts=(
            Part(
                kind=chosen.kind,
                size=size or chosen.size,
                min_fidelity=min_fidelity,
                options=tuple(options),
            ),
        ),
        valid_s=valid_s,
        consumption=chosen.consumption.value,
    )
    return await chosen.run(parties, wish, chance)
