"""What the doctor finds out about fed links: whether they can be, and whether their sources answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from multiplane.assembly.feeds.line import plain
from multiplane.assembly.feeds.settings import Feed, FeedEnd, check_feeds
from multiplane.assembly.feeds.source import Connect, Source, connect
from multiplane.assembly.findings import Finding, fail, ok
from multiplane.kernel.errors import MultiplaneError, Refused
from multiplane.kernel.quantity import bit_from_byte


async def audit(
    feeds: Sequence[Feed], spans: Collection[str], rate: float, connect: Connect = connect
) -> list[Finding]:
    """Ask the source at each end for its status; no key is taken.

    Args:
        spans: ids of the links of the scenario.
        rate: simulated seconds per wall second.
    """
    try:
        check_feeds(feeds, spans, rate)
    except Refused as error:
        return [fail("feed", error.reason, "correct that line")]
    ends = [end for feed in feeds for end in feed.ends]
    return list(await asyncio.gather(*(_source(end, connect) for end in ends)))


async def _source(end: FeedEnd, connect: Connect) -> Finding:
    check = f"feed: {end.link} at {end.site}"
    source = Source(end, connect)
    try:
        terms = await source.terms()
    except MultiplaneError as error:
        return fail(check, plain(error.reason), "correct its [feed] table, or ask who runs that key manager")
    finally:
        await source.forget()
    return ok(check, f"{end.host} gives up to {terms.most} keys of {bit_from_byte(terms.size_byte)} bit")
