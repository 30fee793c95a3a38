"""Every metric that the code names is declared, with the labels that it gives."""

from __future__ import annotations

import ast
from pathlib import Path

from runtime.adapters.telemetry import COUNTERS, GAUGES, HISTOGRAMS

_ROOT = Path(__file__).parents[2]
_TABLES = {"count": COUNTERS, "gauge": GAUGES, "observe": HISTOGRAMS}
_LABELLESS = {"value", "values"}


def _uses() -> list[tuple[str, str, tuple[str, ...], str]]:
    """(method, metric, labels, where) of every call of the port Telemetry whose metric stands there as text."""
    found = []
    for package in ("actors", "node", "runtime"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match call:
                    case ast.Call(ast.Attribute(on, method), [ast.Constant(str(name)), *_], keywords) if (
                        method in _TABLES and "telemetry" in ast.unparse(on)
                    ):
                        labels = tuple(k.arg for k in keywords if k.arg and k.arg not in _LABELLESS)
                        found.append((method, name, labels, f"{path.relative_to(_ROOT)}:{call.lineno}"))
    return found


def test_all_are_declared_with_their_labels() -> None:
    uses = _uses()
    assert len(uses) > 20, "the search itself finds nothing any more"
    for method, name, labels, where in uses:
        assert name in _TABLES[method], f"{where}: {name} is not declared"
        assert set(labels) == set(_TABLES[method][name][1]), where
