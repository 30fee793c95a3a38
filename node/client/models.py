"""What a node tells, as frozen values. Unknown fields are kept in `raw`, so an older client reads a newer node."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from runtime.core.task import State

if TYPE_CHECKING:
    from collections.abc import Mapping

FINAL = frozenset({"succeeded", "failed", "cancelled"})


def instant(value: str | None) -> datetime | None:
    """An aware datetime from RFC 3339."""
    return None if value is None else datetime.fromisoformat(value)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a task waits: due_later, retry_backoff, snoozed, paused, no_handler …"""

    reason: str
    detail: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskProgress:
    done: float
    total: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class TaskErrorInfo:
    type: str
    message: str
    traceback: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """One task as it was when the node answered. Instants are aware (UTC)."""

    id: str
    handler: str
    state: State
    priority: str
    attempt: int
    failures: int
    crashes: int
    max_attempts: int
    tenant: str
    slot: int | None
    node: str | None
    idempotency_key: str | None
    actor_key: str | None
    limit_key: str | None
    created_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    cancel_requested_at: datetime | None
    waiting: Waiting | None
    error: TaskErrorInfo | None
    progress: TaskProgress | None
    metadata: Mapping[str, Any]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def final(self) -> bool:
        return self.state.final

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> TaskInfo:
        """Raises KeyError, ValueError or TypeError where `raw` is not a task of the contract."""
        created_at = instant(raw["created_at"])
        if created_at is None:
            raise ValueError("created_at is null")
        return cls(
            id=raw["id"],
            handler=raw["handler"],
            state=State(raw["state"]),
            priority=raw.get("priority") or "medium",
            attempt=raw.get("attempt") or 0,
            failures=raw.get("failures") or 0,
            crashes=raw.get("crashes") or 0,
            max_attempts=raw.get("max_attempts") or 0,
            tenant=raw.get("tenant") or "default",
            slot=raw.get("slot"),
            node=raw.get("node"),
            idempotency_key=raw.get("idempotency_key"),
            actor_key=raw.get("actor_key"),
            limit_key=raw.get("limit_key"),
            created_at=created_at,
            run_at=instant(raw.get("run_at")),
            started_at=instant(raw.get("started_at")),
            finished_at=instant(raw.get("finished_at")),
            expires_at=instant(raw.get("expires_at")),
            cancel_requested_at=instant(raw.get("cancel_requested_at")),
            waiting=_waiting(raw.get("waiting")),
            error=_error(raw.get("error")),
            progress=_progress(raw.get("progress")),
            metadata=raw.get("metadata") or {},
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class AttemptInfo:
    """One attempt. `kind`: failed, timed_out, snoozed, released, crashed or replayed; of the one that runs or that
    committed the outcome it is the task's state."""

    attempt: int
    kind: str
    node: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: TaskErrorInfo | None
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> AttemptInfo:
        return cls(
            attempt=raw["attempt"],
            kind=raw["kind"],
            node=raw.get("node"),
            started_at=instant(raw.get("started_at")),
            ended_at=instant(raw.get("ended_at")),
            error=_error(raw.get("error")),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class Changed:
    """What an action by filter came to; in a dry run `changed` is 0.

    `more`: the node stopped after a while, and more match; ask again.
    """

    matched: int
    changed: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One event of the stream. `kind` is the event's name; 'gap' says that events were missed (`data` says how many)."""

    kind: str
    id: str
    data: Mapping[str, Any]


def _waiting(raw: Mapping[str, Any] | None) -> Waiting | None:
    if not raw:
        return None
    return Waiting(raw.get("reason") or "", raw.get("detail") or "", instant(raw.get("until")))


def _progress(raw: Mapping[str, Any] | None) -> TaskProgress | None:
    if not raw:
        return None
    return TaskProgress(raw.get("done") or 0.0, raw.get("total"), raw.get("message") or "")


def _error(raw: Mapping[str, Any] | None) -> TaskErrorInfo | None:
    if not raw:
        return None
    return TaskErrorInfo(
        raw.get("type") or "", raw.get("message") or "", raw.get("traceback") or "", raw.get("attempt") or 0
    )
