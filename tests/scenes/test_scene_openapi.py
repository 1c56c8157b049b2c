"""schemathesis on the OpenAPI document that a key manager serves: what it says is what it does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.scenes.tools.network import FULL, Network, running

pytestmark = [pytest.mark.scene, pytest.mark.timeout(1800)]

# Cases for each of the six operations, in either of two runs.
EXAMPLES = 1_300 if FULL else 20
LEAST_CASES = 10_000 if FULL else 250
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "501", "503", "505"]
"""
KNOWN = """
[parameters]
"path.slave_SAE_ID" = "bob-1"
"path.master_SAE_ID" = "bob-1"
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with running("pair", tmp_path_factory.mktemp("openapi")) as network:
        yield network


def test_the_document_holds(
    pair: Network, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    cases, saw = 0, []
    for name, config in (("any names", CONFIG), ("known names", CONFIG + KNOWN)):
        report = _run(pair, tmp_path, config, "/openapi.json")
        summary = re.findall(r"Test cases:\s*\n\s+([\d,]+) generated.*", report)
        assert summary, report
        cases += int(summary[0].replace(",", ""))
        saw.append(f"{name}: {summary[0]} cases")
    assert cases >= LEAST_CASES, saw
    record_property("saw", ", ".join(saw))


def test_the_document_of_units_holds(
    pair: Network, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report = _run(pair, tmp_path, CONFIG, "/units/v1/openapi.json")
    summary = re.findall(r"Test cases:\s*\n\s+([\d,]+) generated.*", report)
    assert summary, report
    assert int(summary[0].replace(",", "")) >= LEAST_CASES / 2
    record_property("saw", f"units: {summary[0]} cases")


def _run(network: Network, folder: Path, config: str, path: str) -> str:
    """The report of one run. Fails with it when a check has failed."""
    (folder / "schemathesis.toml").write_text(config)
    mine = network.saes["alice-1"]
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            *("--config-file", str(folder / "schemathesis.toml")),
            *("run", network.url("alice") + path),
            *("--tls-verify", network.ca, "--request-cert", mine.cert, "--request-cert-key", mine.key),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--seed", "7"),
            *("--max-examples", str(EXAMPLES), "--continue-on-failure", "--no-color", "--warnings", "off"),
            *("--generation-database", "none", "--suppress-health-check", "all"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_the_document_is_for_those_with_a_certificate(pair: Network) -> None:
    import asyncio

    async def fetch() -> dict[str, object]:
        client = pair.client("alice-1")
        try:
            found: dict[str, object] = json.loads((await client.request("GET", "/openapi.json")).body)
            return found
        finally:
            await client.close()

    document = asyncio.run(fetch())
    assert document["openapi"] == "3.1.0"
    assert document["security"] == [{"mutualTLS": []}]
