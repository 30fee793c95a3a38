"""What the node answers, as types: for the OpenAPI document only, nothing is validated by them at run time.

A test compares them with real answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from node.http.models import Priority, StateName

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
WaitReason = Literal[
    "due_later", "retry_backoff", "snoozed", "parents", "actor_busy", "rate_limit", "concurrency", "paused",
    "no_handler", "no_tags", "no_capacity", "result_store",
]  # fmt: skip


class Waiting(TypedDict):
    reason: WaitReason
    detail: str
    until: NotRequired[Time]


class TaskError(TypedDict):
    type: str
    message: str
    traceback: str


class LastError(TaskError):
    attempt: int


class ProgressOut(TypedDict):
    done: float
    total: float | None
    message: str


class Task(TypedDict):
    """One task as the record has it."""

    id: Id
    handler: str
    state: StateName
    waiting: NotRequired[Annotated[Waiting, Field(description="Why it does not run yet.")]]
    tenant: str
    idempotency_key: str | None
    actor_key: str | None
    priority: Priority
    requires: list[str]
    prefers: list[str]
    attempt: Annotated[int, Field(description="Attempts begun so far.")]
    failures: int
    crashes: int
    max_attempts: int
    timeout_s: float
    slot: int
    home: Annotated[str | None, Field(description="The node that owns its slot.")]
    node: Annotated[str | None, Field(description="The node that runs or ran it.")]
    created_at: Time
    run_at: Time
    started_at: Time | None
    finished_at: Time | None
    expires_at: NotRequired[Time]
    cancel_requested_at: NotRequired[Time]
    trace_id: str | None
    workflow_id: NotRequired[Id]
    created_by: str | None
    metadata: dict[str, Any]
    result: NotRequired[Annotated[Any, Field(description="JSON results; left out in lists.")]]
    result_bytes: NotRequired[
        Annotated[int, Field(description="Size of a result that is bytes: see /result.")]
    ]
    error: NotRequired[LastError]
    progress: NotRequired[ProgressOut]


class Submission(Task):
    """The task, new or found under its idempotency key."""

    duplicate: bool


class BatchItem(TypedDict):
    id: Id
    duplicate: bool


class Batch(TypedDict):
    """In the order of the request."""

    tasks: list[BatchItem]


class TaskPage(TypedDict):
    """Newest first. A page may be short although more follow: `next_cursor` is null at the end only."""

    tasks: list[Task]
    next_cursor: str | None


class Attempt(TypedDict):
    attempt: int
    kind: Literal[
        "failed", "timed_out", "snoozed", "released", "crashed", "replayed",
        "running", "succeeded", "cancelled",
    ]  # fmt: skip
    node: str | None
    started_at: Time | None
    ended_at: Time | None
    error: TaskError | None


class Attempts(TypedDict):
    """Oldest first."""

    attempts: list[Attempt]


class Bulk(TypedDict):
    matched: int
    changed: int
    more: Annotated[bool, Field(description="Time was up before all was done: ask again.")]


class Handler(TypedDict):
    name: str
    doc: str
    source: str
    schema: Annotated[dict[str, Any], Field(description="JSON Schema of the payload.")]
    defaults: dict[str, Any]
    digest: str
    paused: bool
    nodes: list[str]


class Handlers(TypedDict):
    handlers: list[Handler]


class Node(TypedDict):
    name: str
    incarnation: int
    state: str
    slots: int
    tags: list[str]
    handlers: list[str]
    running: int | None
    credit: int | None
    started_at: Time
    alive_for_s: float


class Cluster(TypedDict):
    view: int | None
    nodes: list[Node]


class Health(TypedDict):
    status: str


class Fault(TypedDict):
    pointer: Annotated[
        str, Field(description='A JSON pointer ("#/payload/width"), or "?limit" of the query.')
    ]
    detail: str


class Problem(TypedDict):
    """RFC 9457."""

    type: Annotated[str, Field(examples=["urn:noria:error:invalid-request"])]
    title: str
    status: int
    detail: str
    errors: NotRequired[list[Fault]]
    state: NotRequired[str]
    existing_id: NotRequired[Id]
    existing_digest: NotRequired[str]
    digest: NotRequired[str]
