"""The rows of the in-memory record; the same tables as PostgreSQL's (adapters/postgres/migrations)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.core.task import AttemptKind, Codec, ErrorInfo, Lane, NewTask, Progress, Reason, Status

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class TaskRow:
    """Written once."""

    new: NewTask
    seq: int
    created_at: datetime
    run_at: datetime  # first due time


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRow:
    id: UUID
    due: datetime
    seq: int
    expires_at: datetime | None
    band: int  # negative: suspects
    attempt: int  # that will run next
    failures: int = 0
    crashes: int = 0
    reason: Reason = Reason.NONE
    actor: UUID | None = None  # with a lane, of messages to keyed actors
    lane: Lane | None = None
    limiter: UUID | None = None  # of its limit_key
    open_parents: int | None = None  # of a blocked task


@dataclass(slots=True, kw_only=True)
class RunningRow:
    """The only row with columns that change."""

    id: UUID
    incarnation: int
    seq: int
    started_at: datetime
    expires_at: datetime | None
    band: int  # always positive
    attempt: int
    failures: int = 0
    crashes: int = 0
    alone: bool = False
    cancel_requested_at: datetime | None = None
    progress: Progress | None = None
    actor: UUID | None = None
    lane: Lane | None = None
    limiter: UUID | None = None  # under which it began


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    id: UUID
    incarnation: int | None  # None: ended while it waited
    started_at: datetime | None
    finished_at: datetime
    attempt: int  # attempts begun
    failures: int
    crashes: int
    status: Status
    result: bytes | None = None
    result_codec: Codec = Codec.JSON
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """An attempt that committed no outcome, or one whose outcome a replay set aside."""

    id: UUID
    incarnation: int | None
    started_at: datetime | None
    ended_at: datetime
    attempt: int
    kind: AttemptKind
    error: ErrorInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UniqueRow:
    """The newest task that was accepted under a unique id."""

    task_id: UUID
    first_at: datetime
    kept_until: datetime | None


@dataclass(slots=True, kw_only=True)
class ActorRow:
    """The state of one key."""

    id: UUID
    slot: int
    tenant: str
    type: str
    key: str
    version: int = 0
    state_version: int = 0
    state: bytes | None = None


@dataclass(slots=True, kw_only=True)
class LeaseRow:
    incarnation: int
    node: str
    started_at: datetime
    alive_until: datetime
    unbroken_since: datetime
    lease_s: float  # as granted last
    state: str = "joining"
    ended_at: datetime | None = None
    drain_requested: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.state in {"left", "dead"}
