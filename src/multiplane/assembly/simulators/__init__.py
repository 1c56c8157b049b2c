"""Backends as they run in the Python of another simulator: plain scripts that import nothing of this package."""
