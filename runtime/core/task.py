"""The records that describe one task on its way, as values.

Nothing here decides or waits: these are the shapes that the store, the actors and the HTTP API share.
Times from outside are aware datetimes (UTC); durations are seconds. Nodes send durations, PostgreSQL
makes instants of them, so no node's clock decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, TypeVar, dataclass_transform
from uuid import UUID

from runtime.core.unique import Sole

DEFAULT_TENANT = "default"

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=False)
def light(cls: type[T]) -> type[T]:
    """A value that is frozen to the type checkers only. For what is made once or more per task: at run time a
    frozen dataclass takes three times as long to make (a Claim 3.2 us against 1.1)."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def light_by_name(cls: type[T]) -> type[T]:
    """As `light`, made with keywords only."""
    return dataclass(slots=True, unsafe_hash=True, kw_only=True)(cls)


class State(StrEnum):
    """What users see. The first three are rows that wait, the last three are final."""

    BLOCKED = "blocked"
    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Lane(IntEnum):
    """Priority class. Served 8 : 4 : 1, so that low never starves (core.lanes)."""

    HIGH = 0
    MEDIUM = 1
    LOW = 2


class Reason(IntEnum):
    """Why a task waits; the number is stored, the name in lower case is what users see."""

    NONE = 0  # waits for nothing but its turn (or for its first due time)
    RETRY_BACKOFF = 1
    SNOOZED = 2
    RELEASED = 3  # handed back: drain, handler missing, arguments do not bind on that node
    CRASHED = 4  # its node died
    PARENTS = 5  # tasks that it depends on have not ended


class OnParentFailure(IntEnum):
    """What a task does whose parent failed or was cancelled; the number is stored."""

    FAIL = 0  # fails too; a cancelled parent cancels it
    SKIP = 1  # is cancelled
    RUN_ANYWAY = 2  # runs when all parents have ended, whatever they came to


class Status(IntEnum):
    """Final status as stored in an outcome row."""

    SUCCEEDED = 0
    FAILED = 1
    CANCELLED = 2

    @property
    def state(self) -> State:
        return State(self.name.lower())


class Codec(IntEnum):
    """How stored bytes are to be read."""

    JSON = 0
    BYTES = 1  # application/octet-stream
    JSON_APART = 2  # stored is a core.objects.Reference: where the JSON lies
    BYTES_APART = 3

    @property
    def is_apart(self) -> bool:
        return self >= Codec.JSON_APART

    @property
    def apart(self) -> Codec:
        """That of the reference to what this one reads."""
        return self if self.is_apart else Codec(self + Codec.JSON_APART)

    @property
    def inner(self) -> Codec:
        """That of the bytes themselves, wherever they lie."""
        return Codec(self - Codec.JSON_APART) if self.is_apart else self


class AttemptKind(IntEnum):
    """What an attempt that did not commit an outcome met."""

    FAILED = 0
    TIMED_OUT = 1
    SNOOZED = 2
    RELEASED = 3
    CRASHED = 4
    REPLAYED = 5  # the outcome that a replay by hand set aside


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A readable error: type name, message and trimmed traceback (without NUL or lone surrogates)."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What a node chooses by: an interned combination. `id` is positive; -id is the same band's suspects."""

    id: int
    handler: str
    lane: Lane
    tenant: str
    requires: tuple[str, ...]
    keyed: bool

    @property
    def key(self) -> BandKey:
        return BandKey(self.handler, self.lane, self.tenant, self.requires, self.keyed)


@dataclass(frozen=True, slots=True)
class BandKey:
    handler: str
    lane: Lane
    tenant: str = DEFAULT_TENANT
    requires: tuple[str, ...] = ()  # sorted, without repeats
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class Paused:
    """Handlers and tenants of which nothing is started."""

    handlers: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()

    def holds(self, band: Band) -> bool:
        return band.handler in self.handlers or band.tenant in self.tenants


NOT_PAUSED = Paused()


