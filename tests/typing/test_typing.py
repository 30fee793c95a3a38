"""The author's face under both type checkers: what is right passes in strict mode, what is wrong does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = ("sample.py", "rejected.py")

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Complaint:
    file: str
    line: int
    text: str


def run_mypy(cache: Path) -> list[Complaint]:
    paths = [str(HERE / name) for name in FILES]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--output=json", f"--cache-dir={cache}", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr + done.stdout
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert reports, done.stdout
    return [
        Complaint(Path(each["file"]).name, each["line"], each["message"])
        for each in reports
        if each["severity"] == "error" and Path(each["file"]).resolve().parent == HERE
    ]


def run_pyright(folder: Path) -> list[Complaint]:
    config = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "include": [str(HERE / f) for f in FILES]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config | {"extraPaths": [str(ROOT)]}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
        + [str(HERE / name) for name in FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(FILES), done.stdout
    return [
        Complaint(Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    ]


@pytest.fixture(scope="module")
def mypy_complaints(tmp_path_factory: pytest.TempPathFactory) -> list[Complaint]:
    return run_mypy(tmp_path_factory.mktemp("mypy"))


@pytest.fixture(scope="module")
def pyright_complaints(tmp_path_factory: pytest.TempPathFactory) -> list[Complaint]:
    return run_pyright(tmp_path_factory.mktemp("pyright"))


def marked_lines() -> set[int]:
    lines = (HERE / "rejected.py").read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if re.search(r"# E:", line)}
