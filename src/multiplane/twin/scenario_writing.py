"""The writer of scenario files: what it writes, `twin.scenario.parse` reads back as the same world."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from multiplane.kernel.duration import duration_text
from multiplane.twin.happenings import EVERY, Happening, When
from multiplane.twin.quantum import writing as entangled
from multiplane.twin.scenario import FORMAT, Site, Span, World


def write(world: World, header: Sequence[str] = (), comments: Mapping[str, str] | None = None) -> str:
    """A scenario file.

    Args:
        world: as `parse` makes it (labels of sites are those of their titles).
        header: comment lines for the top.
        comments: a comment line for a site, by label, or for a link, by id.
    """
    above = comments or {}
    profiles = Counter(span.profile for span in world.spans).most_common(1)
    default = profiles[0][0] if profiles else None
    lines = [*map(_comment, header)]
    lines += [f"format = {_text(FORMAT)}", f"name = {_text(world.name)}", f"domain = {_text(world.domain)}"]
    if default:
        lines += ["", "[defaults]", f"profile = {_text(default)}"]
    for site in world.sites:
        lines += ["", *_above(above, site.name), "[[site]]", *_site(site)]
    for span in world.spans:
        lines += ["", *_above(above, span.id), "[[link]]", *_link(span, default)]
    lines += entangled.lines(world.entanglement)
    ends = {span.id: span.sites for span in world.spans}
    happenings: tuple[tuple[str, tuple[Happening, ...]], ...] = (
        ("traffic", world.traffic),
        ("fault", world.faults),
        ("attacker", world.attackers),
    )
    for name, tables in happenings:
        for table in tables:
            lines += ["", f"[[{name}]]", *_happening(table, ends)]
    return "\n".join(lines) + "\n"


def _happening(table: Happening, ends: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """What differs from its default; times as people write them."""
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        if value == field.default:
            continue
        if isinstance(value, When):
            yield from _happening(value, ends)
        elif field.name == "links":
            yield f"link = {_text(EVERY) if len(value) > 1 else _list(ends[value[0]])}"
        elif field.name == "path":
            yield f"path = {_list(value)}"
        elif field.name == "sites":
            yield f"site = {_text(EVERY if len(value) > 1 else value[0])}"
        elif field.name == "at_ns":
            yield f"at = {_list(duration_text(at_ns) for at_ns in value)}"
        elif field.name.endswith("_ns"):
            yield f"{field.name.removesuffix('_ns')} = {_text(duration_text(value))}"
        else:
            yield f"{field.name} = {_text(value) if isinstance(value, str) else repr(value)}"


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, texts))}]"


def _site(site: Site) -> Iterator[str]:
    yield f"name = {_text(site.title)}"
    if site.saes != (f"{site.name}-1",):
        yield f"saes = [{', '.join(map(_text, site.saes))}]"
    if site.lat_deg is not None and site.lon_deg is not None:
        yield f"lat_deg = {site.lat_deg!r}"
        yield f"lon_deg = {site.lon_deg!r}"


def _link(span: Span, default: str | None) -> Iterator[str]:
    yield f"a = {_text(span.sites[0])}"
    yield f"b = {_text(span.sites[1])}"
    yield f"length_km = {span.length_km!r}"
    if span.length_basis != "stated":
        yield f"length_basis = {_text(span.length_basis)}"
    yield f"loss_db = {span.loss_db!r}"
    if span.loss_basis != "stated":
        yield f"loss_basis = {_text(span.loss_basis)}"
    if span.profile != default:
        yield f"profile = {_text(span.profile)}"
    if span.rate_bit_per_s:
        yield f"rate_bit_per_s = {span.rate_bit_per_s!r}"


def _above(comments: Mapping[str, str], name: str) -> list[str]:
    return [_comment(comments[name])] if name in comments else []


def _text(text: str) -> str:
    """A basic string of TOML: that of JSON, but DEL is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(line: str) -> str:
    plain = "".join(character if character.isprintable() else " " for character in line)
    return f"# {plain}".rstrip()
