"""Tasks that wait for others: what a set of them must be like, and what the end of a parent means for a child.

Law: a set is a mapping of names to the names of the parents. Everything about its shape is decided here; the stores
only count. A child waits until all its parents have ended; a parent that did not succeed decides at once, unless the
child runs anyway.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from runtime.core.canonical import Fault, pointer_to
from runtime.core.task import Codec, ErrorInfo, OnParentFailure, State, Status

TASKS_MAX: Final = 10_000
EDGES_MAX: Final = 100_000
INLINE_BYTES_MAX: Final = 1 << 20  # results of parents that come with a child, in all
_NAMED_MAX: Final = 12  # of a long cycle

Graph = Mapping[str, Sequence[str]]


# -- the shape of a set ------------------------------------------------------------------------------


def graph_faults(graph: Graph, place: str = "#/tasks") -> list[Fault]:
    """(pointer, detail) of everything that keeps these from being a workflow; of cycles the first found."""
    if not 1 <= len(graph) <= TASKS_MAX:
        return [(place, f"{len(graph)} tasks; allowed are 1 to {TASKS_MAX}")]
    edges = sum(map(len, graph.values()))
    if edges > EDGES_MAX:
        return [
            (place, f"{edges} dependencies; at most {EDGES_MAX} are allowed: join them in a task between")
        ]
    faults = [
        (f"{pointer_to(place, name)}/depends_on/{nth}", detail)
        for name, parents in graph.items()
        for nth, detail in _parent_faults(graph, parents)
    ]
    if not faults and (cycle := find_cycle(graph)):
        faults.append((f"{pointer_to(place, cycle[0])}/depends_on", f"is a cycle: {_shown(cycle)}"))
    return faults


def _parent_faults(graph: Graph, parents: Sequence[str]) -> Iterator[tuple[int, str]]:
    met: set[str] = set()
    for nth, parent in enumerate(parents):
        if parent not in graph:
            yield nth, f"there is no task {parent!r} in this workflow"
        elif parent in met:
            yield nth, f"{parent!r} is named twice"
        met.add(parent)


def find_cycle(graph: Graph) -> tuple[str, ...]:
    """Names of one cycle, each the parent of the next and the last of the first; empty where there is none.

    Parents that are not in the graph do not count.
    """
    rest = set(graph).difference(in_order(graph))
    if not rest:
        return ()
    walk: list[str] = []
    seen: dict[str, int] = {}
    at = min(rest)
    while at not in seen:
        seen[at] = len(walk)
        walk.append(at)
        at = min(parent for parent in graph[at] if parent in rest)
    cycle = walk[seen[at] :][::-1]  # it was walked from child to parent
    first = cycle.index(min(cycle))
    return (*cycle[first:], *cycle[:first])


def _shown(cycle: Sequence[str]) -> str:
    names = [*cycle, cycle[0]]
    if len(names) > _NAMED_MAX:
        names = [*names[: _NAMED_MAX - 2], f"… {len(names) - _NAMED_MAX + 1} more …", names[-1]]
    return " → ".join(names)


def in_order(graph: Graph) -> list[str]:
    """Parents before children, else as given. What is in a cycle, or behind one, is left out."""
    return [name for layer in layers(graph) for name in layer]


def layers(graph: Graph) -> list[list[str]]:
    """Each task one below its lowest parent: what may run at the same time stands side by side."""
    children: dict[str, list[str]] = {name: [] for name in graph}
    open_parents: dict[str, int] = {}
    for name, parents in graph.items():
        known = {parent for parent in parents if parent in graph}
        open_parents[name] = len(known)
        for parent in known:
            children[parent].append(name)
    found: list[list[str]] = []
    ready = deque(name for name in graph if not open_parents[name])
    place = {name: nth for nth, name in enumerate(graph)}
    while ready:
        layer = sorted(ready, key=place.__getitem__)
        found.append(layer)
        ready.clear()
        for name in layer:
            for child in children[name]:
                open_parents[child] -= 1
                if not open_parents[child]:
                    ready.append(child)
    return found


def rows_of(dependences: int) -> int:
    """For how many tasks so many dependences count, where time is given for what is stored."""
    return dependences // 4


# -- the end of a parent ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParentEnd:
    """How a task ended that others wait for. `name` within its workflow, or empty."""

    id: UUID
    status: Status
    name: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a blocked child: it waits for `open_parents` more, or for its turn (0), or ends with `status`."""

    open_parents: int
    status: Status | None = None
    error: ErrorInfo | None = None


def fate(policy: OnParentFailure, open_parents: int, ends: Sequence[ParentEnd]) -> Fate:
    """`ends` are those that were not counted in `open_parents` yet."""
    left = open_parents - len(ends)
    unwell = [end for end in ends if end.status is not Status.SUCCEEDED]
    if not unwell or policy is OnParentFailure.RUN_ANYWAY:
        return Fate(left)
    worst = next((end for end in unwell if end.status is Status.FAILED), unwell[0])
    # a cancelled parent makes no dead letters of its children
    fails = policy is OnParentFailure.FAIL and worst.status is Status.FAILED
    return Fate(left, Status.FAILED if fails else Status.CANCELLED, _parent_failed(worst))


def _parent_failed(end: ParentEnd) -> ErrorInfo:
    name = f"{end.name} ({end.id})" if end.name else str(end.id)
    verb = "failed" if end.status is Status.FAILED else "was cancelled"
    return ErrorInfo("ParentFailed", f"parent_failed: task {name}, which it depends on, {verb}")


# -- what the record tells -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Freed:
    """A child that waits for no parent any more: it is due in `due_in_s`, or it has ended."""

    id: UUID
    attempt: int  # that will run next
    band: int
    slot: int
    prefers: tuple[str, ...] = ()
    actor: UUID | None = None
    due_in_s: float = 0.0
    status: Status | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class PassedOn:
    """`more`: ends are left to be passed on."""

    freed: tuple[Freed, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class ParentView:
    """A parent as its child sees it. `result` is left out where it is not among those that come with the child; of a
    result that lies apart it is the reference. `state` None: the task is not kept any more."""

    id: UUID
    name: str = ""
    handler: str = ""
    state: State | None = None
    result: bytes | None = None
    result_bytes: int = 0
    codec: Codec = Codec.JSON
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTask:
    """One task of a workflow, in short."""

    id: UUID
    name: str
    handler: str
    state: State
    parents: tuple[UUID, ...]
    attempt: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowView:
    """Counts are of all its tasks; `tasks` are the oldest of them, where they were asked for."""

    id: UUID
    tenant: str
    created_at: datetime
    counts: Mapping[State, int]
    tasks: tuple[WorkflowTask, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        return sum(count for state, count in self.counts.items() if state.final)

    @property
    def state(self) -> str:
        """running, or how it ended: failed where a task failed, else cancelled where one was cancelled."""
        if self.ended < self.total:
            return "running"
        for state in (State.FAILED, State.CANCELLED):
            if self.counts.get(state):
                return state.value
        return State.SUCCEEDED.value
