"""What planning sees of a domain: its links of pairs as they are calibrated, and what is free on them."""

from __future__ import annotations

from multiplane.api.instructions import LinkSheet
from multiplane.kernel.nouns import Noun


class LinkFact(Noun, frozen=True, kw_only=True):
    """A link of pairs now.

    Args:
        free: memories at each end that nobody has reserved, in the order of `sheet.sites`.
        up: whether it makes pairs when asked.
    """

    sheet: LinkSheet
    free: tuple[int, int]
    up: bool = True


class PairView(Noun, frozen=True, kw_only=True):
    """The links of a domain by id.

    Args: revision: rises with each change of a sheet or of `up` (not of `free`): tables are kept for it.
    """

    links: dict[str, LinkFact]
    revision: int = 0
