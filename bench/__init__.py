"""Measurements: each a ratio to a reference of the same run, its goal in the docstring of its module.

`python -m bench` runs all and prints a table; `python -m bench keys many` chooses. Load, reference and
server are processes of their own; on two or more cores the load has one to itself. Ratios and CPU times
are the results; absolute rates belong to the machine and the hour, and are only reported.
"""
