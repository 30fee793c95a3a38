"""What the router is told and asked."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from actors.intake.intake import Prepared
from actors.router.offering import Ready
from runtime.core.messages import Finished, Watch
from runtime.core.task import Acceptance, TaskView
from runtime.kernel.actor import Control, Request


@dataclass(slots=True, eq=False)
class Submit(Request[list[Acceptance]]):
    """Store these durably, all or none; the answer comes after the commit.

    Fails with Overloaded (nothing was done) or Unavailable (repeat it with the same ids). Once it is `taken`, what
    was reserved for its tasks is the router's to give back; before, the sender's (see submitting.py).
    """

    group: tuple[Prepared, ...]
    taken: bool = False


@dataclass(frozen=True, slots=True)
class AwaitEnd(Request[TaskView | None]):
    """Answered when the task is final, or at once with None where there is no such task."""

    task_id: UUID


@dataclass(frozen=True, slots=True)
class TasksEnded(Control):
    """These tasks committed an outcome on this node."""

    task_ids: tuple[UUID, ...]
    awaited: bool = False  # other tasks wait for some of these ends


@dataclass(frozen=True, slots=True)
class Route(Control):
    """These wait since just now and are due: tell their owners."""

    tasks: tuple[Ready, ...]


@dataclass(frozen=True, slots=True)
class FromAfar(Control):
    """From another member: it waits for the end of tasks here, or tells the end of ours."""

    message: Watch | Finished


@dataclass(frozen=True, slots=True)
class AnswerAll(Control):
    """The node drains: everybody who waits gets the present state now."""


@dataclass(frozen=True, slots=True)
class Look(Control):
    """Once a second: ask the record about all tasks that somebody waits for (to itself)."""


Message = Submit | AwaitEnd | TasksEnded | Route | FromAfar | AnswerAll | Look
