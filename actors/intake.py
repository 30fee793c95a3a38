"""From what a caller asked for to a task that can be accepted.

Everything that can be wrong with a request is found here, before anything is stored: unknown handler, arguments
that do not bind, values out of bounds. One place for all doors (HTTP, children, Harness), so that they agree.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from actors.authoring.registry import HandlerDef, Registry
from actors.bands import Bands
from runtime.core.canonical import digest as digest_of
from runtime.core.ids import ENTROPY_BYTES, IdSequence
from runtime.core.slots import routing_key, slot_of
from runtime.core.task import DEFAULT_TENANT, BandKey, Lane, NewTask
from runtime.errors import InvalidInput

PAYLOAD_BYTES_MAX: Final = 1 << 20
KEY_CHARS_MAX: Final = 255
KEY_BYTES_MAX: Final = 512
TAGS_MAX: Final = 16
METADATA_BYTES_MAX: Final = 4096
ATTEMPTS_MAX: Final = 1000
TIMEOUT_S_MAX: Final = 7 * 86400.0
DELAY_S_MAX: Final = 366 * 86400.0


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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task ready to be accepted, and its arguments as Python values (so that nothing is parsed twice)."""

    task: NewTask
    args: dict[str, Any]


Errors = list[tuple[str, str]]
Birth = Callable[[int, HandlerDef], int | None]  # (band, handler) -> incarnation that starts it at once, or None


class Intake:
    """Prepares requests. `now_ms` is this node's clock: it only dates ids, nothing is decided by it."""

    def __init__(self, registry: Registry, bands: Bands, now_ms: Callable[[], int]) -> None:
        self._registry = registry
        self._bands = bands
        self._now_ms = now_ms
        self._ids = IdSequence()

    async def prepare(self, specs: Sequence[TaskSpec], birth: Birth | None = None) -> list[Prepared]:
        """Validate all and make them ready, in order.

        Raises InvalidInput with the errors of all of them (pointers '#/payload/x', and '#/3/payload/x' when there
        are several); Unavailable when a new band could not be interned.
        """
        handlers, args = self._validate(specs)
        keys = [_band_key(spec, handler) for spec, handler in zip(specs, handlers, strict=True)]
        await self._bands.intern(set(keys))
        ids = self._ids.take(self._now_ms(), os.urandom(ENTROPY_BYTES * len(specs)))
        prepared = []
        for spec, handler, key, task_id, values in zip(specs, handlers, keys, ids, args, strict=True):
            band = self._bands.id_of(key)
            assert band is not None, "just interned"
            immediate = birth is not None and not spec.delay_s and spec.run_at is None and spec.expires_at is None
            born_on = birth(band, handler) if immediate and birth is not None else None
            prepared.append(Prepared(_new_task(spec, handler, band, task_id, born_on), values))
        return prepared

    def _validate(self, specs: Sequence[TaskSpec]) -> tuple[list[HandlerDef], list[dict[str, Any]]]:
        handlers: list[HandlerDef] = []
        args: list[dict[str, Any]] = []
        errors: Errors = []
        for index, spec in enumerate(specs):
            prefix = f"#/{index}" if len(specs) > 1 else "#"
            found = _check_bounds(spec)
            handler = self._registry.get(spec.handler)
            if handler is None:
                found.append(("/handler", self._unknown(spec.handler)))
            else:
                try:
                    args.append(handler.validate(spec.payload))
                except InvalidInput as refused:
                    found += [(pointer.removeprefix("#"), detail) for pointer, detail in refused.errors]
                handlers.append(handler)
            errors += [(prefix + pointer, detail) for pointer, detail in found]
        if errors:
            raise InvalidInput(f"{len(errors)} invalid field(s); first: {errors[0][0]}: {errors[0][1]}", tuple(errors))
        return handlers, args

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._registry.names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are: {_some(self._registry.names)}"
        return f"no handler is named {name!r}; {hint}"


def _some(names: Iterable[str], limit: int = 10) -> str:
    listed = sorted(names)
    return ", ".join(listed[:limit]) + (", …" if len(listed) > limit else "") if listed else "none"


def _band_key(spec: TaskSpec, handler: HandlerDef) -> BandKey:
    lane = handler.options.priority if spec.priority is None else spec.priority
    requires = tuple(sorted(set(spec.requires))) if spec.requires else ()
    return BandKey(spec.handler, lane, spec.tenant, requires, spec.actor_key is not None)


