"""Settling: how attempts ended.

Law: the fence is the DELETE of the running row, and only what it returns is written. One statement does it
for the whole batch; children are stored by a second one, in the same transaction. What did not match is
looked up by a statement of its own: it may be an earlier commit of ours whose answer was lost.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runtime.adapters.postgres.accepting import Plan, falls, insert
from runtime.adapters.postgres.connections import unzipped
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import json_of_error, json_of_progress
from runtime.adapters.postgres.translate import ContentRefused, repeated
from runtime.core.task import Finish, Requeue, Settlement, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.adapters.postgres.connections import Connections, Session
    from runtime.core.task import NewTask, Progress

Identity = tuple[UUID, int, int]  # id, attempt, incarnation
_ROW_WIDTH: Final = 14


class Settling:
    _connections: Connections

    async def settle(self, settlements: Sequence[Settlement]) -> list[Verdict]:
        """Raises Unavailable, Overloaded; then all of it may be repeated."""
        verdicts: dict[int, Verdict] = {}
        if settlements:
            async with self._connections.settle.deadline(len(settlements)):
                while going := _next(settlements, verdicts):
                    await self._settle_some(settlements, going, verdicts)
                    await self._look_back(settlements, going, verdicts)
        return [verdicts[place] for place in range(len(settlements))]

    async def _settle_some(
        self, settlements: Sequence[Settlement], places: Sequence[int], verdicts: dict[int, Verdict]
    ) -> None:
        """Where PostgreSQL refuses some content, halves go on their own until the guilty one stands alone."""
        some = [settlements[place] for place in places]
        try:
            done = await repeated(lambda: self._settle_once(some))
        except ContentRefused:
            if len(places) == 1:
                verdicts[places[0]] = Verdict.REFUSED
                return
            half = len(places) // 2
            await self._settle_some(settlements, places[:half], verdicts)
            await self._settle_some(settlements, places[half:], verdicts)
        else:
            if len(done) < len(places):
                places = [place for place in places if _identity(settlements[place]) in done]
            verdicts.update(dict.fromkeys(places, Verdict.COMMITTED))

    async def _settle_once(self, settlements: Sequence[Settlement]) -> set[Identity]:
        """Identities of those that were committed."""
        values = _columns(settlements)
        async with self._connections.settle.session(len(settlements)) as session:
            if not any(_children(one) for one in settlements):
                return await _fence(session, values)
            async with session.transaction():
                done = await _fence(session, values)
                await _store_children(
                    session, [_children(one) for one in settlements if _identity(one) in done]
                )
        return done

    async def _look_back(
        self, settlements: Sequence[Settlement], places: Sequence[int], verdicts: dict[int, Verdict]
    ) -> None:
        """Those that did not match: a repeat of what was committed before, or late."""
        late = [place for place in places if place not in verdicts]
        if not late:
            return
        values = unzipped([(*_identity(settlements[place]), *_end(settlements[place])) for place in late], 5)
        rows = await self._connections.settle.fetch(SQL.on_record, *values, rows=len(late))
        on_record = {row[0] for row in rows}
        for nth, place in enumerate(late, start=1):
            verdicts[place] = Verdict.COMMITTED if nth in on_record else Verdict.FENCED

    async def report_progress(self, incarnation: int, reports: Mapping[tuple[UUID, int], Progress]) -> None:
        """Raises Unavailable, Overloaded."""
        rows = sorted((*key, json_of_progress(progress)) for key, progress in reports.items())
        if rows:
            async with self._connections.settle.session(len(rows)) as session:
                await session.fetch(SQL.report_progress, incarnation, *unzipped(rows, 3))


def _next(settlements: Sequence[Settlement], verdicts: Mapping[int, Verdict]) -> list[int]:
    """Sorted by id, of each attempt the first end that has no verdict: a second one is judged after it."""
    ids = [one.id.int for one in settlements]  # comparing UUIDs costs three times as much
    left = sorted((p for p in range(len(ids)) if p not in verdicts), key=ids.__getitem__)
    if all(ids[one] != ids[other] for one, other in pairwise(left)):
        return left
    firsts: dict[Identity, int] = {}
    for place in left:
        firsts.setdefault(_identity(settlements[place]), place)
    return list(firsts.values())


async def _fence(session: Session, values: list[list[Any]]) -> set[Identity]:
    return {(row[0], row[1], row[2]) for row in await session.fetch(SQL.settle, *values)}


async def _store_children(session: Session, families: list[Sequence[NewTask]]) -> None:
    """Raises ContentRefused where a child's key was used for a different request."""
    plan = Plan([family for family in families if family])
    if plan.leaders:
        for answer in plan.judge(await insert(session, plan.leaders)):
            if answer is None or falls(answer):
                raise ContentRefused("a child's idempotency key was used for a different request")


def _identity(one: Settlement) -> Identity:
    return one.id, one.attempt, one.incarnation


def _children(one: Settlement) -> Sequence[NewTask]:
    return one.move.children if isinstance(one.move, Finish) else ()


def _end(one: Settlement) -> tuple[int | None, int | None]:
    """(status, kind): one of them is None."""
    if isinstance(one.move, Finish):
        return int(one.move.status), None
    return None, int(one.move.kind)


def _columns(settlements: Sequence[Settlement]) -> list[list[Any]]:
    """The parameters of `settle`; errors, and what only requeues have, are empty when no row has them."""
    columns = unzipped([(*_identity(one), *_row(one.move)) for one in settlements], _ROW_WIDTH)
    return columns[:8] + [c if any(v is not None for v in c) else [] for c in columns[8:]]


def _row(move: Finish | Requeue) -> tuple[Any, ...]:
    """failures, crashes, status, result, result codec, error, kind, delay_s, reason, suspect, band"""
    error = json_of_error(move.error)
    if isinstance(move, Finish):
        codec = int(move.result_codec)
        ends = int(move.status)
        return move.failures, move.crashes, ends, move.result, codec, error, None, None, None, None, None
    back = (int(move.kind), move.delay_s, int(move.reason), move.suspect, move.band)
    return move.failures, move.crashes, None, None, 0, error, *back
