"""Child process of test_contracts_bite: plants violations in a copy of src, one at a time, and lints each.

Reads a JSON list of {"path", "code"} from standard input, prints a JSON list of the names of the contracts
that each one broke; the first answer is for the unharmed copy. It never imports the package, so that the
copy (first on `sys.path`) is what the linter sees.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from importlinter.application import use_cases
from importlinter.configuration import configure


def broken_contracts(config: Path) -> list[str]:
    """Names of the contracts that the copy breaks."""
    options = use_cases.read_user_options(config_filename=str(config))
    use_cases._register_contract_types(options)
    report = use_cases.create_report(options, cache_dir=None)
    return [contract.name for contract, check in report.get_contracts_and_checks() if not check.kept]


def main() -> None:
    """Lint the copy as it is, then with each violation."""
    package, config = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(package.parent))
    configure()
    answers = [broken_contracts(config)]
    for violation in json.load(sys.stdin):
        target = package / violation["path"]
        before = target.read_text(encoding="utf-8") if target.exists() else None
        new_folder = not target.parent.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        if new_folder:
            (target.parent / "__init__.py").touch()
        target.write_text(f"{before or ''}\n{violation['code']}\n", encoding="utf-8")
        answers.append(broken_contracts(config))
        if new_folder:
            shutil.rmtree(target.parent)
        elif before is None:
            target.unlink()
        else:
            target.write_text(before, encoding="utf-8")
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