@light_by_name
class NewTask:
    """A validated task, ready to be accepted. `payload` is a JSON object as bytes.

    `delay_s` counts from the commit's statement time; `run_at` is an instant and wins over it.
    `born_on` is the incarnation that accepts it straight into its running set, else None.
    """

    id: UUID
    band: int
    slot: int
    payload: bytes
    max_attempts: int
    timeout_s: float
    tenant: str = DEFAULT_TENANT
    idempotency_key: str | None = None
    digest: bytes | None = None  # 32 bytes; present when idempotency_key is
    actor_type: str | None = None
    actor_key: str | None = None
    limit_key: str | None = None  # what it is limited by, beside others that name the same
    limiter: UUID | None = None  # core.limits.limiter_id of that key
    prefers: tuple[str, ...] = ()
    delay_s: float = 0.0
    run_at: datetime | None = None
    expires_at: datetime | None = None
    metadata: bytes | None = None  # a JSON object
    created_by: str = ""
    trace_context: str | None = None  # W3C traceparent
    workflow_id: UUID | None = None
    payload_codec: Codec = Codec.JSON
    payload_key: str | None = None  # id of the encryption key
    payload_ref: str | None = None  # where a large payload lies
    born_on: int | None = None
    parents: tuple[UUID, ...] = ()  # tasks it waits for, of the same group or on record
    on_parent_failure: OnParentFailure = OnParentFailure.FAIL
    name: str | None = None  # within its workflow
    awaited: bool = False  # tasks of the same group wait for it
    unique: Sole | None = None  # only tasks on their way in have it; the record keeps its id apart


# -- what accepting one task came to ----------------------------------------------------------------


@light
class Stored:
    """A new row was committed. `created_at` and `due` are PostgreSQL's instants.

    `born`: it runs as attempt 1 of its `born_on`. Else it waits, whatever was asked for (that lease had run out).
    """

    id: UUID
    seq: int
    created_at: datetime
    due: datetime
    born: bool = False


@light_by_name
class StoredInstead(Stored):
    """As Stored, and in the same transaction the task that waited under its unique id was cancelled."""

    replaced: UUID
    replaced_attempt: int  # attempts that it had begun


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The task that exists: by its key, with the same request, or by its unique id."""

    id: UUID


@dataclass(frozen=True, slots=True)
class NotUnique:
    """Another task stands for the same, and the rule is to reject; nothing of its group was stored."""

    id: UUID


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The same key with a different request; nothing of its group was stored."""

    id: UUID
    existing_digest: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The row is one that PostgreSQL refuses for its content, or depends on a task that is not there; nothing of its
    group was stored. `pointer` tells the field, where that is known."""

    detail: str
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class Undone:
    """Fine by itself, but another task of its group was refused, so nothing of the group was stored."""


Acceptance = Stored | Duplicate | KeyReused | NotUnique | Refused | Undone


# -- claims and settlements -------------------------------------------------------------------------


@light_by_name
class Claim:
    """A running row of this incarnation, with all that is needed to run it once."""

    id: UUID
    attempt: int
    band: int
    slot: int
    seq: int
    failures: int
    crashes: int
    payload: bytes
    payload_codec: Codec
    max_attempts: int
    timeout_s: float
    started_at: datetime
    waited_s: float  # from due to claim, by PostgreSQL's clock
    created_at: datetime
    idempotency_key: str | None = None
    actor_key: str | None = None
    metadata: bytes | None = None
    trace_context: str | None = None
    created_by: str = ""
    expired: bool = False  # its expires_at had passed when it was claimed
    alone: bool = False  # a suspect that runs with nothing beside it
    workflow_id: UUID | None = None
    parents: tuple[UUID, ...] = ()


@light_by_name
class Finish:
    """Move to `outcome`."""

    status: Status
    result: bytes | None = None
    result_codec: Codec = Codec.JSON
    error: ErrorInfo | None = None
    failures: int = 0
    crashes: int = 0
    children: tuple[NewTask, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Move back to `waiting` under the next attempt, due in `delay_s`."""

    kind: AttemptKind
    delay_s: float
    reason: Reason
    failures: int
    crashes: int
    error: ErrorInfo | None = None
    suspect: bool = False  # waits among its band's suspects from now on
    band: int | None = None  # waits in this band from now on; None: in the one it was claimed from


@light
class Settlement:
    """How an attempt ended. It commits only if (id, attempt, incarnation) is still what runs.

    The ages say how long before the commit its body began and ended, where that differs from claim and commit: the
    messages of a turn are claimed and committed together, but ran one after the other.
    """

    id: UUID
    attempt: int
    incarnation: int
    move: Finish | Requeue
    began_ago_s: float | None = None
    ended_ago_s: float | None = None


