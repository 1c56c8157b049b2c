"""How the two ends of a link come to a pair: named handshakes, each in two fidelities.

`message`: an event for every message and attempt. `jump`: one draw per pair, for where attempts do not touch
one another. A third party's class stands beside them if it keeps to `api.policy.LinkProtocol`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from multiplane.api.policy import LinkFacts, LinkHost, LinkProtocol, MakeLinkProtocol
from multiplane.kernel.errors import Refused
from multiplane.twin.handshake.grant import GrantJump, GrantMessages
from multiplane.twin.handshake.request_poll import RequestPollJump, RequestPollMessages

FIDELITIES: Final = ("jump", "message")
HANDSHAKES: Final[Mapping[str, Mapping[str, MakeLinkProtocol]]] = {
    "grant": {"jump": GrantJump, "message": GrantMessages},
    "request-poll": {"jump": RequestPollJump, "message": RequestPollMessages},
}


def open_handshake(name: str, fidelity: str, facts: LinkFacts, host: LinkHost) -> LinkProtocol:
    """The handshake `name` of one link.

    Args: name: of HANDSHAKES; fidelity: of FIDELITIES.
    Raises: Refused(`handshake.unknown`) for another name, Refused(`handshake.interacting`) where one draw per
        pair would miss that attempts interact (the reason names what does), Refused(`handshake.no_delay`)
        where polls would take no time.
    """
    if name not in HANDSHAKES:
        raise Refused(
            "handshake.unknown", f"handshake: got {name!r}, expected one of {', '.join(HANDSHAKES)}"
        )
    if fidelity not in FIDELITIES:
        reason = f"fidelity: got {fidelity!r}, expected one of {', '.join(FIDELITIES)}"
        raise Refused("handshake.unknown", reason)
    if name == "request-poll" and facts.delay_ps == 0:
        raise Refused("handshake.no_delay", f"delay_ps: got 0 on link {facts.link}, expected > 0 to poll")
    if fidelity == "jump" and (unseen := interactions(name, facts)):
        reason = f"fidelity: got 'jump', expected 'message' for link {facts.link}: {'; '.join(unseen)}"
        raise Refused("handshake.interacting", reason)
    return HANDSHAKES[name][fidelity](facts, host)


def interactions(name: str, facts: LinkFacts) -> tuple[str, ...]:
    """Why attempts on a link depend on one another under the handshake `name`, one clause each; empty when
    they do not, so that one draw per pair has the same law as every message."""
    found = []
    if facts.dead_ps and facts.memories > 1:
        found.append(
            f"{facts.memories} memories share detectors that are dead {facts.dead_ps} ps after a herald"
        )
    cycle_ps = facts.photon_ps + max(facts.herald_ps) + facts.reset_ps
    if facts.dead_ps > cycle_ps:
        found.append(f"detectors are dead {facts.dead_ps} ps, longer than an attempt of {cycle_ps} ps")
    near_ps, far_ps = facts.herald_ps
    if name == "request-poll" and far_ps - near_ps > facts.delay_ps:
        found.append(
            f"end 1 hears {far_ps - near_ps} ps after end 0, more than a delay of {facts.delay_ps} ps:"
            " requests come before the memory of their attempt is free"
        )
    return tuple(found)
