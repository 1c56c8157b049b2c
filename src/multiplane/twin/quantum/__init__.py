"""The twin's quantum engine: states, memories, links and the core instructions that act on them."""
