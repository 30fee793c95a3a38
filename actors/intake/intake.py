"""The one way in: requests are checked whole, and tasks are made of them."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import orjson

from actors.authoring.limits import METADATA_BYTES_MAX, PAYLOAD_BYTES_MAX
from actors.authoring.registry import HandlerDef, Registry
from actors.authoring.unique import born_later
from actors.bands import Bands
from actors.catalog import ForeignHandler, Published
from actors.intake.checked import Checked, Combination, Missing
from actors.intake.faults import (
    Errors,
    bounds_faults,
    is_plain,
    key_faults,
    placed,
    raise_if_any,
    size_fault,
)
from actors.intake.requests import TaskSpec
from actors.intake.unique import make_unique, refuse_unique, sole_of
from runtime.core.ids import ENTROPY_BYTES, IdSequence
from runtime.core.limits import Per, limiter_id
from runtime.core.slots import routing_key, slot_of
from runtime.core.task import BandKey, Lane, NewTask
from runtime.errors import InvalidInput


@dataclass(slots=True)
class Prepared:
    """A task ready to be accepted, and its arguments as Python values (so that nothing is parsed twice).

    The arguments are for a birth on this node: empty where only others have the handler.
    """

    task: NewTask
    args: dict[str, Any]


UNCHECKED: Final = "sql:"  # `created_by` of what SQL enqueued: nobody has seen its payload before it runs
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
        self._known: dict[Combination, int] = {}  # bands are never deleted, so neither are these

    async def prepare(
        self, specs: Sequence[TaskSpec], birth: Birth | None = None, *, posted: bool = False
    ) -> list[Prepared]:
        """Validate all and make them ready, in order. Only those that were `posted` may be unique.

        Raises InvalidInput with the errors of all of them (pointers '#/payload/x', and '#/3/payload/x' when there
        are several); Unavailable when a new band could not be interned, or the catalog not be read.
        """
        checked = await self._checked(specs)
        if posted:
            make_unique(checked)
        else:
            refuse_unique(specs)
        return await self._prepared(checked, birth)

    async def prepare_unchecked(self, specs: Sequence[TaskSpec]) -> list[Prepared]:
        """Make them ready whether or not anybody takes them now: a schedule was checked when it was made, and what
        does not bind any more waits as any task does whose handler is missing. Raises Unavailable."""
        return await self._prepared([self._unchecked(spec) for spec in specs], None)

    def _unchecked(self, spec: TaskSpec) -> Checked:
        handler: HandlerDef | ForeignHandler | Missing | None = self._registry.get(spec.handler)
        if handler is None:
            with contextlib.suppress(InvalidInput):  # it cannot be read here
                handler = self._foreign(spec.handler)
        if handler is None:
            handler = Missing(spec.handler.rpartition(".")[0] or None)
        metadata = orjson.dumps(spec.metadata) if spec.metadata else None
        return Checked(spec, handler, _combination(spec, handler), orjson.dumps(spec.payload), metadata, {})

    async def _prepared(self, checked: Sequence[Checked], birth: Birth | None) -> list[Prepared]:
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

    async def _checked(self, specs: Sequence[TaskSpec]) -> list[Checked]:
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

    def _make(self, one: Checked, task_id: UUID, birth: Birth | None) -> Prepared:
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

    def _check_all(self, specs: Sequence[TaskSpec], *, other_versions: bool = False) -> list[Checked]:
        checked: list[Checked] = []
        errors: Errors = []
        for index, spec in enumerate(specs):
            one = self._check(spec, other_versions=other_versions)
            if isinstance(one, Checked):
                checked.append(one)
            else:
                errors += placed(one, index, specs)
        raise_if_any(errors)
        return checked

    def _check(self, spec: TaskSpec, *, other_versions: bool) -> Checked | Errors:
        plain = is_plain(spec)
        errors = [] if plain else bounds_faults(spec)
        try:
            accepted = self._accept(spec, other_versions=other_versions)
            if accepted is None:
                return [*errors, ("/handler", self._unknown(spec.handler))]
            handler, payload, args = accepted
        except InvalidInput as refused:
            return [*errors, *((pointer.removeprefix("#"), detail) for pointer, detail in refused.errors)]
        if not (plain and isinstance(handler, HandlerDef) and handler.is_plain):
            errors += key_faults(spec, handler)
        if len(payload) > PAYLOAD_BYTES_MAX:
            errors.append(size_fault("/payload", payload, PAYLOAD_BYTES_MAX))
        metadata = orjson.dumps(spec.metadata) if spec.metadata else None
        if metadata is not None and len(metadata) > METADATA_BYTES_MAX:
            errors.append(size_fault("/metadata", metadata, METADATA_BYTES_MAX))
        return errors or Checked(spec, handler, _combination(spec, handler), payload, metadata, args, plain)

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


def _combination(spec: TaskSpec, handler: HandlerDef | ForeignHandler | Missing) -> Combination:
    lane = handler.options.priority if spec.priority is None else spec.priority
    requires = tuple(sorted(set(spec.requires))) if spec.requires else ()
    return spec.handler, lane.value, spec.tenant, requires, spec.actor_key is not None


def _new_task(one: Checked, band: int, task_id: UUID, slot: int, born_on: int | None) -> NewTask:
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
        unique=None if one.unique is None else sole_of(one, one.unique),
    )


def _limiter(spec: TaskSpec) -> UUID | None:
    return None if spec.limit_key is None else limiter_id(spec.handler, Per.KEY, spec.tenant, spec.limit_key)


def _link(checked: Sequence[Checked], made: Sequence[Prepared]) -> None:
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
