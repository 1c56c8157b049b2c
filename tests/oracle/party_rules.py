"""Rules for states of many parties, as `state_rules` has them for pairs."""

from __future__ import annotations

import numpy as np
from tests.oracle.state_samples import Random, apart, chunks, pairs, some_weights

from multiplane.physics import dense, multipartite


def star(random: Random, count: int, leaves: int) -> float:
    """GHZ state of the leaves after the centre measures in the GHZ basis, and the contrast of its fringe."""
    worst = 0.0
    for size in chunks(count, 4096 >> (2 * leaves)):
        weights = [some_weights(random, size) for _ in range(leaves)]
        state = dense.tensor(*(dense.bell_diagonal(one) for one in weights))
        # Qubits: centre, leaf, centre, leaf, ... -> centre's first.
        state = dense.permute(state, [*range(0, 2 * leaves, 2), *range(1, 2 * leaves, 2)])
        for leaf in range(1, leaves):
            state = dense.apply(state, dense.CNOT, 0, leaf)
        state = dense.apply(state, dense.H, 0)
        made = np.zeros((size, 1 << leaves, 1 << leaves), dtype=np.complex128)
        for told in range(1 << leaves):
            bits = [told >> place & 1 for place in range(leaves)]
            left = state
            for bit in bits:
                left = dense.outcome(left, 0, bit)
            for leaf in range(1, leaves):
                left = dense.apply(left, dense.X, leaf) if bits[leaf] else left
            made = made + (dense.apply(left, dense.Z, 0) if bits[0] else left)
        rows = list(zip(*(pairs(one) for one in weights), strict=True))
        found = [[multipartite.ghz_from_star(row), multipartite.star_visibility(row)] for row in rows]
        contrast = 2.0 * made[:, 0, -1].real
        expected = np.stack([dense.overlap(made, dense.ghz(leaves)), contrast], axis=-1)
        worst = max(worst, apart(found, expected))
    return worst


def ghz_star(random: Random, count: int) -> float:
    """Stars of two and three leaves, and a few of four."""
    return max(star(random, count, 2), star(random, count // 2, 3), star(random, count // 500, 4))


def ghz_with_centre(random: Random, count: int) -> float:
    """A centre that is a party itself: its qubit is copied through each pair."""
    worst = 0.0
    for leaves in (1, 2, 3):
        for size in chunks(count // leaves, 256):
            weights = [some_weights(random, size) for _ in range(leaves)]
            made = np.broadcast_to(dense.pure([1, 1]), (size, 2, 2))
            for leaf in range(leaves):
                made = dense.tensor(made, dense.bell_diagonal(weights[leaf]))
                here, there = leaf + 1, leaf + 2
                made = dense.apply(made, dense.CNOT, 0, here)
                flipped = dense.apply(dense.outcome(made, here, 1), dense.X, there - 1)
                made = dense.outcome(made, here, 0) + flipped
            rows = zip(*(pairs(one) for one in weights), strict=True)
            found = [[multipartite.ghz_with_centre(row)] for row in rows]
            worst = max(worst, apart(found, dense.overlap(made, dense.ghz(leaves + 1))[:, None]))
    return worst


def ghz_tree(random: Random, count: int) -> float:
    """Two sites that join two pairs and a half of the pair between them; either is a party, or measures."""
    worst = 0.0
    ends = [("a", "m"), ("b", "m"), ("m", "n"), ("c", "n")]
    for bare in ("", "m", "n", "mn"):
        parties = [site for site in "abmnc" if site not in bare]
        for size in chunks(-(-count // 40), 16):
            weights = [some_weights(random, size) for _ in ends]
            # Qubits: a, m of a, b, m of b, m of n, n of m, c, n of c.
            made = dense.tensor(*(dense.bell_diagonal(one) for one in weights))
            # Fused into the half at m of the pair with n, or at n of the pair with m: the far end flips.
            for kept, lost, flipped in ((4, 1, 0), (3, 1, 1), (3, 5, 4)):
                made = dense.apply(made, dense.CNOT, kept, lost)
                turned = dense.apply(dense.outcome(made, lost, 1), dense.X, flipped)
                made = dense.outcome(made, lost, 0) + turned
            # Left: a, b, m, n, c.
            for place, site in ((3, "n"), (2, "m")):
                if site in bare:
                    turned = dense.apply(dense.outcome(made, place, 1, "x"), dense.Z, 0)
                    made = dense.outcome(made, place, 0, "x") + turned
            rows = list(zip(*(pairs(one) for one in weights), strict=True))
            found = [[multipartite.ghz_from_tree(ends, parties, row)] for row in rows]
            worst = max(worst, apart(found, dense.overlap(made, dense.ghz(len(parties)))[:, None]))
    return worst


def graph_state(random: Random, count: int) -> float:
    """Controlled-Z gates teleported through pairs, along a line, a triangle and a square."""
    worst = 0.0
    shapes = (3, [(0, 1), (1, 2)]), (3, [(0, 1), (2, 1), (0, 2)]), (4, [(0, 1), (1, 2), (2, 3), (3, 0)])
    for nodes, edges in shapes:
        perfect = dense.pure(np.ones(1 << nodes))
        for edge in edges:
            perfect = dense.apply(perfect, dense.CZ, *edge)
        for size in chunks(-(-count // 3), 128):
            weights = [some_weights(random, size) for _ in edges]
            made = np.broadcast_to(dense.pure(np.ones(1 << nodes)), (size, 1 << nodes, 1 << nodes))
            for (first, second), odds in zip(edges, weights, strict=True):
                made = teleported_cz(made, first, second, dense.bell_diagonal(odds))
            rows = list(zip(*(pairs(one) for one in weights), strict=True))
            found = [[multipartite.graph_state(nodes, edges, row)] for row in rows]
            expected = dense.overlap(made, perfect)
            worst = max(worst, apart(found, expected[:, None]))
            floors = np.array([multipartite.graph_state_floor(row) for row in rows])
            worst = max(worst, float(np.max(floors - expected)))
            direct = np.prod(np.stack([odds[:, 0] for odds in weights]), axis=0)
            worst = max(worst, float(np.max(np.abs(floors - direct))))
    return worst


def teleported_cz(state: dense.Matrix, first: int, second: int, pair: dense.Matrix) -> dense.Matrix:
    """CZ between two qubits through a pair: near half at the first one, far half at the second."""
    near = dense.count(state)
    state = dense.tensor(state, pair)
    state = dense.apply(state, dense.CNOT, first, near)
    state = dense.outcome(state, near, 0) + dense.apply(dense.outcome(state, near, 1), dense.X, near)
    state = dense.apply(state, dense.CZ, near, second)
    return np.asarray(
        dense.outcome(state, near, 0, "x") + dense.apply(dense.outcome(state, near, 1, "x"), dense.Z, first)
    )
