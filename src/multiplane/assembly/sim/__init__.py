"""`multiplane sim`: the whole network under the jump clock, once for each seed, and what came of it."""
