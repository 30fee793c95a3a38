"""What can be wrong with a request by itself: (pointer, detail) of each fault, none where all is well."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from actors.authoring.limits import (
    attempts_fault,
    delay_fault,
    key_fault,
    parents_fault,
    tags_fault,
    timeout_fault,
)
from actors.authoring.registry import HandlerDef
from actors.authoring.unique import unique_faults
from actors.catalog import ForeignHandler
from actors.intake.requests import TaskSpec
from runtime.errors import InvalidInput

Errors = list[tuple[str, str]]


def is_plain(spec: TaskSpec) -> bool:
    """Whether nothing optional is set that could be out of bounds; most tasks are so."""
    return (
        spec.idempotency_key is None
        and spec.actor_key is None
        and spec.limit_key is None
        and spec.timeout_s is None
        and spec.max_attempts is None
        and spec.delay_s is None
        and spec.run_at is None
        and spec.expires_at is None
        and not spec.requires
        and not spec.prefers
        and not spec.parents
        and spec.unique is None
    )


def bounds_faults(spec: TaskSpec) -> Errors:
    """(pointer, detail) of every value that is out of bounds."""
    found: list[tuple[str, str | None]] = []
    if spec.idempotency_key is not None:
        found.append(("/idempotency_key", key_fault(spec.idempotency_key)))
    if spec.actor_key is not None:
        found.append(("/actor_key", key_fault(spec.actor_key)))
    if spec.limit_key is not None:
        found.append(("/limit_key", key_fault(spec.limit_key)))
    if spec.requires or spec.prefers:
        found += [("/requires", tags_fault(spec.requires)), ("/prefers", tags_fault(spec.prefers))]
    if spec.parents:
        foreign = [each for each in spec.parents if isinstance(each, UUID)]
        found.append(("/depends_on", parents_fault(foreign)))
    if spec.timeout_s is not None:
        found.append(("/timeout_s", timeout_fault(spec.timeout_s)))
    if spec.max_attempts is not None:
        found.append(("/max_attempts", attempts_fault(spec.max_attempts)))
    if spec.delay_s is not None:
        found.append(("/delay_s", delay_fault(spec.delay_s)))
        found.append(("/run_at", None if spec.run_at is None else "give delay_s or run_at, not both"))
    if spec.unique is not None:
        found += unique_faults(spec.unique)
    for name, instant in (("/run_at", spec.run_at), ("/expires_at", spec.expires_at)):
        if instant is not None and instant.tzinfo is None:
            found.append((name, f"{instant.isoformat()} has no time zone; write it with Z or an offset"))
    return [(pointer, fault) for pointer, fault in found if fault is not None]


def key_faults(spec: TaskSpec, handler: HandlerDef | ForeignHandler) -> Errors:
    """Whether it names the keys that its handler asks for, and no others."""
    faults: Errors = []
    if handler.actor_type is not None and spec.actor_key is None:
        faults.append(("/actor_key", f"is required: {spec.handler} is a message to a keyed actor"))
    if handler.is_limited and spec.actor_key is not None:
        detail = f"{spec.handler} has a limit, which does not count messages to a key; leave one of them out"
        faults.append(("/actor_key", detail))
    if handler.needs_limit_key is not (spec.limit_key is not None):
        faults.append(_limit_key_fault(spec))
    return faults


def _limit_key_fault(spec: TaskSpec) -> tuple[str, str]:
    if spec.limit_key is None:
        return "/limit_key", f"is required: {spec.handler} is limited for each key"
    return "/limit_key", f"{spec.handler} has no limit for each key; declare one with limit_per='key'"


def size_fault(pointer: str, body: bytes, bytes_max: int) -> tuple[str, str]:
    return pointer, f"{len(body)} bytes as JSON; at most {bytes_max} are allowed"


def placed(faults: Errors, index: int, among: Sequence[object]) -> Errors:
    prefix = f"#/{index}" if len(among) > 1 else "#"
    return [(prefix + pointer, detail) for pointer, detail in faults]


def raise_if_any(errors: Errors) -> None:
    if errors:
        pointer, detail = errors[0]
        raise InvalidInput(f"{len(errors)} invalid field(s); the first: {pointer}: {detail}", tuple(errors))
