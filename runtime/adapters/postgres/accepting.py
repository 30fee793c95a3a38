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
    fallen: dict[int, list[Acceptance]] = {}
    while True:
        going = [(index, group) for index, group in enumerate(groups) if index not in fallen]
        plan = Plan([group for _, group in going])
        in_transaction = plan.keyed and not connection.is_in_transaction()
        transaction = connection.transaction() if in_transaction else None
        if transaction is not None:
            await transaction.start()
        stored, existing = await _insert(connection, plan.leaders)
        answers = plan.judge(stored, existing)
        new_falls = {going[place][0]: answer for place, answer in enumerate(answers) if _falls(answer)}
        if transaction is not None:
            await (transaction.rollback() if new_falls else transaction.commit())
        if not new_falls or transaction is None:
            fallen |= {going[place][0]: answer for place, answer in enumerate(answers)}
            return [fallen[index] for index in range(len(groups))]
        fallen |= new_falls


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

    def judge(self, stored: dict[UUID, Stored], existing: Sequence[asyncpg.Record]) -> list[list[Acceptance]]:
        """One answer per task. Groups with a reused key fall: their other tasks are Undone, or Duplicate as before."""
        by_id = {row["id"]: row for row in existing}
        by_key = {
            (r["tenant"], r["idempotency_key"]): r for r in existing if r["idempotency_key"] is not None
        }
        fallen_leaders: set[UUID] = set()
        answers = []
        for group in self._groups:
            answer = [self._judge_one(task, stored, by_id, by_key, fallen_leaders) for task in group]
            if _falls(answer):
                fallen_leaders |= {
                    task.id for task, one in zip(group, answer, strict=True) if isinstance(one, Stored)
                }
                ids = {task.id for task in group}
                answer = [_undone(one, ids) for one in answer]
            answers.append(answer)
        return answers

    def _judge_one(
        self,
        task: NewTask,
        stored: dict[UUID, Stored],
        by_id: dict[UUID, asyncpg.Record],
        by_key: dict[Key, asyncpg.Record],
        fallen_leaders: set[UUID],
    ) -> Acceptance:
        if task.id in stored:
            return stored[task.id]
        if (own := by_id.get(task.id)) is not None:  # an earlier commit of ours, whose answer was lost
            return Stored(own["id"], own["seq"], own["created_at"], own["run_at"])
        if task.idempotency_key is None:
            raise Unavailable(f"task {task.id} was neither stored nor found")
        key = (task.tenant, task.idempotency_key)
        leader = self._leader_of[key]
        row = by_key.get(key)
        if row is None and leader is task:  # the other task vanished between the two statements
            raise TryAgain(f"the task of key {task.idempotency_key!r} vanished while it was looked at")
        if row is None and leader.id in fallen_leaders:
            return Undone()  # judged anew in the next round, without the leader's group
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
