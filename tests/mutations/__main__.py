"""Tests the tests: removes one guard at a time (guards.py) from a copy of the tree, and runs the test that must notice.

    python -m tests.mutations [WORD…]      all guards, or those with one of these words in their name

First each test must pass on the copy as it is, so that a broken setup is not taken for a found mutant; a mutant counts as
found only where its test fails, not where it cannot be set up. Exit code 1 when a mutant survives, 2 when the script
itself is out of date or the tests do not pass.
"""

# ruff: noqa: T201 - a table for people
from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from tests.mutations.guards import GUARDS, Guard

_ROOT: Final = Path(__file__).parents[2]
_NOT_COPIED: Final = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "node_modules"
)
_TEST_S: Final = 300.0
_SAID_MAX: Final = 72


class OutOfDateError(Exception):
    """A guard cannot be removed as it is written here."""


@dataclass(frozen=True, slots=True)
class Result:
    """`said`: the first failure, or why there is none."""

    passed: int
    failed: int
    broken: int  # could not be set up or torn down
    said: str


def main() -> int:
    guards = _chosen()
    with tempfile.TemporaryDirectory(prefix="noria-mutations-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(_ROOT, tree, ignore=_NOT_COPIED)
        try:
            for guard in guards:
                mutated(tree, guard)
        except OutOfDateError as old:
            print(f"out of date: {old}")
            return 2
        tests = list(dict.fromkeys(guard.test for guard in guards))
        print(f"{len(tests)} tests on the tree as it is ...", flush=True)
        sound = run(tree, tests)
        if sound.failed or sound.broken or not sound.passed:
            print(f"they must pass first: {sound.said}")
            return 2
        survived = [guard for guard in guards if not _is_found(tree, guard)]
    print(f"{len(guards) - len(survived)} of {len(guards)} mutants were found")
    return 1 if survived else 0


def _chosen() -> list[Guard]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutations", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("words", nargs="*", help="parts of the names of guards; default: all")
    words = parser.parse_args().words
    chosen = [guard for guard in GUARDS if not words or any(word in guard.name for word in words)]
    if not chosen:
        parser.error(f"no guard has any of these in its name: {' '.join(words)}")
    return chosen


def mutated(tree: Path, guard: Guard) -> str:
    """The file without the guard. Raises OutOfDateError."""
    text = (tree / guard.path).read_text(encoding="utf-8")
    for there, instead in guard.texts:
        if (count := text.count(there)) != 1:
            raise OutOfDateError(f"{guard.name}: {guard.path} has {count} times {there!r}")
        text = text.replace(there, instead)
    if guard.path.endswith(".py"):
        compile(text, guard.path, "exec")
    return text


@contextmanager
def without(tree: Path, guard: Guard) -> Iterator[None]:
    path = tree / guard.path
    before = path.read_text(encoding="utf-8")
    path.write_text(mutated(tree, guard), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")


def _is_found(tree: Path, guard: Guard) -> bool:
    began_s = time.monotonic()
    with without(tree, guard):
        result = run(tree, [guard.test])
    found = result.failed > 0 and not result.broken
    word = "found" if found else "BROKEN" if result.broken else "SURVIVED"
    print(f"{word:9} {time.monotonic() - began_s:5.1f} s  {guard.name}")
    print(f"          {guard.test.rpartition('/')[2]}: {result.said[:_SAID_MAX]}", flush=True)
    return found


def run(tree: Path, tests: Sequence[str]) -> Result:
    """These tests in this tree, with what it imports from there too."""
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_TEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Result(0, 0, 1, f"not over in {_TEST_S:.0f} s")
    if done.returncode not in {0, 1} or not report.exists():
        return Result(
            0, 0, 1, f"pytest ended with {done.returncode}: {_last_line(done.stdout + done.stderr)}"
        )
    return _read(report)


def _read(report: Path) -> Result:
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 - our own pytest has written it
    failures = [message for case in cases for message in case.findall("failure")]
    errors = [message for case in cases for message in case.findall("error")]
    said = [message.get("message", "") for message in (*errors, *failures)]
    first = re.sub(r"\s+", " ", said[0]) if said else "no test failed"
    return Result(len(cases) - len(failures) - len(errors), len(failures), len(errors), first)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())
