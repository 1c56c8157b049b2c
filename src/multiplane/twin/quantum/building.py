"""Makes nodes and links from what a world says."""

from __future__ import annotations

from collections.abc import Callable

from multiplane.api.policy import LinkFacts
from multiplane.kernel.ports import Timeline
from multiplane.physics.bell import Correlations
from multiplane.twin.quantum.chance import Chance
from multiplane.twin.quantum.devices import Entangled, Entanglement, MemoryKind
from multiplane.twin.quantum.links import Hooks, Link, Tags
from multiplane.twin.quantum.nodes import PS_PER_S, Memory, Node, Side, make_memory
from multiplane.twin.quantum.policies import Policies
from multiplane.twin.quantum.sources import make_source

LIGHT_KM_PER_S = 2e5
"""In fibre, as everywhere in this field."""


def build(
    entanglement: Entanglement,
    timeline: Timeline,
    chance_of: Callable[[str], Chance],
    policies: Policies,
    *,
    hooks: Hooks,
) -> tuple[dict[str, Node], dict[str, Link]]:
    """Nodes by site and links by id.

    Raises: ValueError `KEY: ...` for numbers that no device has.
    """
    noises = {kind.name: policies.noises[kind.model](dict(kind.numbers)) for kind in entanglement.noises}
    memories = {kind.name: make_memory(kind, noises, policies) for kind in entanglement.memories}
    memories[""] = make_memory(MemoryKind(name="ideal"), {}, policies)
    sites = sorted({site for link in entanglement.links for site in link.sites})
    nodes = {
        site: Node(site, index, len(sites), chance_of(f"node {site}")) for index, site in enumerate(sites)
    }
    links: dict[str, Link] = {}
    for words in entanglement.links:
        kinds = (memories[words.memory[0]], memories[words.memory[1]])
        efficiencies = (kinds[0].kind.efficiency, kinds[1].kind.efficiency)
        source = make_source(words, efficiencies)
        facts = link_facts(words, source.success_probability)
        link = Link(facts, source, timeline, chance_of(f"pairs {words.id}"), hooks)
        link.photon_probability = _photon_probability(words, efficiencies)
        link.tags = Tags(words.jitter_ps, chance_of(f"tags {words.id}"))
        link.sides = [
            _side(nodes[site], words, end, kinds[end], link) for end, site in enumerate(words.sites)
        ]
        link.protocol = policies.handshakes[words.handshake][words.attempts](facts, link)
        links[words.id] = link
    return nodes, links


def retune(link: Link, words: Entangled, left: Correlations, policies: Policies) -> None:
    """Let a link make pairs as `words` say from now on, over the fibre as it is now.

    Args: left: of each correlation of the pairs that `words` tell of.
    Raises: ValueError when it would never make a pair; Refused from a handshake that cannot serve it.
    """
    near, far = (side.memory.kind.efficiency for side in link.sides)
    made = make_source(words, (near, far))
    pair = Correlations(made.pair.x * left.x, made.pair.y * left.y, made.pair.z * left.z)
    source = made._replace(pair=pair)
    facts = link_facts(words, source.success_probability)
    protocol = policies.handshakes[words.handshake][words.attempts](facts, link)
    link.photon_probability = _photon_probability(words, (near, far))
    link.change(source, facts, protocol)


def _photon_probability(words: Entangled, efficiencies: tuple[float, float]) -> float:
    """That a photon that is sent from one end is stored at the other."""
    fibre: float = 10.0 ** (-words.loss_db / 10.0)
    return efficiencies[0] * efficiencies[1] * fibre


def link_facts(words: Entangled, success_probability: float) -> LinkFacts:
    """What the protocol of a link knows of it: the station is in the middle of the fibre."""
    delay_ps = round(words.length_km / LIGHT_KM_PER_S * PS_PER_S)
    half_ps = delay_ps // 2
    cycle_ps = 2 * half_ps
    wanted_ps = round(PS_PER_S / words.attempts_per_s) if words.attempts_per_s else 0
    return LinkFacts(
        link=words.id,
        sites=words.sites,
        success_probability=success_probability,
        delay_ps=delay_ps,
        photon_ps=half_ps,
        herald_ps=(half_ps, half_ps),
        reset_ps=max(0, wanted_ps - cycle_ps),
        memories=words.memories,
        dead_ps=round(words.dead_ns * 1000),
        numbers=dict(words.protocol),
    )


def _side(node: Node, words: Entangled, end: int, memory: Memory, link: Link) -> Side:
    side = node.sides[words.id] = Side(node, link, end, words.memories, memory)
    return side
