"""Multiplane: a quantum-network stack in three strata, and its digital twin."""
