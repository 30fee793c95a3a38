"""What clients may send, as types: they validate, and the OpenAPI document is made of them.

Law: a field exists here or it is refused (422). Bounds are those of `actors.authoring.limits`, so that all doors
agree. TypedDicts because they cost a quarter of a model class (0.7 instead of 3.3 us per task), and what was
sent stays as it was, for the digest.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NotRequired
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema, with_config
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from actors.authoring.limits import (
    ATTEMPTS_MAX,
    DELAY_S_MAX,
    KEY_CHARS_MAX,
    NAME_CHARS_MAX,
    PARENTS_MAX,
    PAYLOAD_BYTES_MAX,
    TAGS_MAX,
    TIMEOUT_S_MAX,
)
from runtime.core.lanes import WEIGHT_MAX
from runtime.core.limits import BURST_MAX, RUNNING_MAX
from runtime.core.schedule import CATCH_UP_MAX, CRON_CHARS_MAX, EVERY_S_MAX, EVERY_S_MIN

BATCH_TASKS_MAX: Final = 10_000
BATCH_BYTES_MAX: Final = 16 << 20
TASK_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + (64 << 10)  # a payload, and what stands around it
BULK_BYTES_MAX: Final = 1 << 20
CHANGE_BYTES_MAX: Final = 4096
IDS_MAX: Final = 10_000
PAGE_MAX: Final = 500
PAGE_DEFAULT: Final = 50
VIEWS_MAX: Final = 200
VIEWS_DEFAULT: Final = 20
WAIT_S_MAX: Final = 60.0
WORKFLOW_TASKS_DEFAULT: Final = 1_000
WORKFLOW_KEY_CHARS_MAX: Final = 100  # a task's name is added to it
NEXT_MAX: Final = 100
NEXT_DEFAULT: Final = 5

_STRICT = ConfigDict(extra="forbid", strict=True)
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_YEAR_MAX = 9000  # leaves room for offsets and delays


def _instant(value: object) -> datetime:
    """An aware UTC datetime from RFC 3339. Raises ValueError."""
    if not isinstance(value, str) or _RFC3339.fullmatch(value) is None:
        raise ValueError("must be RFC 3339 with a time zone, such as 2031-01-31T12:00:00Z")
    found = datetime.fromisoformat(_in_microseconds(value.upper()))
    if not 1970 <= found.year < _YEAR_MAX:
        raise ValueError(f"the year must be within 1970…{_YEAR_MAX - 1}")
    return found.astimezone(UTC)


def _in_microseconds(text: str) -> str:
    """Python reads at most six decimals of a second."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    zone = tail.lstrip("0123456789")
    return f"{head}.{tail.removesuffix(zone)[:6]:0<6}{zone}"


Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]


def _task_id(value: object) -> UUID:
    """Raises ValueError."""
    try:
        if isinstance(value, str) and len(value) == 36:
            return UUID(value)
    except ValueError:
        pass
    raise ValueError("must be the id of a task")


TaskId = Annotated[UUID, BeforeValidator(_task_id), WithJsonSchema({"type": "string", "format": "uuid"})]
HandlerName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_.]*$", max_length=NAME_CHARS_MAX, examples=["scrape"])
]
Key = Annotated[str, Field(min_length=1, max_length=KEY_CHARS_MAX)]
Tags = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=KEY_CHARS_MAX)]], Field(max_length=TAGS_MAX)
]
_Seconds = Annotated[float, Field(gt=0, le=DELAY_S_MAX, allow_inf_nan=False)]
Priority = Literal["high", "medium", "low"]
StateName = Literal["blocked", "scheduled", "ready", "running", "succeeded", "failed", "cancelled"]


ParentPolicy = Annotated[
    Literal["fail", "skip", "run_anyway", "run"] | None,
    Field(
        description="When a task that it depends on failed: fail too (default), be cancelled, or run anyway (run is short "
        "for that). One that was cancelled cancels it."
    ),
]


