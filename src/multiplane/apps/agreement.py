"""From bits that several ends measured to one secret key, by what they tell one another in public.

The first end is the reference; with each other one it has a line. Told are: axes, bits of states that are no
key, parities (`distillation.cascade`), a hash that compares, a hash that makes secret. Nothing is used before
all lines are closed.
*Source*: steps as in Renner, Int. J. Quantum Inf. 6, 1 (2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Annotated, Final, NamedTuple, TypeVar

from msgspec import Meta

from multiplane.apps.public_line import SHARED_BYTE, Line, forged
from multiplane.apps.results import Figure, share_of, together
from multiplane.distillation.cascade import Block, Reference, corrected
from multiplane.distillation.hashing import hashed, seed_bit
from multiplane.kernel.nouns import Noun, Secret
from multiplane.physics import key_length
from multiplane.physics.decoy_bb84 import binary_entropy

T = TypeVar("T")
KEY_AXIS: Final = "z"
CHECK_AXIS: Final = "x"
MARK_BIT: Final = 32
"""Told of the bits to compare them: different ones pass for equal with probability 2^-32."""
SECRECY: Final = 1e-6
CORRECTION_RATIO: Final = 1.2
"""What theory takes correction to tell, over the least possible."""
_SALT_BIT: Final = 128
_LONGEST_BIT: Final = 2**20
_MOST_SIFTED_BIT: Final = 1e9
_STEP_RATIO: Final = 1.1

_Bit = Annotated[int, Meta(ge=0, le=1)]
_Count = Annotated[int, Meta(ge=0, le=_LONGEST_BIT)]
_Share = Annotated[float, Meta(ge=0.0, le=0.5)]


class Notes(NamedTuple):
    """What one end wrote down of each state, in order: the axis, and the bit."""

    axes: str
    bits: tuple[int, ...]


class Round(NamedTuple):
    """A state of which all was told: axes and bits of all ends."""

    axes: tuple[str, ...]
    bits: tuple[int, ...]

    @property
    def odd(self) -> bool:
        """Whether the bits have odd parity: along `CHECK_AXIS`, a phase error."""
        return sum(self.bits) % 2 == 1


class Key(Secret, frozen=True, kw_only=True):
    """A key as one end has it."""

    key: bytes


class Agreed(NamedTuple):
    """What came of sifted bits.

    Args:
        keys: of each end, in order; length_bit: of each. certified_bit: what is secret of so short a block.
        sifted: how many bits they come from, what was told of them, errors along the other axis.
        errors: bits that each other end had wrong; marks: hash of the bits at each end, as compared.
    """

    keys: tuple[Key, ...]
    length_bit: int
    certified_bit: int
    sifted: key_length.Sifted
    errors: tuple[int, ...]
    marks: tuple[str, ...]

    def error_share(self, end: int) -> tuple[float, float]:
        """Share of the sifted bits that this end, from 1, had wrong, and its standard error."""
        wrong = self.errors[end - 1]
        return share_of([at < wrong for at in range(self.sifted.size_bit)])


class _Axes(Noun, frozen=True, kw_only=True):
    axes: str


class _Kept(Noun, frozen=True, kw_only=True):
    states: tuple[_Count, ...]


class _Bits(Noun, frozen=True, kw_only=True):
    bits: tuple[_Bit, ...]


class _Begin(Noun, frozen=True, kw_only=True):
    error_rate: _Share
    salt: str


class _Asked(Noun, frozen=True, kw_only=True):
    blocks: tuple[Block, ...]


class _Hash(Noun, frozen=True, kw_only=True):
    seed: Annotated[str, Meta(pattern="^[0-9a-f]+$")]
    length_bit: _Count


class _Compared(Noun, frozen=True, kw_only=True):
    mark: str
    errors: _Count = 0


def lines_for(others: int, chance: Random) -> list[Line]:
    """A line to each other end. The key of its tags is taken for given, as by every distribution of keys."""
    return [Line(chance.randbytes(SHARED_BYTE)) for _ in range(others)]


def notes_of(rounds: Sequence[Round]) -> list[Notes]:
    """What each end wrote down."""
    ends = range(len(rounds[0].axes))
    return [
        Notes("".join(one.axes[end] for one in rounds), tuple(one.bits[end] for one in rounds))
        for end in ends
    ]


def sifted(notes: Sequence[Notes], lines: Sequence[Line]) -> tuple[list[list[int]], list[Round]]:
    """Bits of each end where all measured along `KEY_AXIS`, and all of the other states.

    Args: notes: of the reference, then of the other ends in the order of `lines`.
    Raises: Refused(`app.forged`).
    """
    ours, *others = notes
    try:
        told = [line.say(1, _Axes(axes=one.axes)).axes for line, one in zip(lines, others, strict=True)]
        rounds = list(zip(ours.axes, *told, strict=True))
        kept = tuple(at for at, axes in enumerate(rounds) if set(axes) == {KEY_AXIS})
        bits_of, shown = [_at(ours.bits, kept)], [tuple(_but(ours.bits, kept))]
        for line, one in zip(lines, others, strict=True):
            heard = line.say(0, _Kept(states=kept)).states
            bits_of.append(_at(one.bits, heard))
            shown.append(line.say(1, _Bits(bits=tuple(_but(one.bits, heard)))).bits)
        return bits_of, [
            Round(*one) for one in zip(_but(rounds, kept), zip(*shown, strict=True), strict=True)
        ]
    except (ValueError, IndexError):
        raise forged() from None


def agree(
    bits_of: Sequence[Sequence[int]],
    checks: Sequence[Round],
    error_rate: float,
    lines: Sequence[Line],
    chance: Random,
    *,
    allowed: bool = True,
) -> Agreed:
    """Correct sifted bits, compare and shorten them.

    Args:
        bits_of: of the reference, then of the other ends; checks: states measured along `CHECK_AXIS`.
        error_rate: of the bits, as far as it is known before; allowed: False = make no key of them.
    Raises: Refused(`app.forged`).
    """
    ours, size_bit = bits_of[0], len(bits_of[0])
    begin = _Begin(error_rate=min(max(error_rate, 0.0), 0.5), salt=f"{chance.getrandbits(_SALT_BIT):x}")
    reference = Reference(ours, begin.salt)
    compare = _hash(size_bit, MARK_BIT, chance)
    fixed_of, compared = [list(ours)], [_Compared(mark=_marked(ours, compare))]
    try:
        for line, bits in zip(lines, bits_of[1:], strict=True):
            fixed = _corrected(line, reference, begin, bits)
            errors = sum(one != other for one, other in zip(bits, fixed, strict=True))
            # The hash comes last: chosen before, errors could be made that it does not see.
            mark = _marked(fixed, line.say(0, compare))
            compared.append(line.say(1, _Compared(mark=mark, errors=errors)))
            fixed_of.append(fixed)
        sifted_bits = key_length.Sifted(
            size_bit=size_bit,
            told_bit=reference.leak_bit + MARK_BIT,
            phase_error_rate=sum(one.odd for one in checks) / max(len(checks), 1),
            checked=len(checks),
        )
        equal = len({one.mark for one in compared}) == 1
        length_bit = key_length.asymptotic_bit(sifted_bits) if allowed and checks and equal else 0
        shorten = _hash(size_bit, length_bit, chance)
        heard_of = [shorten, *(line.say(0, shorten) for line in lines)]
        keys = [_key(fixed, heard) for fixed, heard in zip(fixed_of, heard_of, strict=True)]
    except (ValueError, IndexError):
        raise forged() from None
    for line in lines:
        line.close()
    return Agreed(
        keys=tuple(keys),
        length_bit=length_bit,
        certified_bit=min(length_bit, key_length.certified_bit(sifted_bits, SECRECY)),
        sifted=sifted_bits,
        errors=tuple(one.errors for one in compared[1:]),
        marks=tuple(one.mark for one in compared),
    )


def figure_of(agreed: Agreed, theory_error_rate: float) -> Figure:
    """Secret bits in a sifted bit, beside 1 - h(Q) - f h(Q) less what comparing costs, Q the error rate."""
    size_bit = max(agreed.sifted.size_bit, 1)
    slopes = [_slope(agreed.sifted.phase_error_rate, agreed.sifted.checked)]
    slopes.append(CORRECTION_RATIO * _slope(max(agreed.errors) / size_bit, size_bit))
    return Figure(
        name="secret bits in a sifted bit",
        value=agreed.length_bit / size_bit,
        error=together(slopes),
        theory_value=_theory_bit(size_bit, theory_error_rate) / size_bit,
    )


def remarks_on(agreed: Agreed, theory_error_rate: float) -> tuple[str, ...]:
    """What was agreed, in words: never the key."""
    bits = agreed.sifted
    if len(set(agreed.marks)) > 1:
        return (f"{bits.size_bit} sifted bits; hashes differ ({', '.join(agreed.marks)}): thrown away",)
    first_bit = _first_certified_bit(bits, theory_error_rate)
    first = f"from {first_bit:,} sifted bits on" if first_bit else "at no size"
    return (
        f"a key of {agreed.length_bit} bits from {bits.size_bit} sifted ones, in theory "
        f"{_theory_bit(bits.size_bit, theory_error_rate):.0f}; hash {agreed.marks[0]} at all "
        f"{len(agreed.marks)} ends",
        f"{bits.told_bit} bits were told to correct and compare; tags spent {8 * SHARED_BYTE} on each line",
        f"certified at this size, to {SECRECY:g}: {agreed.certified_bit} bits; in theory some {first}",
    )


def _theory_bit(size_bit: int, error_rate: float) -> float:
    entropy = binary_entropy(error_rate)
    return max(0.0, size_bit * (1.0 - entropy - CORRECTION_RATIO * entropy) - MARK_BIT)


def _first_certified_bit(bits: key_length.Sifted, error_rate: float) -> int:
    """Sifted bits, within a tenth, from which on key is certified, 0 = never; checked states grow alike."""
    size_bit, entropy = 1.0, binary_entropy(error_rate)
    while size_bit < _MOST_SIFTED_BIT:
        size_bit *= _STEP_RATIO
        told_bit = CORRECTION_RATIO * entropy * size_bit + MARK_BIT
        checked = round(size_bit * bits.checked / max(bits.size_bit, 1))
        if key_length.certified_bit(
            key_length.Sifted(round(size_bit), told_bit, error_rate, checked), SECRECY
        ):
            return round(size_bit)
    return 0


def _slope(error_rate: float, number: int) -> float:
    """How uncertain h(Q) is, when Q was seen in so many."""
    smooth = (error_rate * number + 1.0) / (number + 2.0)
    spread = math.sqrt(smooth * (1.0 - smooth) / (number + 2.0))
    return abs(math.log2((1.0 - smooth) / smooth)) * spread


def _corrected(line: Line, reference: Reference, begin: _Begin, bits: Sequence[int]) -> list[int]:
    heard = line.say(0, begin)
    asking = corrected(bits, heard.error_rate, heard.salt)
    answers: Sequence[int] | None = None
    while True:
        try:
            blocks = next(asking) if answers is None else asking.send(answers)
        except StopIteration as done:
            fixed: list[int] = done.value
            return fixed
        asked = line.say(1, _Asked(blocks=blocks)).blocks
        answers = line.say(0, _Bits(bits=reference.parities(asked))).bits


def _hash(size_bit: int, length_bit: int, chance: Random) -> _Hash:
    return _Hash(seed=f"{chance.getrandbits(seed_bit(size_bit, length_bit)):x}", length_bit=length_bit)


def _marked(bits: Sequence[int], told: _Hash) -> str:
    return f"{hashed(bits, int(told.seed, 16), told.length_bit):0{MARK_BIT // 4}x}"


def _key(bits: Sequence[int], told: _Hash) -> Key:
    value = hashed(bits, int(told.seed, 16), told.length_bit)
    return Key(key=value.to_bytes(math.ceil(told.length_bit / 8), "little"))


def _at(row: Sequence[T], places: Sequence[int]) -> list[T]:
    return [row[at] for at in places]


def _but(row: Sequence[T], places: Sequence[int]) -> list[T]:
    left_out = set(places)
    return [one for at, one in enumerate(row) if at not in left_out]
