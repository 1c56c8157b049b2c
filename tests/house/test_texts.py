"""Rules for everything that is tracked: the project speaks of itself alone and runs anywhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

# Brackets around one letter keep the patterns from matching themselves.
FORBIDDEN: Final = {
    r"(?<![\w.$}~])/(?:[h]ome|[r]oot|[U]sers|[w]ork|[t]mp|[m]nt)/\w": "an absolute path of one machine",
    r"[p]ypi\.org|[p]ythonhosted|[n]pmjs\.|[c]rates\.io|[c]onda\.anaconda": "a package registry",
    r"\b[l]anguage model\b|\b[A]I[- ](?:generated|assist)": "a word about how it was made",
}
ADR_PARTS: Final = ("Context", "Choice", "Rejected", "How we would notice being wrong")


def tracked_texts() -> list[tuple[str, str]]:
    """(path, text) of every tracked text file."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    texts = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (raw := path.read_bytes()):
            texts.append((name, raw.decode("utf-8")))
    return texts


def test_texts_speak_of_the_project_alone() -> None:
    texts = tracked_texts()
    assert len(texts) > 20, "git lists hardly any file: this test would pass on nothing"
    breaches = [
        f"{name}:{number} {why}: {found.group()!r}"
        for name, text in texts
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, why in FORBIDDEN.items()
        if (found := re.search(pattern, line))
    ]
    assert not breaches, "\n" + "\n".join(breaches)


def test_requirements_hold_names_versions_and_hashes_only() -> None:
    line = re.compile(r"[a-z0-9-]+==[\w.]+(?: ; [\w .'<>=!]+)? \\|    --hash=sha256:[0-9a-f]{64}(?: \\)?")
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        wrong = [text for text in path.read_text(encoding="utf-8").splitlines() if not line.fullmatch(text)]
        assert not wrong, f"{path.name}: {wrong[:3]}"


def test_run_time_pins_are_also_the_pins_of_the_tests() -> None:
    def pins(name: str) -> set[str]:
        return {text for text in (ROOT / "requirements" / name).read_text().splitlines() if "==" in text}

    assert pins("run.txt") <= pins("dev.txt")


def test_changes_have_fragments() -> None:
    fragments = [path for path in (ROOT / "changelog.d").glob("*.md") if path.name != "README.md"]
    assert fragments, "changelog.d holds no fragment"
    for path in fragments:
        words = path.read_text(encoding="utf-8").split()
        assert 3 <= len(words) <= 90, f"{path.name}: {len(words)} words, expected one or two sentences"
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.md", path.name), f"{path.name}: expected room-topic.md"


def test_decisions_are_short_and_complete() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    numbers = [path.name[:4] for path in decisions]
    assert numbers == [f"{number:04d}" for number in range(1, len(decisions) + 1)], numbers
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 40, f"{path.name}: more than 40 lines"
        for part in ADR_PARTS:
            assert f"**{part}.**" in text, f"{path.name}: lacks **{part}.**"


def test_readme_names_the_two_commands_and_they_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("run", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
