"""Names of sites, links and elements. One slug rule; one URN form for elements of a domain.

Elements are `urn:qkd:<domain>:<site>:<role>`: role `kme` for the site itself (its key manager and its agent
speak with one certificate), any other label for an application. Controllers are
`urn:qkd:<domain>:controller`, the operator is `urn:qkd:<domain>:operator`.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import Final

NID: Final = "qkd"


def slug(name: str) -> str:
    """A site name as a label: lower-case ASCII letters, digits and `-` (`Concepción 2` → `concepcion-2`).

    Raises: ValueError when nothing is left.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    label = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:63].strip("-")
    if not label:
        raise ValueError(f"name: expected at least one ASCII letter or digit, got {name!r}")
    return label


def link_id(a: str, b: str) -> str:
    """Id of the link between two sites, whichever comes first."""
    # One string for each link: a large network names every one in a dozen places.
    return sys.intern(f"{a}--{b}" if a < b else f"{b}--{a}")


def element_urn(domain: str, site: str, role: str = "kme") -> str:
    """URN of an element or application at a site."""
    return f"urn:{NID}:{domain}:{site}:{role}"


def controller_urn(domain: str) -> str:
    """URN of the controllers of a domain."""
    return f"urn:{NID}:{domain}:controller"


def operator_urn(domain: str) -> str:
    """URN of whoever operates a domain."""
    return f"urn:{NID}:{domain}:operator"


def site_of(principal: str) -> str:
    """The site in an element's URN (`urn:qkd:madqci:quijote:kme` → `quijote`).

    Raises: ValueError when the URN does not name an element at a site.
    """
    labels = principal.split(":")
    if len(labels) != 5 or labels[0] != "urn":
        raise ValueError(f"principal: expected urn:<nid>:<domain>:<site>:<role>, got {principal!r}")
    return labels[3]
