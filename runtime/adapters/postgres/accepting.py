"""Accepting tasks: one transaction for a whole batch of groups.

The insert takes every row whose id and key are new. What it does not return is read by a second statement and judged:
our own earlier commit, the same request, or another request under the same key. A group that falls takes the batch's
transaction with it, and the others are stored without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from runtime.adapters.postgres.connections import Connection, Connections
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.translate import ContentRefused, TryAgain, translated
from runtime.core.task import Acceptance, Duplicate, KeyReused, NewTask, Refused, Stored, Undone
from runtime.errors import Unavailable

Groups = Sequence[Sequence[NewTask]]
Key = tuple[str, str]  # tenant, idempotency key

_TRIES: Final = 5


class Accepting:
    _connections: Connections

    async def accept(self, groups: Groups) -> list[list[Acceptance]]:
        answers: list[list[Acceptance] | None] = [None] * len(groups)
        await self._accept_some(groups, list(range(len(groups))), answers)
        return [answer for answer in answers if answer is not None]

    async def _accept_some(
        self, groups: Groups, indices: list[int], answers: list[list[Acceptance] | None]
    ) -> None:
        """Where PostgreSQL refuses the content of some row, halves go alone until the guilty group stands alone."""
        try:
            found = await self._accept_repeatedly([groups[index] for index in indices])
        except ContentRefused as refused:
            if len(indices) == 1:
                group = groups[indices[0]]
                answers[indices[0]] = await self._blame(group, refused)
                return
            half = len(indices) // 2
            await self._accept_some(groups, indices[:half], answers)
            await self._accept_some(groups, indices[half:], answers)
            return
        for index, answer in zip(indices, found, strict=True):
            answers[index] = answer

    async def _blame(self, group: Sequence[NewTask], refused: ContentRefused) -> list[Acceptance]:
        """Which tasks of a refused group are the guilty ones: each is tried alone, and taken back."""
        if len(group) == 1:
            return [Refused(str(refused))]
        verdicts: list[Acceptance] = []
        async with self._connections.accept.connection() as connection:
            for task in group:
                verdicts.append(await _try_alone(connection, task))
        return (
            verdicts
            if any(isinstance(v, Refused) for v in verdicts)
            else [Refused(str(refused)) for _ in group]
        )

    async def _accept_repeatedly(self, groups: Groups) -> list[list[Acceptance]]:
        for attempt in range(_TRIES):
            try:
                async with self._connections.accept.connection() as connection:
                    return await accept_on(connection, groups)
            except TryAgain:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")


async def _try_alone(connection: Connection, task: NewTask) -> Acceptance:
    transaction = connection.transaction()
    await transaction.start()
    try:
        with translated():
            await connection.fetch(SQL.accept, *arrays([task]))
            rows = await connection.fetch(SQL.accept_existing, [], *_keys([task]))
    except ContentRefused as refused:
        return Refused(str(refused))
    finally:
        await transaction.rollback()
    return Duplicate(rows[0]["id"]) if rows and rows[0]["id"] != task.id else Undone()


async def accept_on(connection: Connection, groups: Groups) -> list[list[Acceptance]]:
    """Store the groups that can be stored, in one transaction; as if they came one after the other."""
    answered: dict[int, list[Acceptance]] = {}
    while True:
        going = [index for index in range(len(groups)) if index not in answered]
        plan = Plan([groups[index] for index in going])
        own = connection.transaction() if plan.keyed and not connection.is_in_transaction() else None
        if own is not None:
            await own.start()
        answers = plan.judge(*await _insert(connection, plan.leaders))
        falls = {
            i: answer for i, answer in zip(going, answers, strict=True) if answer is None or _falls(answer)
        }
        if own is None or not falls:
            if own is not None:
                await own.commit()
            answered |= {
                i: [Undone()] if answer is None else answer for i, answer in zip(going, answers, strict=True)
            }
            return [answered[index] for index in range(len(groups))]
        await own.rollback()
        answered |= {i: answer for i, answer in falls.items() if answer is not None}


def _falls(answer: Sequence[Acceptance]) -> bool:
    return any(isinstance(one, KeyReused | Undone) for one in answer)


async def _insert(
    connection: Connection, tasks: Sequence[NewTask]
) -> tuple[dict[UUID, Stored], list[asyncpg.Record]]:
    if not tasks:
        return {}, []
    rows = await connection.fetch(SQL.accept, *arrays(tasks))
    stored = {row[0]: Stored(*row) for row in rows}
    missing = [task for task in tasks if task.id not in stored]
    if not missing:
        return stored, []
    existing = await connection.fetch(SQL.accept_existing, [task.id for task in missing], *_keys(missing))
    return stored, existing


def _keys(tasks: Iterable[NewTask]) -> tuple[list[str], list[str]]:
    keyed = [task for task in tasks if task.idempotency_key is not None]
    return [task.tenant for task in keyed], [task.idempotency_key or "" for task in keyed]


class Plan:
    """Groups with equal keys folded: of each key the first task (its leader) is sent, the others follow it."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self.leaders: list[NewTask] = []
        self._leader_of: dict[Key, NewTask] = {}
        for task in (task for group in groups for task in group):
            if task.idempotency_key is None:
                self.leaders.append(task)
            elif (key := (task.tenant, task.idempotency_key)) not in self._leader_of:
                self._leader_of[key] = task
                self.leaders.append(task)
        self.keyed = bool(self._leader_of)

    def judge(
        self, stored: dict[UUID, Stored], existing: Sequence[asyncpg.Record]
    ) -> list[list[Acceptance] | None]:
        """One answer per task; None for a group that depends on one that fell, to be judged anew without that one."""
        by_id = {row["id"]: row for row in existing}
        by_key = {
            (r["tenant"], r["idempotency_key"]): r for r in existing if r["idempotency_key"] is not None
        }
        fallen: set[UUID] = set()
        answers: list[list[Acceptance] | None] = []
        for group in self._groups:
            if any(task.id not in stored and self._leader(task).id in fallen for task in group):
                answers.append(None)
                continue
            answer = [self._judge_one(task, stored, by_id, by_key) for task in group]
            if _falls(answer):
                ids = {task.id for task in group}
                fallen |= ids
                answer = [_undone(one, ids) for one in answer]
            answers.append(answer)
        return answers

    def _leader(self, task: NewTask) -> NewTask:
        return task if task.idempotency_key is None else self._leader_of[task.tenant, task.idempotency_key]

    def _judge_one(
        self,
        task: NewTask,
        stored: dict[UUID, Stored],
        by_id: dict[UUID, asyncpg.Record],
        by_key: dict[Key, asyncpg.Record],
    ) -> Acceptance:
        if task.id in stored:
            return stored[task.id]
        if (own := by_id.get(task.id)) is not None:  # an earlier commit of ours, whose answer was lost
            return Stored(own["id"], own["seq"], own["created_at"], own["run_at"])
        if task.idempotency_key is None:
            raise Unavailable(f"task {task.id} was neither stored nor found")
        leader = self._leader(task)
        row = by_key.get((task.tenant, task.idempotency_key))
        if row is None and leader is task:  # the other task vanished between the two statements
            raise TryAgain(f"the task of key {task.idempotency_key!r} vanished while it was looked at")
        other_id = leader.id if row is None else row["id"]
        digest = leader.digest if row is None else row["digest"]
        return Duplicate(other_id) if digest == task.digest else KeyReused(other_id, digest or b"")


