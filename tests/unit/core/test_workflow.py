from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.task import OnParentFailure, Status
from runtime.core.workflow import (
    EDGES_MAX,
    TASKS_MAX,
    Fate,
    ParentEnd,
    fate,
    find_cycle,
    graph_faults,
    in_order,
    layers,
)

NAMES = [f"t{n}" for n in range(8)]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    names = draw(st.permutations(NAMES[: draw(st.integers(1, len(NAMES)))]))
    return {name: draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) for name in names}


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, list[str]]:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    graph = {
        name: draw(st.lists(st.sampled_from(names[:place]), unique=True, max_size=3)) if place else []
        for place, name in enumerate(names)
    }
    return {name: graph[name] for name in draw(st.permutations(names))}


def reaches(graph: dict[str, list[str]], start: str, goal: str) -> bool:
    """Whether `goal` is an ancestor of `start`; the dumb way."""
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            todo += graph[name]
    return False


@given(graphs())
def test_a_cycle_is_found_where_there_is_one_and_it_is_one(graph: dict[str, list[str]]) -> None:
    cycle = find_cycle(graph)
    assert bool(cycle) is any(reaches(graph, name, name) for name in graph)
    for parent, child in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True):
        assert parent in graph[child]
    assert len(set(cycle)) == len(cycle)
    faults = graph_faults(graph)
    assert bool(faults) is bool(cycle)
    if cycle:
        assert faults == [(f"#/tasks/{cycle[0]}/depends_on", f"is a cycle: {' → '.join([*cycle, cycle[0]])}")]


@given(acyclic())
def test_layers_hold_every_task_once_one_below_its_lowest_parent(graph: dict[str, list[str]]) -> None:
    found = layers(graph)
    depth = {name: nth for nth, layer in enumerate(found) for name in layer}
    assert sorted(depth) == sorted(graph)
    assert sum(map(len, found)) == len(graph)
    for name, parents in graph.items():
        assert depth[name] == max((depth[parent] + 1 for parent in parents), default=0)
    order = in_order(graph)
    assert all(order.index(parent) < order.index(name) for name in graph for parent in graph[name])
    assert find_cycle(graph) == ()
    assert graph_faults(graph) == []


def test_what_is_wrong_with_a_set_is_named_with_its_place() -> None:
    assert graph_faults({}) == [("#/tasks", f"0 tasks; allowed are 1 to {TASKS_MAX}")]
    faults = graph_faults({"a": [], "b/c": ["a", "x", "a"]})
    assert faults == [
        ("#/tasks/b~1c/depends_on/1", "there is no task 'x' in this workflow"),
        ("#/tasks/b~1c/depends_on/2", "'a' is named twice"),
    ]
    assert graph_faults({"a": ["a"]}) == [("#/tasks/a/depends_on", "is a cycle: a → a")]
    ring = {f"n{n:02}": [f"n{(n - 1) % 30:02}"] for n in range(30)}
    [(_, detail)] = graph_faults(ring)
    assert detail.startswith("is a cycle: n00 → n01")
    assert detail.endswith("… 20 more … → n00")


def test_ten_thousand_tasks_in_one_chain_and_one_join_are_fine_and_more_are_not() -> None:
    chain = {f"n{n}": [f"n{n - 1}"] if n else [] for n in range(TASKS_MAX)}
    assert graph_faults(chain) == []
    assert len(layers(chain)) == TASKS_MAX
    join = {f"n{n}": [] for n in range(TASKS_MAX - 1)}
    assert graph_faults({**join, "join": list(join)}) == []
    [(pointer, detail)] = graph_faults({**chain, "one": []})
    assert (pointer, detail) == ("#/tasks", f"{TASKS_MAX + 1} tasks; allowed are 1 to {TASKS_MAX}")
    left = {f"l{n}": [] for n in range(400)}
    [(_, detail)] = graph_faults({**left, **{f"r{n}": list(left) for n in range(400)}})
    assert detail.startswith(f"160000 dependencies; at most {EDGES_MAX}")


ENDS = st.lists(
    st.builds(ParentEnd, st.integers(0, 2**64).map(lambda n: UUID(int=n)), st.sampled_from(Status)),
    max_size=5,
)


@given(st.sampled_from(OnParentFailure), ENDS, st.integers(0, 5))
def test_a_child_waits_for_every_parent_or_ends_with_the_first_that_did_not_succeed(
    policy: OnParentFailure, ends: list[ParentEnd], more: int
) -> None:
    found = fate(policy, len(ends) + more, ends)
    unwell = [end for end in ends if end.status is not Status.SUCCEEDED]
    if policy is OnParentFailure.RUN_ANYWAY or not unwell:
        assert found == Fate(more)
        return
    assert found.error is not None
    assert found.error.type == "ParentFailed"
    failed = [end for end in unwell if end.status is Status.FAILED]
    assert str((failed or unwell)[0].id) in found.error.message
    expected = Status.FAILED if policy is OnParentFailure.FAIL and failed else Status.CANCELLED
    assert found.status is expected


@pytest.mark.parametrize(
    ("status", "words"), [(Status.FAILED, "failed"), (Status.CANCELLED, "was cancelled")]
)
def test_the_error_names_the_parent(status: Status, words: str) -> None:
    error = fate(OnParentFailure.SKIP, 1, [ParentEnd(UUID(int=1), status, "load")]).error
    assert error is not None
    assert error.message == f"parent_failed: task load ({UUID(int=1)}), which it depends on, {words}"
