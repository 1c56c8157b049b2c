"""Several ends make one key of what they measured, and none when somebody changes a word of what they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest
from tests.support.dense_units import DenseNetwork, white

from multiplane.apps import agreement
from multiplane.apps.agreement import Agreed, Notes, agree, sifted
from multiplane.apps.public_line import SHARED_BYTE, Line
from multiplane.apps.results import lines
from multiplane.apps.table import run
from multiplane.kernel.errors import Refused
from multiplane.physics import dense


def noted(number: int, ends: int, error_rate: float, chance: Random) -> list[Notes]:
    """Notes of ends that measure equal bits along z and even parities along x, but for errors."""
    axes = "".join(chance.choice("zzzx") for _ in range(number))
    bits: list[list[int]] = [[] for _ in range(ends)]
    for axis in axes:
        bit = chance.randrange(2)
        row = [bit if axis == "z" else chance.randrange(2) for _ in range(ends)]
        row[-1] = row[-1] if axis == "z" else sum(row[:-1]) % 2
        for end, one in enumerate(row):
            bits[end].append(one ^ (chance.random() < error_rate))
    return [Notes(axes, tuple(row)) for row in bits]


def agreed(ends: int, carry: Callable[[bytes], bytes] = bytes, seed: int = 1, error: float = 0.01) -> Agreed:
    chance = Random(seed)
    notes = noted(600, ends, error, chance)
    spoken = [Line(chance.randbytes(SHARED_BYTE), carry) for _ in range(ends - 1)]
    bits_of, shown = sifted(notes, spoken)
    return agree(bits_of, shown, 2.0 * error, spoken, chance)


@pytest.mark.parametrize("ends", [2, 3, 5])
def test_all_ends_have_one_key(ends: int) -> None:
    found = agreed(ends)
    assert len({one.key for one in found.keys}) == 1
    assert len(found.keys) == len(found.marks) == ends
    assert len(found.keys[0].key) * 8 - 7 <= found.length_bit <= len(found.keys[0].key) * 8
    assert found.length_bit > 100
    assert found.sifted.size_bit == 600 - found.sifted.checked > 400
    assert sum(found.errors) > 0
    assert re.fullmatch(r"Key\(key=<\d+ bytes>\)", repr(found.keys[0]))
    assert agreed(ends, seed=2).keys[0].key != found.keys[0].key


def test_ones_and_zeros_of_keys_are_even() -> None:
    ones = sum(int.from_bytes(found.keys[0].key, "little").bit_count() for found in map(_of_seed, range(6)))
    total = sum(_of_seed(seed).length_bit for seed in range(6))
    assert abs(ones - total / 2) < 4 * (total / 4) ** 0.5


def _of_seed(seed: int) -> Agreed:
    return agreed(2, seed=seed)


def words_changed(which: bytes, old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """A way that changes the messages with `which` in them."""
    return lambda sent: sent.replace(old, new, 1) if which in sent else sent


@pytest.mark.parametrize(
    "carry",
    [
        words_changed(b"axes", b"z", b"x"),
        words_changed(b"states", b"[", b"[599,"),
        words_changed(b"states", b"[", b"[99999,"),
        words_changed(b"bits", b"[0", b"[1"),
        words_changed(b"bits", b"]", b",1]"),
        words_changed(b"blocks", b'"start":0', b'"start":1'),
        words_changed(b"seed", b'"seed":"', b'"seed":"1'),
        words_changed(b"errors", b'"errors":', b'"errors":1'),
        words_changed(b"salt", b'"salt":"', b'"salt":"0'),
        lambda sent: sent[:-1],
        lambda sent: b"{}",
    ],
)
def test_a_changed_word_costs_the_key(carry: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Refused, match="public line: one end heard") as told:
        agreed(3, carry)
    assert told.value.code == "app.forged"


def test_another_tag_or_key_before_is_a_forgery() -> None:
    for tamper in (lambda tag: bytes(16), lambda tag: tag[:-1] + bytes([tag[-1] ^ 1])):
        line = Line(bytes(range(SHARED_BYTE)), tamper)
        with pytest.raises(Refused, match="no key"):
            line.close()
    Line(bytes(range(SHARED_BYTE))).close()


def test_bits_that_correction_left_unequal_make_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_corrected", lambda line, reference, begin, bits: list(bits))
    found = agreed(3)
    assert (found.length_bit, found.certified_bit) == (0, 0)
    assert len(set(found.marks)) > 1
    assert "thrown away" in agreement.remarks_on(found, 0.01)[0]


@pytest.mark.parametrize(("name", "ends"), [("e91", 2), ("conference", 3)])
def test_applications_end_with_a_key_and_never_show_it(
    name: str, ends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    made: list[Agreed] = []

    def remember(*args: object, **named: object) -> Agreed:
        made.append(agree(*args, **named))  # type: ignore[arg-type]
        return made[-1]

    module = "bell_tests" if name == "e91" else "ghz_uses"
    monkeypatch.setattr(f"multiplane.apps.{module}.agree", remember)
    pure = dense.bell(0) if ends == 2 else dense.ghz(ends)
    network = DenseNetwork(white(pure, 0.97), 0.97, seed=5)
    found = asyncio.run(run(name, network.parties("a", "b", "c")[:ends], Random(3), size=400))
    (one,) = made
    key = one.keys[0].key
    assert len(key) >= 4
    assert {other.key for other in one.keys} == {key}
    shown = "\n".join(lines(found))
    assert f"hash {one.marks[0]} at all {ends} ends" in shown
    assert "certified at this size, to 1e-06: 0 bits; in theory some from " in shown
    assert key.hex() not in shown
    assert str(int.from_bytes(key, "little")) not in repr(found)