@with_config(_STRICT)
class UniqueRequest(TypedDict):
    """Which tasks of the handler stand for the same, and what becomes of a new one meanwhile."""

    mode: Annotated[
        Literal["reject", "existing", "replace", "debounce", "throttle"],
        Field(
            description="Refuse it (409); answer with the one that is there; take the place of the one that waits; "
            "that, and be due once `for_s` are quiet; at most one per `for_s`."
        ),
    ]
    key: NotRequired[
        Annotated[Key | None, Field(description="What they are for; without it those with equal arguments.")]
    ]
    until: NotRequired[
        Annotated[
            Literal["finished", "started"] | None,
            Field(
                description="With reject and existing: until the other one has ended (which is meant if nothing is "
                "said), or no longer waits."
            ),
        ]
    ]
    for_s: NotRequired[
        Annotated[_Seconds | None, Field(description="Seconds from when the other one was accepted.")]
    ]
    max_s: NotRequired[
        Annotated[
            _Seconds | None,
            Field(description="With debounce: seconds after the first at most; default ten times for_s."),
        ]
    ]


class _Work(TypedDict):
    handler: Annotated[HandlerName, Field(description="Name of the handler that runs it.")]
    payload: NotRequired[
        Annotated[dict[str, Any], Field(description="The handler's arguments; at most 1 MiB.")]
    ]
    actor_key: NotRequired[
        Annotated[Key | None, Field(description="Tasks with one key run one at a time, in order.")]
    ]
    limit_key: NotRequired[
        Annotated[
            Key | None,
            Field(description="What a handler with a limit for each key limits it by, with others."),
        ]
    ]
    priority: NotRequired[Priority | None]
    requires: NotRequired[Annotated[Tags, Field(description="Tags a node must bear to run it.")]]
    prefers: NotRequired[Annotated[Tags, Field(description="Tags of nodes that should run it.")]]
    timeout_s: NotRequired[
        Annotated[
            Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX, allow_inf_nan=False)] | None,
            Field(description="Seconds that one attempt may take."),
        ]
    ]
    max_attempts: NotRequired[
        Annotated[
            Annotated[int, Field(ge=1, le=ATTEMPTS_MAX)] | None,
            Field(description="Failures until it is a dead letter."),
        ]
    ]
    metadata: NotRequired[
        Annotated[dict[str, Any] | None, Field(description="Kept and shown, never read; at most 4 KiB.")]
    ]


class _Alone(_Work):
    idempotency_key: NotRequired[
        Annotated[
            Key | None,
            Field(description="One key, one task: the same request again gets the same task back."),
        ]
    ]
    delay_s: NotRequired[
        Annotated[
            Annotated[float, Field(ge=0, le=DELAY_S_MAX, allow_inf_nan=False)] | None,
            Field(description="Seconds until it is due; not together with run_at."),
        ]
    ]
    run_at: NotRequired[Annotated[Instant | None, Field(description="When it is due.")]]
    expires_at: NotRequired[
        Annotated[Instant | None, Field(description="Cancelled when it still waits then.")]
    ]
    unique: NotRequired[
        Annotated[
            UniqueRequest | None,
            Field(description="At most one such task at a time; what is left out is the handler's default."),
        ]
    ]
    sensitive: NotRequired[
        Annotated[
            bool, Field(description="Store the payload encrypted; refused where no keys are configured.")
        ]
    ]
    on_parent_failure: NotRequired[ParentPolicy]


@with_config(_STRICT)
class TaskRequest(_Alone):
    """One task. What is left out is the handler's default."""

    depends_on: NotRequired[
        Annotated[
            list[TaskId],
            Field(max_length=PARENTS_MAX, description="Tasks that must have ended before it is run."),
        ]
    ]


@with_config(_STRICT)
class WorkflowTask(_Alone):
    """A task of a workflow."""

    depends_on: NotRequired[
        Annotated[
            list[Annotated[str, Field(max_length=KEY_CHARS_MAX)]],
            Field(
                max_length=PARENTS_MAX, description="Names of tasks that must have ended before it is run."
            ),
        ]
    ]


