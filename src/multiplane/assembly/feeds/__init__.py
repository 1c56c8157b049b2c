"""Links fed by real devices or another network: their key comes over ETSI GS QKD 014, not from the twin."""
