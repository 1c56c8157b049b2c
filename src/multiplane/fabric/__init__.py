"""The Quantum Fabric Stratum: links, relays, forwarding."""
