"""The list of guards fits the tree, so that `make mutations` can run; and it takes nothing for found that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutations.__main__ import OutOfDateError, Result, mutated, run, without
from tests.mutations.guards import GUARDS, Guard

ROOT = Path(__file__).parents[2]
GUARD = Guard(
    name="a guard", path="code.py", texts=(("if late:\n", "if False:\n"),), test="test_it.py::test_it"
)
CODE = "def allowed(late):\n    if late:\n        return False\n    return True\n"


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_each_guard_stands_where_it_is_said_to_and_has_its_test(guard: Guard) -> None:
    assert mutated(ROOT, guard) != (ROOT / guard.path).read_text()
    path, _, name = guard.test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


@pytest.mark.parametrize("there", ["if early:\n", "late"], ids=["gone", "twice"])
def test_a_text_that_does_not_stand_there_once_is_named(tmp_path: Path, there: str) -> None:
    (tmp_path / "code.py").write_text(CODE)
    with pytest.raises(OutOfDateError, match=r"a guard: code\.py has \d times"):
        mutated(tmp_path, replace(GUARD, texts=((there, ""),)))


def test_a_mutant_that_is_no_python_is_no_mutant(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(CODE)
    with pytest.raises(SyntaxError):
        mutated(tmp_path, replace(GUARD, texts=(("if late:\n", "if:\n"),)))


def test_a_file_is_as_it_was_afterwards(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(CODE)
    with pytest.raises(ZeroDivisionError), without(tmp_path, GUARD):
        assert "if False:" in (tmp_path / "code.py").read_text()
        raise ZeroDivisionError
    assert (tmp_path / "code.py").read_text() == CODE


@pytest.mark.parametrize(
    ("text", "failed", "broken"),
    [
        ("def test_it(): assert 1 == 2", 1, 0),
        ("def test_it(missing): pass", 0, 1),
        ("def test_other(): pass", 0, 1),
    ],
    ids=["fails", "no fixture", "no test"],
)
def test_only_a_test_that_fails_is_a_failure(tmp_path: Path, text: str, failed: int, broken: int) -> None:
    (tmp_path / "test_it.py").write_text(text)
    result = run(tmp_path, ["test_it.py::test_it"])
    assert result == Result(0, failed, broken, result.said)
