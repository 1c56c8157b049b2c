"""The command unit request: a wish, its answer, and its states as they come."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec
import typer

from multiplane.api.units import Answer, Consumption, Part, UnitEvent, Verdict, Wish
from multiplane.assembly.ready import Ready
from multiplane.cli import unit_view
from multiplane.cli.keys import APPLICATION, find_application
from multiplane.cli.network import DEFAULT_STATE, JsonOption, StateOption, print_json
from multiplane.cli.unit_ends import client_of, listening
from multiplane.kernel.duration import duration_ns
from multiplane.kernel.errors import Refused
from multiplane.kernel.quantity import NS_PER_S
from multiplane.sdk.units import UnitClient
from multiplane.sdk.wishes import wish as any_wish

KindOption = Annotated[str, typer.Option(help="bell, ghz, graph, key, or another registered kind.")]
SizeOption = Annotated[int, typer.Option(help="How many states, or keys.")]
FidelityOption = Annotated[
    float, typer.Option(help="Floor: nothing worse is delivered; 0 = none.", min=0.0, max=1.0)
]
SizeBitOption = Annotated[int, typer.Option(help="Bits of each key; 0 = the default.", min=0)]
EdgeOption = Annotated[
    list[str] | None, typer.Option(help="Edge of a graph state: two places such as 0-1; 0 = FROM.")
]
LogicalErrorOption = Annotated[
    float,
    typer.Option(help="How often an encoded state may be wrong; 0 = no matter.", min=0.0, max=1.0),
]
OptionOption = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE that a kind asks for beyond; again for more.")
]
PartOption = Annotated[
    list[str] | None,
    typer.Option(help="Member of a pack, as kind=ghz,size=2,min_fidelity=0.9; in the place of --kind."),
]
ValidOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="How long the unit shall live, such as 10s.")
]
RateOption = Annotated[
    float, typer.Option(help="States a second until the unit ends, no more and no fewer; 0 = once.", min=0.0)
]
ClassOption = Annotated[
    Consumption, typer.Option("--class", help="States are used any time, once all have them, or at --at.")
]
AtOption = Annotated[int, typer.Option("--at", help="Unix nanoseconds, for --class deterministic.", min=0)]
ViaOption = Annotated[list[str] | None, typer.Option(help="Site that the route must pass.")]
AvoidOption = Annotated[list[str] | None, typer.Option(help="Site that it must not pass.")]
OfferOption = Annotated[bool, typer.Option("--accept-offer", help="Take a counter-offer at once.")]
RetryOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Wait so long for room where there is none now.")
]


_PART_WORDS: Final = {
    "kind": "NAME",
    "size": "WHOLE NUMBER",
    "min_fidelity": "NUMBER",
    "size_bit": "WHOLE NUMBER",
    "max_logical_error_rate": "NUMBER",
}


def add_to(unit: typer.Typer) -> None:
    """Hang the command on the group."""
    unit.command("request")(request)


def _part(text: str) -> Part:
    """`kind=ghz,size=2,min_fidelity=0.9` as a part."""
    words: dict[str, Any] = {}
    for word in text.split(","):
        name, equals, value = word.partition("=")
        if not equals or name not in _PART_WORDS:
            known = ", ".join(_PART_WORDS)
            raise Refused("input.part", f"--part {text!r}: expected NAME=VALUE with a name of {known}")
        words[name] = value
    try:
        return msgspec.convert(words, Part, strict=False)
    except msgspec.ValidationError:
        expected = "; ".join(f"{name}={value}" for name, value in _PART_WORDS.items())
        raise Refused("input.part", f"--part {text!r}: expected {expected}") from None


def _edge(text: str) -> tuple[int, int]:
    one, dash, other = text.partition("-")
    if not (dash and one.isdecimal() and other.isdecimal()):
        raise Refused("input.edge", f"--edge {text!r}: expected two places such as 0-1, 0 = FROM")
    return int(one), int(other)


def option_of(text: str) -> tuple[str, str]:
    """What `--option` says. Raises: Refused(`input.option`)."""
    name, equals, value = text.partition("=")
    if not equals:
        raise Refused("input.option", f"--option {text!r}: expected NAME=VALUE")
    return name, value


def seconds_of(option: str, text: str | None) -> float:
    """What an option such as `--valid` says, 0 without it. Raises: Refused(`input.duration`)."""
    if text is None:
        return 0.0
    try:
        return duration_ns(text) / NS_PER_S
    except ValueError as error:
        raise Refused("input.duration", f"{option}: {error}") from None


def _party(ready: Ready, name: str) -> str:
    """The URN of an application of ready.json; any other URN as it is."""
    if name.startswith("urn:") and name not in {sae.urn for sae in ready.saes.values()}:
        return name
    return ready.saes[find_application(ready, name)].urn


def request(
    *,
    asker: Annotated[str, typer.Argument(metavar="FROM", help=APPLICATION)],
    parties: Annotated[list[str], typer.Argument(metavar="PARTY...", help="The others, named likewise.")],
    kind: KindOption = "bell",
    size: SizeOption = 1,
    min_fidelity: FidelityOption = 0.0,
    logical_error: LogicalErrorOption = 0.0,
    size_bit: SizeBitOption = 0,
    edge: EdgeOption = None,
    option: OptionOption = None,
    part: PartOption = None,
    valid: ValidOption = None,
    rate: RateOption = 0.0,
    consumption: ClassOption = Consumption.REACTIVE,
    at_ns: AtOption = 0,
    via: ViaOption = None,
    avoid: AvoidOption = None,
    accept_offer: OfferOption = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the states and print each.")] = False,
    retry: RetryOption = None,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Wish for a state shared with other applications; print the answer, its URNs, and what is promised.

    An answer is accepted, a counter-offer, or refused with the best that could be had. Said again, a wish for
    what lies in stock is answered at once: compare what is printed of both.

    Examples:

        multiplane unit request alice bob --wait

        multiplane unit request alice bob carol --kind ghz --size 10 --min-fidelity 0.9 --valid 4s --wait

        multiplane unit request alice bob --kind key --size 2 --size-bit 256

        multiplane unit request alice bob carol dave --kind graph --edge 0-1 --edge 1-2 --edge 2-3

        multiplane unit request alice bob --part kind=bell,size=2 --part kind=bell,min_fidelity=0.95
    """
    single = Part(
        kind=kind,
        size=size,
        min_fidelity=min_fidelity,
        max_logical_error_rate=logical_error,
        size_bit=size_bit,
        edges=tuple(map(_edge, edge or ())),
        options=tuple(map(option_of, option or ())),
    )
    if part and single != Part(kind="bell"):
        reason = (
            "--part: expected without --kind, --size, --min-fidelity, --logical-error, --size-bit, --edge"
        )
        raise Refused("input.part", f"{reason} and --option: each part says its own")
    ready = listening(state)
    asked = any_wish(
        [_party(ready, name) for name in parties],
        [_part(text) for text in part] if part else [single],
        valid_s=seconds_of("--valid", valid),
        rate_per_s=rate,
        consumption=consumption.value,
        at_ns=at_ns,
        via=tuple(via or ()),
        avoid=tuple(avoid or ()),
        accept_offer=accept_offer,
    )
    who = find_application(ready, asker)
    sent = _Request(asked, seconds_of("--retry", retry), wait=wait, as_json=as_json)
    if not asyncio.run(sent.whole(client_of(ready, who))):
        raise typer.Exit(1)


