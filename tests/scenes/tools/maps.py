"""Scenarios from the maps of the reference data, by simple rules of our own: spans of 80 km at most."""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from pathlib import Path

SHARED = Path(os.environ.get("MULTIPLANE_SHARED", "../shared"))
MAPS = ("cambridge-2019", "coronet-conus", "geant-2012", "madqci-2024", "nobel-germany")
SPAN_KM = 80.0
ROUTE_FACTOR = 1.3
LOSS_DB_PER_KM = 0.2


def scenario(name: str, folder: Path) -> Path:
    """Write the scenario of a map; relays (`saes = []`) divide its longer links into equal spans."""
    found = json.loads((SHARED / "topologies" / f"{name}.json").read_text())
    factor = ROUTE_FACTOR if found["length_basis"].startswith("great-circle") else 1.0
    lines = ['format = "multiplane-scenario/1"', f'name = "{name}"', f'domain = "{name}"']
    lines += ["[defaults]", 'profile = "decoy-bb84-1ghz"']
    lines += [f'[[site]]\nname = "{_label(node["name"])}"' for node in found["nodes"]]
    for link in found["links"]:
        a, b = _label(link["a"]), _label(link["b"])
        length_km = max(0.1, link["km"] * factor)
        parts = math.ceil(length_km / SPAN_KM)
        loss_db = (link.get("loss_db") or length_km * LOSS_DB_PER_KM) / parts
        relays = [f"{a}-{b}-r{number}" for number in range(1, parts)]
        lines += [f'[[site]]\nname = "{relay}"\nsaes = []' for relay in relays]
        for left, right in zip([a, *relays], [*relays, b], strict=True):
            lines += [f'[[link]]\na = "{left}"\nb = "{right}"']
            lines += [f"length_km = {length_km / parts:.3f}\nloss_db = {loss_db:.3f}"]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _label(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
