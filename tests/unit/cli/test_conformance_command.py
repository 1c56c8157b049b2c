"""conformance: a verdict table or JSON, and an exit code that says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from typer.testing import Result

from multiplane.cli import conformance
from multiplane.sdk.conformance.probe import Subject
from multiplane.sdk.conformance.verdicts import ConformanceReport, Origin, Outcome, PointResult, Verdict

Run = Callable[..., Result]
FILES = (
    "--ca",
    "ca.pem",
    "--cert",
    "a.pem",
    "--key",
    "a.key",
    "--slave-cert",
    "b.pem",
    "--slave-key",
    "b.key",
)
URL = "https://127.0.0.1:1"


def report(outcome: Outcome) -> ConformanceReport:
    """One point of each verdict."""
    points = tuple(
        PointResult(
            name=verdict.name.lower(),
            point=number,
            origin=Origin.STANDARD,
            clause=f"5.{number}",
            requires=f"requirement {number}",
            verdict=verdict,
            detail="[b]400[/b] said",
        )
        for number, verdict in enumerate(Verdict)
    )
    return ConformanceReport(
        standard="ETSI GS QKD 014 V1.1.1",
        server=URL,
        peer=URL,
        outcome=outcome,
        points=points,
        keys_taken=23,
        keys_collected=7,
        requests=86,
        duration_s=1.25,
    )


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.PASS, 0), (Outcome.DEVIATION, 1), (Outcome.INCONCLUSIVE, 1)]
)
def test_the_exit_code_says_the_outcome(
    multiplane: Run, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, code: int
) -> None:
    async def answered(subject: Subject) -> ConformanceReport:
        assert (subject.url, subject.peer_url, subject.slave_id) == (URL, URL, "bob")
        assert (subject.slave.cert, subject.timeout_s, subject.other) == (Path("b.pem"), 2.5, None)
        return report(outcome)

    monkeypatch.setattr(conformance, "run", answered)
    arguments = ("conformance", URL, *FILES, "--slave-id", "bob", "--timeout", "2.5")
    result = multiplane(*arguments)
    assert result.exit_code == code, result.stderr
    for text in (
        "5.1",
        "requirement 2",
        "not tested: [b]400[/b] said",
        "23 keys taken",
        f": {outcome} (1 pass",
    ):
        assert text in result.stdout, result.stdout
    told = msgspec.json.decode(multiplane(*arguments, "--json").stdout, type=ConformanceReport)
    assert told == report(outcome)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--slave-id", "bob", "--other-id", "carol"), "belong together"),
        (("--slave-id", "bob", "--timeout", "0"), "--timeout"),
        (("--slave-id", "bob"), "--ca ca.pem"),
        ((), "--slave-id"),
    ],
)
def test_wrong_options_are_one_line_and_2(multiplane: Run, arguments: tuple[str, ...], word: str) -> None:
    result = multiplane("conformance", URL, *FILES, *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert word in result.stderr
