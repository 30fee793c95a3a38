"""Linking children to the tasks that they wait for, in the transaction that stores them.

Law: a parent that is here when its child is stored either has its row marked as awaited, under that row's lock, before
it ends; or its outcome is found, and its end is told here. So no child waits for an end that nobody tells. A row may move
while it is looked for, so whoever does not find it looks again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import text_array, uuid_of
from runtime.adapters.postgres.translate import TryAgain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from runtime.adapters.postgres.connections import Session
    from runtime.core.task import NewTask

_LOOKS: Final = 20


async def link(
    session: Session, children: Sequence[NewTask], own: Iterable[UUID], really: Mapping[UUID, UUID]
) -> set[UUID]:
    """Link tasks that were just inserted. Returns the parents that do not exist: then this must not be committed.

    `own`: awaited tasks of this transaction. `really`: which tasks stand for those that were found under their key.
    """
    if really:
        children = await _rebind(session, children, really)
    known = set(own)
    foreign = {
        (parent, child.tenant) for child in children for parent in child.parents if parent not in known
    }
    if foreign:
        pairs = sorted(foreign)
        values = [parent for parent, _ in pairs], [tenant for _, tenant in pairs]
        present = {row[0] for row in await session.fetch(SQL.present_tasks, *values)}
        if missing := {parent for parent, _ in foreign if parent not in present}:
            return missing
        if gone := await hold(session, {parent for parent, _ in foreign}):
            return gone
    await _store(session, [(parent, child.id) for child in children for parent in child.parents])
    return set()


async def link_again(session: Session, parents_of: Mapping[UUID, Sequence[UUID]]) -> None:
    """Link tasks that were replayed. Parents that are not kept any more are not waited for."""
    gone = await hold(session, {parent for parents in parents_of.values() for parent in parents})
    if gone:
        await session.fetch(SQL.tell_gone, sorted(gone))
    await _store(session, [(parent, child) for child, parents in parents_of.items() for parent in parents])


async def hold(session: Session, parents: Iterable[UUID]) -> set[UUID]:
    """Have their ends told, from now on or at once; returns those that are nowhere. Raises TryAgain."""
    left = sorted(parents)
    for _ in range(_LOOKS):
        for query in (SQL.await_waiting, SQL.await_running, SQL.tell_ended, SQL.await_unbanded):
            if left:
                met = {row[0] for row in await session.fetch(query, left)}
                left = [parent for parent in left if parent not in met]
        if not left:
            return set()
        present = {row["id"] for row in await session.fetch(SQL.views, left, False, False)}
        if not present:
            return {uuid_of(parent) for parent in left}
    raise TryAgain("a task that others are to wait for moved each time it was looked for")


async def _store(session: Session, edges: Sequence[tuple[UUID, UUID]]) -> None:
    await session.fetch(SQL.link, [parent for parent, _ in edges], [child for _, child in edges])


async def _rebind(
    session: Session, children: Sequence[NewTask], really: Mapping[UUID, UUID]
) -> list[NewTask]:
    """Let them depend on the tasks that were there before instead of those that were not stored."""
    bound: list[NewTask] = []
    changed: list[NewTask] = []
    for child in children:
        parents = tuple(dict.fromkeys(really.get(parent, parent) for parent in child.parents))
        bound.append(child if parents == child.parents else replace(child, parents=parents))
        if bound[-1] is not child:
            changed.append(bound[-1])
    if changed:
        changed.sort(key=lambda child: child.id.int)
        values = [child.id for child in changed], [text_array(map(str, child.parents)) for child in changed]
        await session.fetch(SQL.rebind, *values)
    return bound
