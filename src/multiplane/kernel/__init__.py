"""Names, quantities, errors, ports and shared nouns: what every storey may import."""
