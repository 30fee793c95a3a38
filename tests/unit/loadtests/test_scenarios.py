"""The table of scenarios, the callers (read, not imported: they need Locust's environment) and the handlers agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import loadtests
from actors.authoring.registry import Registry
from loadtests.scenarios import SCENARIOS, seconds_of

FOLDER = Path(loadtests.__file__ or "").parent
LOCUSTFILE = FOLDER / "locustfile.py"


def callers() -> dict[str, ast.ClassDef]:
    """Classes that Locust offers on its command line."""
    tree = ast.parse(LOCUSTFILE.read_text(encoding="utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Caller" for base in node.bases)
    }


def test_each_scenario_has_its_callers_and_each_caller_says_what_it_does() -> None:
    assert list(callers()) == [scenario.user for scenario in SCENARIOS]
    assert all(
        re.search(r"Closed|Callers\s+pause", ast.get_docstring(node) or "") for node in callers().values()
    )


def test_callers_ask_for_handlers_that_there_are() -> None:
    registry = Registry.load([str(FOLDER / "handlers.py")])
    asked = set(re.findall(r'"handler": "([\w.]+)"', LOCUSTFILE.read_text(encoding="utf-8")))
    assert asked
    assert asked < set(registry.names)  # receipts are made by orders only


@pytest.mark.parametrize("total_s", [10, 90, 900])
def test_time_is_shared_out(total_s: int) -> None:
    lengths_s = seconds_of(SCENARIOS, total_s)
    assert set(lengths_s) == set(callers())
    assert abs(sum(lengths_s.values()) - total_s) <= len(SCENARIOS)
    assert max(lengths_s, key=lambda user: lengths_s[user]) == "Orders"


def test_one_scenario_gets_all_of_it() -> None:
    assert seconds_of(SCENARIOS[:1], 40) == {"SinglePosts": 40.0}


def test_faults_come_in_order_and_end_with_as_many_nodes_as_there_were() -> None:
    faults = [fault for scenario in SCENARIOS for fault in scenario.faults]
    assert [fault.kind for fault in faults] == ["kill", "join"]
    assert 0 < faults[0].at < faults[1].at < 1
