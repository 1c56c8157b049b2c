"""Identity, policy, one-time pads, key ids, sealing and certificates: pure, no I/O."""
