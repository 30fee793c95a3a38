"""What the node answers, as types: for the OpenAPI document only, nothing is validated by them at run time.

A test compares them with real answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from node.http.models import Priority, StateName
from node.http.stats import TenantRow

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


class ResultRef(TypedDict):
    bytes: int
    sha256: str
    content_type: str


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
    limit_key: str | None
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
    name: NotRequired[Annotated[str, Field(description="Within its workflow.")]]
    depends_on: NotRequired[list[Id]]
    on_parent_failure: NotRequired[Literal["fail", "skip", "run_anyway"]]
    created_by: str | None
    metadata: dict[str, Any]
    result: NotRequired[Annotated[Any, Field(description="JSON results; left out in lists.")]]
    result_bytes: NotRequired[
        Annotated[int, Field(description="Size of a result that is bytes: see /result.")]
    ]
    result_ref: NotRequired[
        Annotated[ResultRef, Field(description="In place of a large result, which is at /result.")]
    ]
    error: NotRequired[LastError]
    progress: NotRequired[ProgressOut]


class Submission(Task):
    """The task, new or found: under its idempotency key, or as the one that stands for the same."""

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


class WorkflowSubmission(TypedDict):
    id: Id
    duplicate: Annotated[bool, Field(description="All of its tasks were there already.")]
    tasks: Annotated[dict[str, Id], Field(description="Ids by name.")]


class WorkflowError(TypedDict):
    type: str
    message: str


class WorkflowTaskOut(TypedDict):
    id: Id
    name: str | None
    handler: str
    state: StateName
    depends_on: list[Id]
    attempt: int
    started_at: Time | None
    finished_at: Time | None
    error: NotRequired[WorkflowError]


class WorkflowBrief(TypedDict):
    """How far a workflow is."""

    id: Id
    state: Annotated[
        Literal["running", "succeeded", "failed", "cancelled"],
        Field(
            description="Ended when all tasks have: failed where one failed, else cancelled where one was."
        ),
    ]
    created_at: Time
    total: int
    ended: int
    counts: Annotated[dict[StateName, int], Field(description="Tasks by state; states without any left out.")]


class Workflow(WorkflowBrief):
    tasks: Annotated[list[WorkflowTaskOut], Field(description="The oldest, in the order of their ids.")]


class WorkflowPage(TypedDict):
    """Newest first."""

    workflows: list[WorkflowBrief]
    next_cursor: str | None


class LimitRules(TypedDict):
    rate_limit: Annotated[str | None, Field(description="Starts of attempts, as a count per period.")]
    burst: Annotated[int | None, Field(description="How many of them may start at once after a pause.")]
    max_running: Annotated[int | None, Field(description="How many run at the same time.")]
    limit_per: Annotated[
        Literal["handler", "tenant", "key"],
        Field(description="What has all of that for itself: the handler, each tenant, or each limit_key."),
    ]


class HandlerLimit(LimitRules):
    """What counts for a handler, in the whole cluster."""

    handler: str
    declared: Annotated[LimitRules | None, Field(description="What its code says.")]
    set_by: Annotated[str | None, Field(description="Who set another limit by hand; null: as declared.")]


class Limits(TypedDict):
    limits: list[HandlerLimit]


class LastTask(TypedDict):
    id: Id
    state: Annotated[StateName | None, Field(description="Null once the task is no longer kept.")]


class Schedule(TypedDict):
    """What makes tasks at given times."""

    name: str
    cron: str | None
    every_s: float | None
    time_zone: str
    task: Annotated[dict[str, Any], Field(description="As it was asked for.")]
    catch_up: Literal["skip", "last", "all"]
    catch_up_max: int
    overlap: Literal["allow", "skip", "cancel_old"]
    created_by: str | None
    created_at: Time
    changed_at: Time
    paused_at: Time | None
    next: Annotated[list[Time], Field(description="The next fire times; none while it is paused.")]
    last_fire_at: Time | None
    last_task: LastTask | None
    fired: Annotated[int, Field(description="Tasks so far.")]
    missed: Annotated[int, Field(description="Fire times left out by `catch_up`.")]
    skipped: Annotated[int, Field(description="Fire times left out by `overlap`.")]


class TenantPage(TypedDict):
    """By name."""

    tenants: list[TenantRow]
    next_cursor: str | None


class SchedulePage(TypedDict):
    """By name."""

    schedules: list[Schedule]
    next_cursor: str | None


class Deleted(TypedDict):
    name: str
    deleted: bool


class Node(TypedDict):
    """One incarnation of a node."""

    name: str
    incarnation: int
    state: Literal["joining", "active", "unreachable", "draining", "left", "dead"]
    slots: int
    weight: Annotated[float, Field(description="Its share of the ring, relative to the others.")]
    tags: list[str]
    handlers: list[str]
    running: Annotated[
        int | None, Field(description="Attempts it has in hand; null of nodes that have left or died.")
    ]
    credit: Annotated[
        int | None, Field(description="Offers it still takes from the node asked; null when not heard.")
    ]
    started_at: Time
    alive_for_s: Annotated[float, Field(description="What is left of its lease; negative when it ran out.")]
    drain_requested: bool


class Cluster(TypedDict):
    """As the node that answers knows it."""

    view: Annotated[int | None, Field(description="Number of its view; null before the first.")]
    table_hash: Annotated[str, Field(description="Equal where nodes go by the same slot table.")]
    nodes: list[Node]


class RingNode(TypedDict):
    name: str
    incarnation: int
    state: Literal["active", "unreachable", "draining"]
    weight: float
    slots: int
    share: Annotated[float, Field(description="Of all slots; 1 is all of them.")]
    even_share: Annotated[float, Field(description="The share that its weight would mean exactly.")]
    reason: Annotated[str | None, Field(description="Why it owns nothing.")]


class Ring(TypedDict):
    """The slot table of the present view, by node."""

    view: int | None
    table_hash: str
    slots: Annotated[int, Field(description="How many there are.")]
    nodes: list[RingNode]
    max_over_average: Annotated[
        float | None, Field(description="The fullest node's share over its even share.")
    ]


class Place(TypedDict):
    """Where tasks with a key belong."""

    slot: int
    node: str | None
    incarnation: int | None
    reason: Annotated[str | None, Field(description="Why no node owns it.")]


class ViewMember(TypedDict):
    node: str
    incarnation: int
    standing: Literal["active", "unreachable", "draining"]
    weight: float
    tags: list[str]
    digest: Annotated[str, Field(description="Of the names of its handlers.")]


class ViewOut(TypedDict):
    number: int
    by: Annotated[int, Field(description="The incarnation that proposed it.")]
    reason: Annotated[str, Field(description="What changed.")]
    members: list[ViewMember]


class Views(TypedDict):
    """Newest first. Old ones are not kept."""

    views: list[ViewOut]


class DrainRequested(TypedDict):
    name: str
    drain_requested: bool


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