@with_config(_STRICT)
class WorkflowRequest(TypedDict):
    """Tasks by name, stored together or not at all."""

    tasks: Annotated[
        dict[str, WorkflowTask],
        Field(min_length=1, description="At most 10,000, with at most 100,000 dependencies and no cycle."),
    ]
    idempotency_key: NotRequired[
        Annotated[
            Annotated[str, Field(min_length=1, max_length=WORKFLOW_KEY_CHARS_MAX)] | None,
            Field(description="One key, one workflow: the same request again gets the same one back."),
        ]
    ]


@with_config(_STRICT)
class ScheduledTask(_Work):
    """The task that each fire time makes. What is left out is the handler's default at that time."""


@with_config(_STRICT)
class ScheduleRequest(TypedDict):
    """A schedule, by `cron` or by `every_s`."""

    cron: NotRequired[
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=CRON_CHARS_MAX,
                examples=["*/5 * * * *"],
                description="Minute, hour, day, month, weekday; or six fields with the second first.",
            ),
        ]
    ]
    every_s: NotRequired[
        Annotated[
            float,
            Field(
                ge=EVERY_S_MIN,
                le=EVERY_S_MAX,
                allow_inf_nan=False,
                description="Seconds of elapsed time between fires; the first is so long from now.",
            ),
        ]
    ]
    time_zone: NotRequired[
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=KEY_CHARS_MAX,
                examples=["Europe/Berlin"],
                description="Whose wall clock cron goes by; default UTC.",
            ),
        ]
    ]
    task: ScheduledTask
    catch_up: NotRequired[
        Annotated[
            Literal["skip", "last", "all"],
            Field(description="Fire times that no node was there for: none, the newest (default), or all."),
        ]
    ]
    catch_up_max: NotRequired[
        Annotated[
            int, Field(ge=1, le=CATCH_UP_MAX, description="With `all`: the newest so many; default 10.")
        ]
    ]
    overlap: NotRequired[
        Annotated[
            Literal["allow", "skip", "cancel_old"],
            Field(description="What to do while an earlier task has not ended; default allow."),
        ]
    ]


@with_config(_STRICT)
class LimitRequest(TypedDict):
    """What an operator limits a handler to: what is left out is not limited."""

    rate_limit: NotRequired[
        Annotated[
            str | None,
            Field(
                max_length=40,
                examples=["100/s"],
                description="Starts of attempts: a count per period (s, min, h, d).",
            ),
        ]
    ]
    burst: NotRequired[
        Annotated[
            Annotated[int, Field(ge=1, le=BURST_MAX)] | None,
            Field(description="How many of them may start at once after a pause."),
        ]
    ]
    max_running: NotRequired[
        Annotated[
            Annotated[int, Field(ge=1, le=RUNNING_MAX)] | None,
            Field(description="How many run at the same time."),
        ]
    ]


@with_config(_STRICT)
class BatchRequest(TypedDict):
    """Tasks that are stored together or not at all."""

    tasks: Annotated[list[TaskRequest], Field(max_length=BATCH_TASKS_MAX)]


class _Filter(TypedDict, total=False):
    state: Annotated[list[StateName], Field(min_length=1, description="Any of these states.")]
    handler: Annotated[str, Field(max_length=KEY_CHARS_MAX)]
    actor_key: Key
    idempotency_key: Key
    workflow_id: Annotated[str, Field(min_length=36, max_length=36, json_schema_extra={"format": "uuid"})]
    created_after: Instant
    created_before: Instant
    error_type: Annotated[str, Field(max_length=KEY_CHARS_MAX, description="Such as ValueError.")]
    ids: Annotated[
        list[Annotated[str, Field(min_length=36, max_length=36, json_schema_extra={"format": "uuid"})]],
        Field(min_length=1, max_length=IDS_MAX),
    ]


@with_config(_STRICT)
class Filter(_Filter, total=False):
    """Every field that is given must match."""


@with_config(_STRICT)
class TaskChange(TypedDict):
    """What may be changed of a task that waits."""

    priority: Priority


@with_config(_STRICT)
class BulkRequest(TypedDict):
    """An action on every task that matches; without a condition only if `all` says that this is meant."""

    filter: NotRequired[Filter]
    all: NotRequired[bool]
    dry_run: NotRequired[Annotated[bool, Field(description="Count what matches, change nothing.")]]


