"""One task as a caller asked for it, and how what code has made (children, workflows, tests) becomes such requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from actors.authoring.options import LANES, PARENT_POLICIES
from actors.authoring.task import Task
from actors.authoring.workflow import Workflow
from runtime.core.canonical import digest as digest_of
from runtime.core.task import DEFAULT_TENANT, Lane, OnParentFailure
from runtime.core.unique import Unique


@dataclass(slots=True, kw_only=True)  # frozen, it would cost 2.0 instead of 0.4 microseconds to make
class TaskSpec:
    """One task as a caller asked for it; not to be changed. None means: the handler's default.

    `digest`, needed with an idempotency key, is the SHA-256 of the canonical request as it was sent, without key and
    metadata (`request_digest`). Durations in seconds, instants aware.
    """

    handler: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    is_exact: bool = False  # the payload is what `read_json` has read
    tenant: str = DEFAULT_TENANT
    idempotency_key: str | None = None
    actor_key: str | None = None
    limit_key: str | None = None
    priority: Lane | None = None
    requires: tuple[str, ...] = ()
    prefers: tuple[str, ...] = ()
    delay_s: float | None = None
    run_at: datetime | None = None
    expires_at: datetime | None = None
    timeout_s: float | None = None
    max_attempts: int | None = None
    unique: Unique | None = None
    metadata: Mapping[str, Any] | None = None
    created_by: str = ""
    trace_context: str | None = None
    digest: bytes | None = None
    workflow_id: UUID | None = None
    name: str | None = None  # within the workflow
    parents: tuple[UUID | int, ...] = ()  # tasks on record, or places in the same request
    on_parent_failure: OnParentFailure = OnParentFailure.FAIL


def request_digest(request: Mapping[str, Any]) -> bytes:
    """32 bytes that tell two requests with the same idempotency key apart; defaults are not filled in."""
    return digest_of({name: value for name, value in request.items() if name not in _NOT_DIGESTED})


_NOT_DIGESTED: Final = frozenset({"idempotency_key", "metadata"})


def spec_of(
    task: Task[Any], *, tenant: str = DEFAULT_TENANT, created_by: str = "", trace: str | None = None
) -> TaskSpec:
    """A task that code made (a child, a test), as a request."""
    return TaskSpec(
        handler=task.handler,
        payload=task.payload,
        tenant=tenant,
        idempotency_key=task.idempotency_key,
        actor_key=task.actor_key,
        limit_key=task.limit_key,
        priority=None if task.priority is None else LANES[task.priority],
        requires=tuple(task.requires),
        prefers=tuple(task.prefers),
        delay_s=task.delay_s,
        run_at=task.run_at,
        expires_at=task.expires_at,
        timeout_s=task.timeout_s,
        max_attempts=task.max_attempts,
        unique=task.unique,
        metadata=task.metadata,
        created_by=created_by,
        trace_context=trace,
        digest=None if task.idempotency_key is None else request_digest(task.to_request()),
        parents=tuple(map(_as_id, task.depends_on)) if task.depends_on else (),
        on_parent_failure=PARENT_POLICIES[task.on_parent_failure or "fail"],
    )


def specs_of(
    children: Sequence[Task[Any] | Workflow],
    *,
    tenant: str,
    trace: str | None,
    workflow_id: UUID | None,
    own: UUID,
) -> list[TaskSpec]:
    """What one attempt submitted. Its workflows belong to the workflow of its task, or to a new one of its own id."""
    specs: list[TaskSpec] = []
    for child in children:
        if isinstance(child, Task):
            specs.append(spec_of(child, tenant=tenant, trace=trace))
            specs[-1].workflow_id = workflow_id
        else:
            specs += workflow_specs(child, workflow_id or own, tenant=tenant, trace=trace, first=len(specs))
    return specs


def workflow_specs(
    flow: Workflow,
    workflow_id: UUID,
    *,
    tenant: str = DEFAULT_TENANT,
    created_by: str = "",
    trace: str | None = None,
    first: int = 0,
) -> list[TaskSpec]:
    """Its tasks as requests, the first of which has that place."""
    places = {name: place for place, name in enumerate(flow.tasks, start=first)}
    specs = []
    for name, each in flow.tasks.items():
        spec = spec_of(each, tenant=tenant, created_by=created_by, trace=trace)
        spec.workflow_id, spec.name = workflow_id, name
        spec.parents = tuple(places[parent] for parent in flow.parents[name])
        specs.append(spec)
    return specs


def _as_id(task_id: UUID | str) -> UUID:
    return task_id if isinstance(task_id, UUID) else UUID(task_id)