class _Request:
    """A wish, its answer, and its states as they come."""

    def __init__(self, wish: Wish, retry_for_s: float, *, wait: bool, as_json: bool) -> None:
        self._wish, self._retry_for_s = wish, retry_for_s
        self._wait, self._as_json = wait, as_json

    async def whole(self, client: UnitClient) -> bool:
        """Ask, print, and wait if told to; whether all was granted."""
        async with client:
            began_ns = time.perf_counter_ns()
            answer = await client.request(self._wish, retry_for_s=self._retry_for_s)
            took_ns = time.perf_counter_ns() - began_ns
            if not self._as_json:
                typer.echo("\n".join(unit_view.answer_lines(answer, took_ns)))
            if answer.verdict != Verdict.ACCEPTED.value:
                self._print_json(answer, ())
                return False
            events = await self._states(client, answer.unit) if self._wait else ()
            self._print_json(answer, events)
            if not self._wait:
                return True
            return sum(event.what == "delivered" for event in events) >= self._count

    @property
    def _count(self) -> int:
        """States that will come; keys are fetched, and come as one event for each as well."""
        return sum(part.size for part in self._wish.parts)

    async def _states(self, client: UnitClient, unit: str) -> tuple[UnitEvent, ...]:
        found: list[UnitEvent] = []
        left = self._count
        if not self._as_json:
            typer.echo(f"waiting for {left}; Ctrl-C leaves the unit alive", err=True)
        async with aclosing(client.events(unit)) as events:
            async for event in events:
                found.append(event)
                if not self._as_json:
                    typer.echo(unit_view.event_line(event))
                left -= event.what == "delivered"
                if not left:
                    break
        return tuple(found)

    def _print_json(self, answer: Answer, events: tuple[UnitEvent, ...]) -> None:
        if self._as_json:
            print_json({"answer": answer, "events": events} if self._wait else answer)