class Verdict(IntEnum):
    """What the record said to a settlement."""

    COMMITTED = 0
    FENCED = 1  # a late or foreign commit: refused, nothing written
    REFUSED = 2  # the row's content is one that PostgreSQL refuses
    AWAITED = 3  # committed, and other tasks wait for this end

    @property
    def committed(self) -> bool:
        return self is Verdict.COMMITTED or self is Verdict.AWAITED


@dataclass(frozen=True, slots=True)
class Orphan:
    """A running row whose incarnation is dead or has left."""

    id: UUID
    attempt: int
    incarnation: int
    failures: int
    crashes: int
    max_attempts: int
    alone: bool
    band: int
    left: bool = False  # its incarnation left in good order: that is nobody's crash


@dataclass(frozen=True, slots=True)
class Take:
    """Pull at most `limit` waiting rows of one band (negative: its suspects). `since` skips rows due
    earlier (a low-watermark over dead index entries), None takes from the oldest."""

    band: int
    limit: int
    since: datetime | None = None


# -- what users ask for -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    done: float
    total: float | None = None
    message: str = ""
    result_waits: str = ""  # why the result of a body that has ended is not stored yet


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One task as the record has it at one instant."""

    id: UUID
    tenant: str
    handler: str
    lane: Lane
    state: State
    slot: int
    attempt: int  # attempts begun so far
    failures: int
    crashes: int
    max_attempts: int
    timeout_s: float
    created_at: datetime
    run_at: datetime
    requires: tuple[str, ...] = ()
    prefers: tuple[str, ...] = ()
    idempotency_key: str | None = None
    actor_key: str | None = None
    limit_key: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    node: str | None = None
    reason: Reason = Reason.NONE
    suspect: bool = False
    unbound: bool = False  # waits for a version of its handler that can bind it
    due: datetime | None = None  # of a waiting task
    metadata: bytes | None = None
    created_by: str = ""
    trace_context: str | None = None
    workflow_id: UUID | None = None
    result: bytes | None = None
    result_codec: Codec = Codec.JSON
    error: ErrorInfo | None = None
    progress: Progress | None = None
    name: str | None = None
    parents: tuple[UUID, ...] = ()
    on_parent_failure: OnParentFailure = OnParentFailure.FAIL
    open_parents: int = 0  # of a blocked task


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt that committed no outcome."""

    attempt: int
    kind: AttemptKind
    node: str | None
    started_at: datetime | None
    ended_at: datetime
    error: ErrorInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks; every field that is set must match. Empty matches all."""

    ids: tuple[UUID, ...] = ()
    tenant: str | None = None
    states: tuple[State, ...] = ()
    handler: str | None = None
    actor_key: str | None = None
    idempotency_key: str | None = None
    workflow_id: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    error_type: str | None = None
    not_lane: Lane | None = None  # waits in another lane

    @property
    def empty(self) -> bool:
        return self == TaskFilter(tenant=self.tenant)


@dataclass(frozen=True, slots=True)
class Page:
    """Newest first. A page may be short although more follow: the cursor says whether to go on."""

    tasks: tuple[TaskView, ...]
    next_cursor: UUID | None


@dataclass(frozen=True, slots=True)
class BandCount:
    """How much waits or runs in one band (negative: suspects). `oldest_due_s`: age of the oldest due row."""

    band: int
    ready: int
    scheduled: int
    running: int
    oldest_due_s: float
    blocked: int = 0  # wait for other tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Exact counts but `succeeded`, which is PostgreSQL's estimate once it is large."""

    bands: tuple[BandCount, ...]
    succeeded: int
    failed: int
    cancelled: int
    succeeded_is_estimate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One lease row."""

    node: str
    incarnation: int
    state: str  # joining | active | draining | left | dead
    started_at: datetime
    alive_for_s: float  # what is left of the lease; negative when it has run out
    about: dict[str, Any] = field(default_factory=dict)  # tags, handlers, weight …
    drain_requested: bool = False
    load: dict[str, Any] = field(default_factory=dict)  # as its last renewal told (actors.load)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerEntry:
    """A handler as nodes publish it, so that any node can validate for all."""

    name: str
    digest: str  # of schema and defaults
    schema: dict[str, Any]  # JSON Schema of the arguments
    defaults: dict[str, Any]  # timeout_s, max_attempts, … as the author wrote them
    source: str = ""  # file:line
    doc: str = ""
    paused: bool = False
