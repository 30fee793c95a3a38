"""The client under both type checkers: results have the handler's type, wrong calls do not pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "tests/support/client_typed.py"

pytestmark = pytest.mark.timeout(300)


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr + done.stdout
    return done.stdout


def mypy(cache: Path) -> dict[int, str]:
    said = run("mypy", "--strict", "--output=json", f"--cache-dir={cache}", "-m=tests.support.client_typed")
    reports = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {
        r["line"]: r["message"]
        for r in reports
        if r["severity"] == "error" and Path(r["file"]).name == MODULE.name
    }


def pyright(_cache: Path) -> dict[int, str]:
    report = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, str(MODULE)))
    found = [each for each in report["generalDiagnostics"] if each["severity"] == "error"]
    return {each["range"]["start"]["line"] + 1: each["message"] for each in found}


@pytest.mark.parametrize("checker", [mypy, pyright], ids=["mypy", "pyright"])
def test_what_is_right_passes_and_what_is_wrong_does_not(checker: object, tmp_path: Path) -> None:
    lines = MODULE.read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if "# E:" in line and not line.startswith('"')}
    found = checker(tmp_path)  # type: ignore[operator]  # one of the two above
    assert {n: text for n, text in found.items() if n not in marked} == {}
    assert marked - found.keys() == set()
