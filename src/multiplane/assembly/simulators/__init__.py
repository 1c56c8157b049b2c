"""Backends as the Python of another simulator runs them: scripts that import nothing of this package."""
