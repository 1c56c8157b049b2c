"""Traffic, faults and attackers of a scenario: what is read, written, refused, and when it happens."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiplane.kernel.duration import duration_text
from multiplane.twin.chance import Chance
from multiplane.twin.fate import Spell, spells
from multiplane.twin.happenings import Attacker, Fault, Traffic, When
from multiplane.twin.scenario import World, parse
from multiplane.twin.scenario_writing import write
from multiplane.twin.toml_reading import ScenarioError

S = 10**9
HOUR = 3_600 * S
BASE = """format = "multiplane-scenario/1"
name = "three"
domain = "lab"

[[site]]
name = "Ann"
[[site]]
name = "Bea"
saes = ["bank", "vault"]
[[site]]
name = "Cid"

[[link]]
a = "Ann"
b = "Bea"
length_km = 30.0
loss_db = 6.0
profile = "decoy-bb84-1ghz"
[[link]]
a = "Bea"
b = "Cid"
length_km = 1.0
loss_db = 1.0
profile = "constant-rate"
rate_bit_per_s = 1e6

"""
FIRST_LINE = BASE.count("\n") + 1


def world(sections: str) -> World:
    return parse(BASE + sections, "three.toml")


def fault_line(sections: str) -> str:
    with pytest.raises(ScenarioError) as error:
        world(sections)
    return error.value.reason


EVERY_WORD = """[[traffic]]
master = "ann-1"
slave = "vault"
process = "diurnal"
rate_per_s = 2.5
swing_ratio = 0.8
period = "24h"
peak = "14h"
size_bit = 512
number = 3
from = "1h"
until = "2d"
[[traffic]]
master = "*"
slave = "*"
process = "bursts"
rate_per_s = 10
burst = "10s"
pause = "1m"
[[fault]]
kind = "cut"
link = ["Bea", "ann"]
at = ["90s", "1h30m"]
duration = "5m"
[[fault]]
kind = "drift"
link = ["ann", "bea"]
loss_db = 2.0
flip_probability = 0.01
ramp = "30m"
[[fault]]
kind = "device"
link = ["bea", "cid"]
site = "Cid"
rate_per_h = 0.5
duration = "10m"
[[fault]]
kind = "clock"
link = "*"
offset_ps = 450
every = "1h"
duration = "1m"
[[fault]]
kind = "site"
site = "*"
at = "2h"
[[attacker]]
kind = "intercept-resend"
link = "*"
share = 0.1
from = "10m"
until = "20m"
"""


def test_every_word_is_read_and_written_back() -> None:
    read = world(EVERY_WORD)
    assert read.traffic[0] == Traffic(
        master="ann-1", slave="vault", process="diurnal", rate_per_s=2.5, swing_ratio=0.8,
        period_ns=24 * HOUR, peak_ns=14 * HOUR, size_bit=512, number=3, from_ns=HOUR, until_ns=48 * HOUR,
    )  # fmt: skip
    assert (read.traffic[1].burst_ns, read.traffic[1].pause_ns) == (10 * S, 60 * S)
    when = When(at_ns=(90 * S, 5_400 * S), duration_ns=300 * S)
    assert read.faults[0] == Fault(kind="cut", links=("ann--bea",), when=when)
    assert [fault.links for fault in read.faults[1:4]] == [
        ("ann--bea",), ("bea--cid",), ("ann--bea", "bea--cid"),
    ]  # fmt: skip
    assert read.faults[4].sites == ("ann", "bea", "cid")
    assert read.attackers == (
        Attacker(
            kind="intercept-resend", links=("ann--bea", "bea--cid"), share=0.1,
            when=When(from_ns=600 * S, until_ns=1_200 * S),
        ),
    )  # fmt: skip
    assert parse(write(read), "again.toml") == read


ATTACK = '[[attacker]]\nkind = "tap"\nlink = ["ann", "bea"]\nloss_db = 3.0\n'
CUT = '[[fault]]\nkind = "cut"\nlink = ["ann", "bea"]\n'
PAIRS = '[[traffic]]\nlink = ["ann", "bea"]\nkind = "pairs"\nprocess = "poisson"\nrate_per_s = 1\n'
ASK = '[[traffic]]\nmaster = "ann-1"\nslave = "bank"\nprocess = "poisson"\nrate_per_s = 1\n'


@pytest.mark.parametrize(
    ("sections", "line", "told"),
    [
        (ATTACK.replace("tap", "taap"), 1, "attacker[1].kind: got 'taap', expected 'tap'"),
        (ATTACK.replace("3.0", "0"), 3, "attacker[1].loss_db: got 0, expected a number above 0"),
        (ATTACK.replace("loss_db = 3.0", ""), 0, "attacker[1].loss_db: missing"),
        (ATTACK + "leak_mu = 1.0", 4, "attacker[1].leak_mu: unknown key"),
        (ATTACK.replace('"bea"]', '"cid"]'), 2, "no link between 'ann' and 'cid'"),
        (ATTACK.replace('"ann", ', '"cid", '), 2, "tap does nothing to profile 'constant-rate' of bea--cid"),
        (ATTACK.replace('["ann", "bea"]', '"all"'), 2, 'expected two sites ["a", "b"], or "*"'),
        (CUT + "at = 90", 3, "fault[1].at: got 90, expected a time such as 90s, 1h30m or 250ms"),
        (CUT + 'at = ["2m", "1m"]', 3, "fault[1].at: times are out of order"),
        (CUT + "at = []", 3, "fault[1].at: got 0 times"),
        (CUT + 'at = "1m"\nevery = "2m"', 4, "fault[1].every: beside 'at', expected only one of them"),
        (CUT + 'every = "2m"', 0, "fault[1].duration: missing, expected how long it lasts beside 'every'"),
        (CUT + 'every = "2m"\nduration = "2m"', 4, "fault[1].duration: lasts into the next"),
        (CUT + 'duration = "2m"', 3, "fault[1].duration: without at, every or rate_per_h"),
        (CUT + 'from = "2m"\nuntil = "1m"', 4, "fault[1].until: is not after the begin"),
        (
            CUT + 'rate_per_h = -1\nduration = "1m"',
            3,
            "fault[1].rate_per_h: got -1, expected a number above 0",
        ),
        (CUT + 'site = "ann"', 3, "fault[1].site: unknown key"),
        (
            CUT.replace("cut", "device") + 'site = "cid"',
            3,
            "no module of that link stands there, expected 'ann'",
        ),
        (CUT.replace("cut", "drift"), 0, "fault[1]: drifts nothing, expected loss_db or flip_probability"),
        ('[[fault]]\nlink = "*"\n', 0, "fault[1].kind: missing, expected one of cut, drift"),
        (ASK.replace('"bank"', '"bnk"'), 2, "traffic[1].slave: unknown application 'bnk', expected 'bank'"),
        (ASK.replace('"bank"', '"ann-1"'), 2, "traffic[1].slave: 'ann-1' is the master too"),
        (ASK.replace("poisson", "bursts"), 0, "traffic[1].burst: missing"),
        (ASK + "size_bit = 100", 5, "traffic[1].size_bit: got 100, expected a multiple of 8"),
        (ASK + 'kind = "qubits"', 5, "traffic[1].kind: got 'qubits', expected"),
        (ASK + 'kind = "pairs"', 1, "traffic[1].master: unknown key, expected one of link"),
        (PAIRS, 1, "traffic[1].link: 'ann--bea' makes no pairs, expected an [[entangled]] link"),
        (PAIRS.replace('["ann", "bea"]', '"*"'), 1, "traffic[1].link: '*' makes no pairs"),
        (PAIRS + "size_bit = 8", 5, "traffic[1].size_bit: unknown key"),
        (ASK + 'peak = "1h"', 5, "traffic[1].peak: unknown key"),
        (ASK.replace("rate_per_s = 1", "rate_per_s = nan"), 4, "traffic[1].rate_per_s: got nan"),
    ],
)
def test_what_cannot_be_is_one_line_with_its_place(sections: str, line: int, told: str) -> None:
    reason = fault_line(sections)
    assert told in reason
    assert reason.startswith(f"three.toml:{FIRST_LINE + line}: ")
    assert "\n" not in reason


TIMES = st.integers(0, 100 * HOUR).map(duration_text)


@given(
    st.dictionaries(
        st.sampled_from(("at", "every", "rate_per_h", "from", "until", "duration")),
        st.one_of(
            TIMES.map(lambda text: f'"{text}"'),
            st.lists(TIMES, max_size=3).map(lambda many: "[" + ", ".join(f'"{one}"' for one in many) + "]"),
            st.floats(0.001, 1e3).map(repr),
            st.text("0123456789.hmsd-x", max_size=6).map(lambda text: f'"{text}"'),
        ),
    )
)
def test_any_schedule_is_read_and_written_back_or_refused_in_one_line(keys: dict[str, str]) -> None:
    text = CUT + "".join(f"{key} = {value}\n" for key, value in keys.items())
    try:
        read = world(text)
    except ScenarioError:
        assert "\n" not in fault_line(text)
        return
    assert parse(write(read), "again.toml") == read
    for a, b in pairwise(islice(spells(read.faults[0].when, chance()), 20)):
        assert a.end_ns is not None
        assert a.begin_ns < a.end_ns <= b.begin_ns


def test_a_star_stands_for_the_links_that_it_reaches() -> None:
    read = world('[[attacker]]\nkind = "jamming"\nbackground_probability = 1e-5\nlink = "*"\n')
    assert read.attackers[0].links == ("ann--bea",)  # the other link is constant-rate
    assert parse(write(read), "again.toml") == read


def chance(number: int = 0) -> Chance:
    return Chance(bytes(32), f"test {number}", 1)


def test_schedules_say_when() -> None:
    def of(**when: Any) -> list[Spell]:
        return list(islice(spells(When(**when), chance()), 4))

    assert of() == [(0, None)]
    assert of(from_ns=5, until_ns=9) == [(5, 9)]
    assert of(at_ns=(3, 7)) == [(3, None)]
    assert of(at_ns=(3, 4, 7, 20), duration_ns=2, until_ns=8) == [(3, 5), (7, 8)]
    assert of(every_ns=10, from_ns=1, duration_ns=2, until_ns=25) == [(1, 3), (11, 13), (21, 23)]


@pytest.mark.parametrize("number", range(3))
def test_failures_by_chance_come_at_their_rate(number: int) -> None:
    """Working times are exponential: mean 1/rate and its spread, within 4 sigma, both sides."""
    when, count = When(rate_per_h=3.0, duration_ns=600 * S), 2_000
    seen = list(islice(spells(when, chance(number)), count))
    ends = [0, *(spell.end_ns or 0 for spell in seen)]
    working_s = [(spell.begin_ns - end_ns) / 1e9 for spell, end_ns in zip(seen, ends, strict=False)]
    mean_s = sum(working_s) / count
    assert abs(mean_s - 1_200.0) < 4 * 1_200.0 / count**0.5
    square = sum(value**2 for value in working_s) / count
    assert abs(square / (2 * 1_200.0**2) - 1) < 4 * (20 / 4) ** 0.5 / count**0.5
    assert {(spell.end_ns or 0) - spell.begin_ns for spell in seen} == {600 * S}


def test_chance_is_its_own_for_each_element_and_repeats() -> None:
    first = [chance(1).uniform() for _ in range(3)]
    one = chance(1)
    many = [one.uniform() for _ in range(1_000)]
    assert first == [many[0]] * 3
    assert len(set(many)) == 1_000
    assert not set(many) & {chance(2).uniform()}
    assert all(0.0 < value < 1.0 for value in many)
    assert abs(sum(many) / 1_000 - 0.5) < 4 * (1 / 12 / 1_000) ** 0.5
