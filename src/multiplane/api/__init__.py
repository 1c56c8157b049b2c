"""The doors: one module per open interface between strata, applications and devices."""