@with_config(_STRICT)
class PriorityRequest(BulkRequest):
    """The priority that every waiting task that matches is to have."""

    priority: Priority


# -- parameters (they come as text, so they are converted) ------------------------------------------

_PARAMETERS = ConfigDict(extra="forbid")


@with_config(_PARAMETERS)
class WaitQuery(TypedDict, total=False):
    wait: Annotated[
        float,
        Field(
            ge=0,
            le=WAIT_S_MAX,
            allow_inf_nan=False,
            description="Answer when the task is final, or after so long.",
        ),
    ]


@with_config(_PARAMETERS)
class ListQuery(_Filter, total=False):
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description=f"Default {PAGE_DEFAULT}.")]
    cursor: Annotated[str, Field(max_length=KEY_CHARS_MAX, description="`next_cursor` of the page before.")]


@with_config(_PARAMETERS)
class EventsQuery(TypedDict, total=False):
    state: Annotated[list[StateName], Field(min_length=1, description="Only these states.")]
    handler: Annotated[
        list[Annotated[str, Field(max_length=NAME_CHARS_MAX)]],
        Field(min_length=1, description="Only these handlers."),
    ]


@with_config(_PARAMETERS)
class LocateQuery(TypedDict):
    key: Annotated[Key, Field(description="An actor key, else an idempotency key, else a task's id.")]
    handler: NotRequired[
        Annotated[
            str,
            Field(max_length=NAME_CHARS_MAX, description="Only nodes that have this handler; else all."),
        ]
    ]


@with_config(_PARAMETERS)
class ViewsQuery(TypedDict, total=False):
    limit: Annotated[int, Field(ge=1, le=VIEWS_MAX, description=f"Default {VIEWS_DEFAULT}.")]


class _Next(TypedDict, total=False):
    next: Annotated[
        int,
        Field(ge=0, le=NEXT_MAX, description=f"How many next fire times to show; default {NEXT_DEFAULT}."),
    ]


@with_config(_PARAMETERS)
class ScheduleQuery(_Next, total=False):
    pass


@with_config(_PARAMETERS)
class SchedulesQuery(_Next, total=False):
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description=f"Default {PAGE_DEFAULT}.")]
    cursor: Annotated[str, Field(max_length=KEY_CHARS_MAX, description="`next_cursor` of the page before.")]


@with_config(_PARAMETERS)
class WorkflowQuery(TypedDict, total=False):
    tasks: Annotated[
        int,
        Field(ge=0, le=BATCH_TASKS_MAX, description=f"Show so many tasks; default {WORKFLOW_TASKS_DEFAULT}."),
    ]


@with_config(_PARAMETERS)
class WorkflowsQuery(TypedDict, total=False):
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description=f"Default {PAGE_DEFAULT}.")]
    cursor: Annotated[str, Field(max_length=KEY_CHARS_MAX, description="`next_cursor` of the page before.")]


@with_config(_PARAMETERS)
class NoQuery(TypedDict):
    pass


@with_config(_STRICT)
class TenantRequest(TypedDict):
    """What an operator gives a tenant."""

    weight: Annotated[
        int, Field(ge=1, le=WEIGHT_MAX, examples=[3], description="Turns in a round; 1 is the usual.")
    ]


@with_config(_PARAMETERS)
class TenantsQuery(TypedDict, total=False):
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, description=f"Default {PAGE_DEFAULT}.")]
    cursor: Annotated[str, Field(max_length=KEY_CHARS_MAX, description="`next_cursor` of the page before.")]


TASK: Final = TypeAdapter(TaskRequest)
BATCH: Final = TypeAdapter(BatchRequest)
BULK: Final = TypeAdapter(BulkRequest)
TASK_CHANGE: Final = TypeAdapter(TaskChange)
PRIORITY: Final = TypeAdapter(PriorityRequest)
SCHEDULE: Final = TypeAdapter(ScheduleRequest)
LIMIT: Final = TypeAdapter(LimitRequest)
TENANT: Final = TypeAdapter(TenantRequest)
WORKFLOW: Final = TypeAdapter(WorkflowRequest)