def _new_task(spec: TaskSpec, handler: HandlerDef, band: int, task_id: UUID, born_on: int | None) -> NewTask:
    options = handler.options
    key = spec.idempotency_key
    return NewTask(
        id=task_id,
        band=band,
        slot=slot_of(routing_key(task_id, key, spec.actor_key)),
        payload=orjson.dumps(spec.payload) if spec.payload else b"{}",
        max_attempts=options.max_attempts if spec.max_attempts is None else spec.max_attempts,
        timeout_s=options.timeout_s if spec.timeout_s is None else spec.timeout_s,
        tenant=spec.tenant,
        idempotency_key=key,
        digest=None if key is None else spec.digest or _spec_digest(spec),
        actor_type=None if spec.actor_key is None else spec.handler.partition(".")[0],
        actor_key=spec.actor_key,
        prefers=spec.prefers,
        delay_s=spec.delay_s or 0.0,
        run_at=spec.run_at,
        expires_at=spec.expires_at,
        metadata=None if not spec.metadata else orjson.dumps(spec.metadata),
        created_by=spec.created_by,
        trace_context=spec.trace_context,
        born_on=born_on,
    )


def _spec_digest(spec: TaskSpec) -> bytes:
    request = {
        "handler": spec.handler,
        "payload": spec.payload,
        "actor_key": spec.actor_key,
        "priority": None if spec.priority is None else spec.priority.name.lower(),
        "requires": list(spec.requires) or None,
        "prefers": list(spec.prefers) or None,
        "delay_s": spec.delay_s,
        "run_at": None if spec.run_at is None else spec.run_at.isoformat(),
        "expires_at": None if spec.expires_at is None else spec.expires_at.isoformat(),
        "timeout_s": spec.timeout_s,
        "max_attempts": spec.max_attempts,
    }
    return digest_of({name: value for name, value in request.items() if value is not None})


def _check_bounds(spec: TaskSpec) -> Errors:
    """(pointer, detail) of every value that is out of bounds. Cheap where nothing optional is set."""
    errors: Errors = []
    if spec.idempotency_key is not None:
        errors += _check_key("/idempotency_key", spec.idempotency_key)
    if spec.actor_key is not None:
        errors += _check_key("/actor_key", spec.actor_key)
    if spec.requires or spec.prefers:
        errors += _check_tags("/requires", spec.requires) + _check_tags("/prefers", spec.prefers)
    if spec.timeout_s is not None and not 0 < spec.timeout_s <= TIMEOUT_S_MAX:
        errors.append(("/timeout_s", f"{spec.timeout_s} is not above 0 and at most {TIMEOUT_S_MAX:.0f} seconds"))
    if spec.max_attempts is not None and not 1 <= spec.max_attempts <= ATTEMPTS_MAX:
        errors.append(("/max_attempts", f"{spec.max_attempts} is not within 1…{ATTEMPTS_MAX}"))
    if spec.delay_s is not None:
        if not 0 <= spec.delay_s <= DELAY_S_MAX:
            errors.append(("/delay_s", f"{spec.delay_s} is not within 0…{DELAY_S_MAX:.0f} seconds"))
        if spec.run_at is not None:
            errors.append(("/run_at", "give delay_s or run_at, not both"))
    for name, instant in (("run_at", spec.run_at), ("expires_at", spec.expires_at)):
        if instant is not None and instant.tzinfo is None:
            errors.append((f"/{name}", f"{instant.isoformat()} has no time zone; write it with Z or an offset"))
    if spec.metadata:
        size = len(orjson.dumps(spec.metadata))
        if size > METADATA_BYTES_MAX:
            errors.append(("/metadata", f"{size} bytes as JSON; at most {METADATA_BYTES_MAX} are allowed"))
    return errors


def _check_key(pointer: str, key: str) -> Errors:
    if not 1 <= len(key) <= KEY_CHARS_MAX:
        return [(pointer, f"{len(key)} characters; 1 to {KEY_CHARS_MAX} are allowed")]
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return [(pointer, "contains a lone surrogate, which is not text")]
    if "\0" in key:
        return [(pointer, "contains a NUL character, which PostgreSQL cannot store in text")]
    if size > KEY_BYTES_MAX:
        return [(pointer, f"{size} bytes as UTF-8; at most {KEY_BYTES_MAX} are allowed")]
    return []


def _check_tags(pointer: str, tags: Sequence[str]) -> Errors:
    errors: Errors = []
    if len(tags) > TAGS_MAX:
        errors.append((pointer, f"{len(tags)} tags; at most {TAGS_MAX} are allowed"))
    for index, tag in enumerate(tags[:TAGS_MAX]):
        errors += _check_key(f"{pointer}/{index}", tag)
    return errors
