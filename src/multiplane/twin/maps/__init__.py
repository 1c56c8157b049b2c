"""Maps become scenarios: a reader for each format, then one plan. Rules: docs/formats/topology.md."""