def _undone(one: Acceptance, group_ids: set[UUID]) -> Acceptance:
    if isinstance(one, Stored) or (isinstance(one, Duplicate) and one.id in group_ids):
        return Undone()
    return one


# -- arrays -----------------------------------------------------------------------------------------


def arrays(tasks: Sequence[NewTask]) -> list[Any]:
    """The parameters of `accept`. A column of nothing but nulls (or defaults) is sent as one null."""
    return [
        [t.id for t in tasks],
        [t.band for t in tasks],
        [t.slot for t in tasks],
        [t.payload for t in tasks],
        [t.max_attempts for t in tasks],
        [t.timeout_s for t in tasks],
        [t.tenant for t in tasks],
        *(_or_null([getter(t) for t in tasks]) for getter in _OPTIONAL),
    ]


_OPTIONAL: Final[tuple[Callable[[NewTask], Any], ...]] = (
    lambda t: t.idempotency_key,
    lambda t: t.digest,
    lambda t: t.actor_type,
    lambda t: t.actor_key,
    lambda t: t.delay_s or None,
    lambda t: t.run_at,
    lambda t: t.expires_at,
    lambda t: None if t.metadata is None else t.metadata.decode(),
    lambda t: t.created_by or None,
    lambda t: t.trace_context,
    lambda t: t.workflow_id,
    lambda t: int(t.payload_codec) or None,
    lambda t: t.payload_key,
    lambda t: t.payload_ref,
    lambda t: t.born_on,
    lambda t: _json_array(t.prefers) if t.prefers else None,
)


def _json_array(texts: Sequence[str]) -> str:
    try:
        return orjson.dumps(texts).decode()
    except TypeError as surrogate:
        raise ContentRefused(f"a tag cannot be stored: {surrogate}") from surrogate


def _or_null(column: list[Any]) -> list[Any] | None:
    return column if any(value is not None for value in column) else None
