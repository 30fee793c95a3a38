"""Several tasks as one value: which waits for which, by name.

    chain(task(extract, url=u), task(load))                    one after the other
    group(task(a), task(b))                                    side by side
    chord([task(part, n=n) for n in range(100)], task(total))  side by side, then one that gets all their results

Law: a task can only wait for one that was added before it, so a workflow made here has no cycle. It knows nothing of
nodes or clients; `ctx.submit` and `client.submit_workflow` take it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from actors.authoring.task import Task
from runtime.core.workflow import TASKS_MAX
from runtime.errors import InvalidInput

TASK_NAME_CHARS_MAX: Final = 255
TASK_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.:-]*"


class Workflow:
    """Add tasks one by one; each may wait for those that are there, by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any]] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._numbers: dict[str, int] = {}  # last used, by name

    def add(self, task: Task[Any], *, name: str | None = None, after: Iterable[str] = ()) -> str:
        """The name it got: its handler's, with a number where that is taken, unless one is given.

        `after` names the tasks that it waits for. Raises InvalidInput.
        """
        if name is None:
            name = self._free_name(task.handler)
        parents = tuple(dict.fromkeys(after))
        if fault := self._fault(task, name, parents):
            raise InvalidInput(f"task {name} of a workflow: {fault}", ((f"#/tasks/{name}", fault),))
        self._tasks[name] = task
        self._parents[name] = parents
        return name

    def include(self, other: Task[Any] | Workflow, after: Iterable[str] = ()) -> list[str]:
        """Add all of another, the first of them after these; the names that its last ones got."""
        parents = tuple(after)
        if isinstance(other, Task):
            return [self.add(other, after=parents)]
        names: dict[str, str] = {}
        for name, task in other.tasks.items():
            own = [names[parent] for parent in other.parents[name]] or parents
            given = None if name.startswith(task.handler) else self._free_name(name)
            names[name] = self.add(task, name=given, after=own)
        return [names[name] for name in other.ends]

    @property
    def tasks(self) -> Mapping[str, Task[Any]]:
        """Parents before their children."""
        return MappingProxyType(self._tasks)

    @property
    def parents(self) -> Mapping[str, tuple[str, ...]]:
        return MappingProxyType(self._parents)

    @property
    def ends(self) -> list[str]:
        """Those that no other waits for."""
        awaited = {parent for parents in self._parents.values() for parent in parents}
        return [name for name in self._tasks if name not in awaited]

    def to_request(self) -> dict[str, Any]:
        """The body of `POST /v1/workflows`."""
        tasks: dict[str, Any] = {}
        for name, task in self._tasks.items():
            tasks[name] = task.to_request()
            if self._parents[name]:
                tasks[name]["depends_on"] = list(self._parents[name])
        return {"tasks": tasks}

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Workflow:
        """Of what `to_request` made. Raises InvalidInput."""
        flow = cls()
        for name, fields in request["tasks"].items():
            own = dict(fields)
            parents = own.pop("depends_on", ())
            flow.add(Task.from_request(own), name=name, after=parents)
        return flow

    @property
    def size(self) -> int:
        """How many tasks it has."""
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<Workflow of {self.size} tasks>"

    def _free_name(self, wanted: str) -> str:
        if wanted not in self._tasks:
            return wanted
        number = self._numbers.get(wanted, 1) + 1
        while f"{wanted}_{number}" in self._tasks:
            number += 1
        self._numbers[wanted] = number
        return f"{wanted}_{number}"

    def _fault(self, task: Task[Any], name: str, parents: tuple[str, ...]) -> str | None:
        if (fault := task_name_fault(name)) is not None:
            return fault
        if name in self._tasks:
            return "there is one of that name"
        if len(self._tasks) >= TASKS_MAX:
            return f"at most {TASKS_MAX} tasks are allowed"
        if task.depends_on:
            return "depends_on is for tasks that exist; of a workflow say after=…"
        unknown = [parent for parent in parents if parent not in self._tasks]
        return f"after: there is no task {unknown[0]!r} yet" if unknown else None


def task_name_fault(name: object) -> str | None:
    """Of the name of a task in a workflow."""
    if isinstance(name, str) and len(name) <= TASK_NAME_CHARS_MAX and re.fullmatch(TASK_NAME, name):
        return None
    return (
        f"{name!r} is no name: allowed are 1 to {TASK_NAME_CHARS_MAX} letters, digits, '_', '.', ':' and '-', "
        "a letter or digit first"
    )


def group(*parts: Task[Any] | Workflow) -> Workflow:
    """All at the same time."""
    flow = Workflow()
    for part in parts:
        flow.include(part)
    return flow


def chain(*parts: Task[Any] | Workflow) -> Workflow:
    """Each after the one before it; after a group, when all of it has ended."""
    flow = Workflow()
    last: list[str] = []
    for part in parts:
        last = flow.include(part, last)
    return flow


def chord(parts: Iterable[Task[Any] | Workflow], then: Task[Any] | Workflow) -> Workflow:
    """All at the same time, then `then`, whose `ctx.parents` are in the order of the parts."""
    return chain(group(*parts), then)
