"""A probe of ETSI GS QKD 014 V1.1.1: asks any server, point by point, what it does, and cites the clause."""
