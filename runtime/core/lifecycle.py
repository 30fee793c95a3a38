"""The life of a task: which event leads from which state to which, as one table.

Law: everything that may happen to a task's state stands in this table. The stores repeat it as conditions of
their statements; a test walks both. A state is the table its row is in, so nothing is ever flagged. Whatever
goes to waiting has a due time: it is `scheduled` until then, and `due` follows at once where it has passed.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from runtime.core.task import State
from runtime.errors import IllegalTransition

if TYPE_CHECKING:
    from collections.abc import Mapping


class Event(StrEnum):
    """What can happen to a task after it was accepted."""

    PARENTS_DONE = "parents_done"  # the tasks it depends on have ended
    PARENT_FAILED = "parent_failed"  # one of them failed, and this one fails with it
    SKIPPED = "skipped"  # one of them failed or was cancelled, and this one is not run
    DUE = "due"  # its time has come: no write, only the clock
    CLAIMED = "claimed"  # a node turned the waiting row into its running row
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # for good: the last allowed failure, or a final one
    RETRIED = "retried"  # failed with attempts left; burns one
    SNOOZED = "snoozed"  # asked to be called again later; burns nothing
    RELEASED = "released"  # handed back by its node; burns nothing
    CRASHED = "crashed"  # its node died
    GIVEN_UP = "given_up"  # its node died with nothing beside it, once too often
    CANCELLED = "cancelled"  # by somebody
    EXPIRED = "expired"  # its expires_at passed
    REPLAYED = "replayed"  # by somebody: a new run, attempt goes on
    REOPENED = "reopened"  # replayed, and it waits for the tasks that it depends on


INITIAL: Final = (
    State.BLOCKED,
    State.SCHEDULED,
    State.READY,
    State.RUNNING,
)  # what accepting makes of a task

_WAITING: Final = (State.BLOCKED, State.SCHEDULED, State.READY)

TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.BLOCKED, Event.PARENTS_DONE): State.SCHEDULED,
        (State.BLOCKED, Event.PARENT_FAILED): State.FAILED,
        (State.BLOCKED, Event.SKIPPED): State.CANCELLED,
        (State.SCHEDULED, Event.DUE): State.READY,
        (State.READY, Event.CLAIMED): State.RUNNING,
        (State.RUNNING, Event.SUCCEEDED): State.SUCCEEDED,
        (State.RUNNING, Event.FAILED): State.FAILED,
        (State.RUNNING, Event.GIVEN_UP): State.FAILED,
        (State.RUNNING, Event.RETRIED): State.SCHEDULED,
        (State.RUNNING, Event.SNOOZED): State.SCHEDULED,
        (State.RUNNING, Event.RELEASED): State.SCHEDULED,
        (State.RUNNING, Event.CRASHED): State.READY,
        **{
            (state, event): State.CANCELLED
            for state in (*_WAITING, State.RUNNING)
            for event in (Event.CANCELLED, Event.EXPIRED)
        },
        (State.FAILED, Event.REPLAYED): State.READY,
        (State.CANCELLED, Event.REPLAYED): State.READY,
        (State.FAILED, Event.REOPENED): State.BLOCKED,
        (State.CANCELLED, Event.REOPENED): State.BLOCKED,
    }
)


def step(state: State, event: Event) -> State:
    """The state after the event. Raises IllegalTransition, having changed nothing, where it is forbidden."""
    after = TRANSITIONS.get((state, event))
    if after is None:
        allowed = ", ".join(possible for at, possible in TRANSITIONS if at is state) or "nothing"
        raise IllegalTransition(f"{event} in state {state}: allowed there is {allowed}")
    return after


def diagram() -> str:
    """The table as a mermaid state diagram; ARCHITECTURE.md holds it, and a test keeps it current."""
    labels: dict[tuple[State, State], list[str]] = {}
    for (before, event), after in TRANSITIONS.items():
        labels.setdefault((before, after), []).append(event.replace("_", " "))
    lines = [f"[*] --> {state}: accepted" for state in INITIAL]
    lines += [f"{before} --> {after}: {', '.join(events)}" for (before, after), events in labels.items()]
    lines += [f"{state} --> [*]" for state in State if state.final]
    return "\n    ".join(["stateDiagram-v2", *lines]) + "\n"


if __name__ == "__main__":
    print(f"```mermaid\n{diagram()}```")  # noqa: T201 - for whoever updates ARCHITECTURE.md
