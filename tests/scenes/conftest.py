"""What each scene saw, printed under the results: `record_property("saw", text)` in a test."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each scene that recorded something."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
    ]
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for report in reports
        for name, text in report.user_properties
        if name == "saw"
    ]
    if lines:
        terminalreporter.section("what the scenes saw")
        for line in lines:
            terminalreporter.write_line(line)
