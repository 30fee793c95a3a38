"""From what a caller asked for to a task that can be accepted.

Everything that can be wrong with a request is found here, before anything is stored: unknown handler, arguments
that do not bind, values out of bounds. One place for all doors (HTTP, children, Harness), so that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runtime.core.task import DEFAULT_TENANT, Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task as a caller asked for it. None means: the handler's default.

    `digest` is the SHA-256 of the canonical request as it was sent, without key and metadata; None lets the intake
    compute it from these fields. Durations in seconds, instants aware.
    """

    handler: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT
    idempotency_key: str | None = None
    actor_key: str | None = None
    priority: Lane | None = None
    requires: tuple[str, ...] = ()
    prefers: tuple[str, ...] = ()
    delay_s: float | None = None
    run_at: datetime | None = None
    expires_at: datetime | None = None
    timeout_s: float | None = None
    max_attempts: int | None = None
    metadata: Mapping[str, Any] | None = None
    created_by: str = ""
    trace_context: str | None = None
    digest: bytes | None = None
