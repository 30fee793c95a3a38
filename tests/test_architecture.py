"""The layers of the house, enforced: the first file a reviewer should open."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("runtime", "actors", "node")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FORBIDDEN = {
    "runtime/core": ("runtime.kernel", "runtime.adapters", "runtime.ports", "actors", "node", "asyncio", "random",
                     "time", "logging", "socket", "threading"),
    "runtime/kernel": ("runtime.adapters", "runtime.ports", "actors", "node"),
    "runtime/adapters": ("runtime.kernel", "actors", "node"),
    "runtime": ("actors", "node"),
    "actors": ("runtime.adapters", "node"),
    "node/client": ("runtime.adapters", "runtime.kernel", "node.http", "node.wiring"),
}  # fmt: skip
KNOW_ADAPTERS = ("runtime/adapters/", "runtime/standalone.py", "node/")  # all others know ports only
FUNCTION_LINES_MAX = 60


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    used = imports(ast.parse(path.read_text(encoding="utf-8")))
    for folder, banned in FORBIDDEN.items():
        if place.startswith(folder + "/"):
            wrong = {name for name in used for ban in banned if name == ban or name.startswith(ban + ".")}
            assert not wrong, f"{place} may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_adapters_are_known_in_few_places(path: Path) -> None:
    if not path.relative_to(ROOT).as_posix().startswith(KNOW_ADAPTERS):
        used = imports(ast.parse(path.read_text(encoding="utf-8")))
        assert not {name for name in used if name.startswith("runtime.adapters")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or 0) - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"
