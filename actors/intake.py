"""From what a caller asked for to a task that can be accepted.

Everything that can be wrong with a request is found here, before anything is stored: unknown handler, arguments
that do not bind, values out of bounds. One place for all doors (HTTP, children, Harness), so that they agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from actors.authoring.limits import (
    METADATA_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    attempts_fault,
    delay_fault,
    key_fault,
    parents_fault,
    tags_fault,
    timeout_fault,
)
from actors.authoring.options import LANES, PARENT_POLICIES, HandlerOptions
from actors.authoring.registry import HandlerDef, Registry
from actors.authoring.task import Task
from actors.authoring.unique import born_later, due_faults, unique_faults
from actors.authoring.workflow import Workflow
from actors.bands import Bands
from actors.catalog import ForeignHandler, Published
from runtime.core.canonical import digest as digest_of
from runtime.core.ids import ENTROPY_BYTES, IdSequence
from runtime.core.limits import Per, limiter_id
from runtime.core.slots import routing_key, slot_of
from runtime.core.task import DEFAULT_TENANT, BandKey, Lane, NewTask, OnParentFailure
from runtime.core.unique import Sole, Unique, unique_id
from runtime.errors import InvalidInput


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


@dataclass(slots=True)
class Prepared:
    """A task ready to be accepted, and its arguments as Python values (so that nothing is parsed twice).

    The arguments are for a birth on this node: empty where only others have the handler.
    """

    task: NewTask
    args: dict[str, Any]


_Combination = tuple[
    str, int, str, tuple[str, ...], bool
]  # the fields of a BandKey; hashes in a tenth of its time


@dataclass(frozen=True, slots=True)
class _Missing:
    """A handler that nobody is known to have. A dotted name is most likely a method of an actor."""

    actor_type: str | None
    options: HandlerOptions = HandlerOptions()
    needs_limit_key: bool = False
    is_limited: bool = False


@dataclass(slots=True)
class _Checked:
    spec: TaskSpec
    handler: HandlerDef | ForeignHandler | _Missing
    key: _Combination
    payload: bytes
    metadata: bytes | None
    args: dict[str, Any]
    is_plain: bool = False  # nothing optional is set
    unique: Unique | None = None


UNCHECKED: Final = "sql:"  # `created_by` of what SQL enqueued: nobody has seen its payload before it runs
Errors = list[tuple[str, str]]
_Accepted = tuple[HandlerDef | ForeignHandler, bytes, dict[str, Any]]
# (band, handler, slot, preferred tags) -> incarnation that starts it at once, or None
Birth = Callable[[int, HandlerDef, int, tuple[str, ...]], int | None]


class Intake:
    """Prepares requests. `now_ms` is this node's clock: it only dates ids, nothing is decided by it.

    `published` are the handlers of other nodes; without it this node accepts for its own only.
    """

    def __init__(
        self,
        registry: Registry,
        bands: Bands,
        now_ms: Callable[[], int],
        published: Published | None = None,
    ) -> None:
        self._registry = registry
        self._own = frozenset(registry.names)
        self._published = published
        self._bands = bands
        self._now_ms = now_ms
        self._ids = IdSequence()
        self._known: dict[_Combination, int] = {}  # bands are never deleted, so neither are these

    async def prepare(
        self, specs: Sequence[TaskSpec], birth: Birth | None = None, *, posted: bool = False
    ) -> list[Prepared]:
        """Validate all and make them ready, in order. Only those that were `posted` may be unique.

        Raises InvalidInput with the errors of all of them (pointers '#/payload/x', and '#/3/payload/x' when there
        are several); Unavailable when a new band could not be interned, or the catalog not be read.
        """
        checked = await self._checked(specs)
        if posted:
            _make_unique(checked)
        else:
            _refuse_unique(specs)
        return await self._prepared(checked, birth)

    async def prepare_unchecked(self, specs: Sequence[TaskSpec]) -> list[Prepared]:
        """Make them ready whether or not anybody takes them now: a schedule was checked when it was made, and what
        does not bind any more waits as any task does whose handler is missing. Raises Unavailable."""
        return await self._prepared([self._unchecked(spec) for spec in specs], None)

    def _unchecked(self, spec: TaskSpec) -> _Checked:
        handler: HandlerDef | ForeignHandler | _Missing | None = self._registry.get(spec.handler)
        if handler is None:
            with contextlib.suppress(InvalidInput):  # it cannot be read here
                handler = self._foreign(spec.handler)
        if handler is None:
            handler = _Missing(spec.handler.rpartition(".")[0] or None)
        metadata = orjson.dumps(spec.metadata) if spec.metadata else None
        return _Checked(spec, handler, _combination(spec, handler), orjson.dumps(spec.payload), metadata, {})

    async def _prepared(self, checked: Sequence[_Checked], birth: Birth | None) -> list[Prepared]:
        unknown = {one.key for one in checked} - self._known.keys()
        if unknown:
            keys = [
                BandKey(name, Lane(lane), tenant, tags, keyed) for name, lane, tenant, tags, keyed in unknown
            ]
            await self._bands.intern(keys)
            for combination, key in zip(unknown, keys, strict=True):
                if (band := self._bands.id_of(key)) is not None:
                    self._known[combination] = band
        ids = self._ids.take(self._now_ms(), os.urandom(ENTROPY_BYTES * len(checked)))
        made = [self._make(one, task_id, birth) for one, task_id in zip(checked, ids, strict=True)]
        if any(one.spec.parents or one.spec.workflow_id is not None for one in checked):
            _link(checked, made)
        return made

    async def _checked(self, specs: Sequence[TaskSpec]) -> list[_Checked]:
        """What others have published counts too: their handlers and, where own ones refuse, other versions of them."""
        published = self._published
        names = {spec.handler for spec in specs}
        if published is None:
            return self._check_all(specs)
        if names <= self._own:
            try:
                return self._check_all(specs)
            except InvalidInput:
                await published.look(names, newest=True)
                if not any(map(self._other_version, names)):
                    raise
        else:
            await published.look(names - self._own)
        # in a thread: a schema takes seconds over a payload that a handler's own types read in milliseconds
        return await asyncio.to_thread(self._check_all, specs, other_versions=True)

    def _make(self, one: _Checked, task_id: UUID, birth: Birth | None) -> Prepared:
        spec = one.spec
        band = self._known[one.key]
        slot = slot_of(routing_key(task_id, spec.idempotency_key, spec.actor_key))
        immediate = not (spec.delay_s or spec.run_at or spec.expires_at or spec.parents)
        born_on = None
        if one.unique is not None and born_later(one.unique):
            birth = None
        if birth is not None and immediate and isinstance(one.handler, HandlerDef):
            born_on = birth(band, one.handler, slot, spec.prefers)
        return Prepared(_new_task(one, band, task_id, slot, born_on), one.args)

    def _check_all(self, specs: Sequence[TaskSpec], *, other_versions: bool = False) -> list[_Checked]:
        checked: list[_Checked] = []
        errors: Errors = []
        for index, spec in enumerate(specs):
            one = self._check(spec, other_versions=other_versions)
            if isinstance(one, _Checked):
                checked.append(one)
            else:
                errors += _placed(one, index, specs)
        _raise_if_any(errors)
        return checked

    def _check(self, spec: TaskSpec, *, other_versions: bool) -> _Checked | Errors:
        plain = _is_plain(spec)
        errors = [] if plain else _check_bounds(spec)
        try:
            accepted = self._accept(spec, other_versions=other_versions)
            if accepted is None:
                return [*errors, ("/handler", self._unknown(spec.handler))]
            handler, payload, args = accepted
        except InvalidInput as refused:
            return [*errors, *((pointer.removeprefix("#"), detail) for pointer, detail in refused.errors)]
        if not (plain and isinstance(handler, HandlerDef) and handler.is_plain):
            errors += _key_faults(spec, handler)
        if len(payload) > PAYLOAD_BYTES_MAX:
            errors.append(_size_fault("/payload", payload, PAYLOAD_BYTES_MAX))
        metadata = orjson.dumps(spec.metadata) if spec.metadata else None
        if metadata is not None and len(metadata) > METADATA_BYTES_MAX:
            errors.append(_size_fault("/metadata", metadata, METADATA_BYTES_MAX))
        return errors or _Checked(spec, handler, _combination(spec, handler), payload, metadata, args, plain)

    def _accept(self, spec: TaskSpec, *, other_versions: bool) -> _Accepted | None:
        """By whose version it was accepted, the bytes to keep, the arguments; None where nobody has the handler.

        Raises InvalidInput: what is wrong by this node's version, where it has one.
        """
        handler = self._registry.get(spec.handler) or self._foreign(spec.handler)
        if handler is None:
            return None
        try:
            return handler, *handler.accept(spec.payload, exact=spec.is_exact)
        except InvalidInput:
            if other_versions and (other := self._other_version(spec.handler)) is not None:
                with contextlib.suppress(InvalidInput):
                    return other, *other.accept(spec.payload)
            raise

    async def others_accept(self, name: str, payload: Mapping[str, Any]) -> bool:
        """Whether another version of this node's handler, as published, takes it. Raises Unavailable."""
        if self._published is None:
            return False
        await self._published.look([name], newest=True)
        other = self._other_version(name)
        if other is None:
            return False
        try:
            await asyncio.to_thread(other.accept, payload)
        except InvalidInput:
            return False
        return True

    def _other_version(self, name: str) -> ForeignHandler | None:
        """What others have published of a handler, where this node has it in another version: a deploy is under way."""
        own = self._registry.get(name)
        with contextlib.suppress(InvalidInput):  # it cannot be read here
            other = self._foreign(name)
            if own is not None and other is not None and other.digest != own.entry().digest:
                return other
        return None

    def _foreign(self, name: str) -> ForeignHandler | None:
        return None if self._published is None else self._published.get(name)

    def _unknown(self, name: str) -> str:
        known = self._own if self._published is None else self._own.union(self._published.names)
        near = difflib.get_close_matches(name, sorted(known), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are: {_some(known)}"
        return f"no handler is named {name!r}; {hint}"


def _some(names: Iterable[str], limit: int = 10) -> str:
    listed = sorted(names)
    return ", ".join(listed[:limit]) + (", …" if len(listed) > limit else "") if listed else "none"


def _combination(spec: TaskSpec, handler: HandlerDef | ForeignHandler | _Missing) -> _Combination:
    lane = handler.options.priority if spec.priority is None else spec.priority
    requires = tuple(sorted(set(spec.requires))) if spec.requires else ()
    return spec.handler, lane.value, spec.tenant, requires, spec.actor_key is not None


def _new_task(one: _Checked, band: int, task_id: UUID, slot: int, born_on: int | None) -> NewTask:
    spec, options = one.spec, one.handler.options
    if one.is_plain and one.unique is None:  # as below, without the price of what is not there
        return NewTask(
            id=task_id,
            band=band,
            slot=slot,
            payload=one.payload,
            max_attempts=options.max_attempts,
            timeout_s=options.timeout_s,
            tenant=spec.tenant,
            metadata=one.metadata,
            created_by=spec.created_by,
            trace_context=spec.trace_context,
            born_on=born_on,
        )
    key = spec.idempotency_key
    assert key is None or spec.digest is not None, "a key without the digest of its request"
    return NewTask(
        id=task_id,
        band=band,
        slot=slot,
        payload=one.payload,
        max_attempts=options.max_attempts if spec.max_attempts is None else spec.max_attempts,
        timeout_s=options.timeout_s if spec.timeout_s is None else spec.timeout_s,
        tenant=spec.tenant,
        idempotency_key=key,
        digest=spec.digest if key is not None else None,
        actor_type=None if spec.actor_key is None else one.handler.actor_type or spec.handler,
        actor_key=spec.actor_key,
        limit_key=spec.limit_key,
        limiter=_limiter(spec),
        prefers=spec.prefers,
        delay_s=spec.delay_s or 0.0,
        run_at=spec.run_at,
        expires_at=spec.expires_at,
        metadata=one.metadata,
        created_by=spec.created_by,
        trace_context=spec.trace_context,
        born_on=born_on,
        unique=None if one.unique is None else _sole(one, one.unique),
    )


def _limiter(spec: TaskSpec) -> UUID | None:
    return None if spec.limit_key is None else limiter_id(spec.handler, Per.KEY, spec.tenant, spec.limit_key)


def _key_faults(spec: TaskSpec, handler: HandlerDef | ForeignHandler) -> Errors:
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


def _link(checked: Sequence[_Checked], made: Sequence[Prepared]) -> None:
    """Places in the request become ids."""
    awaited = {place for one in checked for place in one.spec.parents if isinstance(place, int)}
    for place, (one, prepared) in enumerate(zip(checked, made, strict=True)):
        spec = one.spec
        prepared.task = replace(
            prepared.task,
            workflow_id=spec.workflow_id,
            name=spec.name,
            parents=tuple(made[each].task.id if isinstance(each, int) else each for each in spec.parents),
            on_parent_failure=spec.on_parent_failure,
            awaited=place in awaited,
        )


def _sole(one: _Checked, rule: Unique) -> Sole:
    spec = one.spec
    payload = orjson.loads(one.payload)
    return Sole(unique_id(spec.tenant, spec.handler, rule, actor_key=spec.actor_key, payload=payload), rule)


def _make_unique(checked: Sequence[_Checked]) -> None:
    """By what the task says, else its handler. Raises InvalidInput."""
    errors: Errors = []
    for index, one in enumerate(checked):
        spec = one.spec
        if spec.unique is not None and _is_linked(spec):
            errors += _placed([("/unique", _NOT_LINKED)], index, checked)
        rule = spec.unique
        if rule is None and (own := one.handler.options.unique) is not None and not _is_linked(spec):
            rule = own
        if rule is not None:
            one.unique = rule
            errors += _placed(due_faults(rule, delay_s=spec.delay_s, run_at=spec.run_at), index, checked)
            if any(_is_linked(other.spec) for other in checked):
                errors += _placed([("/unique", _NOT_BESIDE)], index, checked)
    _raise_if_any(errors)


_NOT_LINKED: Final = "does not go with depends_on and workflows: what others wait for cannot be another task"
_NOT_BESIDE: Final = "does not go in one batch with tasks that depend on others"


def _is_linked(spec: TaskSpec) -> bool:
    return bool(spec.parents) or spec.workflow_id is not None


def _refuse_unique(specs: Sequence[TaskSpec]) -> None:
    detail = "only tasks that are posted can be unique, not children, schedules and parts of workflows"
    errors: Errors = []
    for index, spec in enumerate(specs):
        if spec.unique is not None:
            errors += _placed([("/unique", detail)], index, specs)
    _raise_if_any(errors)


def _placed(faults: Errors, index: int, among: Sequence[object]) -> Errors:
    prefix = f"#/{index}" if len(among) > 1 else "#"
    return [(prefix + pointer, detail) for pointer, detail in faults]


def _raise_if_any(errors: Errors) -> None:
    if errors:
        pointer, detail = errors[0]
        raise InvalidInput(f"{len(errors)} invalid field(s); the first: {pointer}: {detail}", tuple(errors))


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


def _is_plain(spec: TaskSpec) -> bool:
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


def _check_bounds(spec: TaskSpec) -> Errors:
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


def _size_fault(pointer: str, body: bytes, bytes_max: int) -> tuple[str, str]:
    return pointer, f"{len(body)} bytes as JSON; at most {bytes_max} are allowed"
