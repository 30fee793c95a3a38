"""Settling: how attempts ended.

Law: the fence is the DELETE of the running row, and only what it returns is written. One statement does it
for the whole batch; children are stored by a second one, in the same transaction. What did not match is
looked up by a statement of its own: it may be an earlier commit of ours whose answer was lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runtime.adapters.postgres.accepting import Plan, falls, insert, link_new
from runtime.adapters.postgres.connections import unzipped
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import folded, json_of_error, json_of_progress, unless_empty
from runtime.adapters.postgres.translate import ContentRefused, repeated
from runtime.core.task import Codec, Finish, Requeue, Settlement, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.adapters.postgres.connections import Connections, Session
    from runtime.core.task import NewTask, Progress

Identity = tuple[UUID, int, int]  # id, attempt, incarnation


class Settling:
    _connections: Connections

    async def settle(self, settlements: Sequence[Settlement]) -> list[Verdict]:
        """Raises Unavailable, Overloaded; then all of it may be repeated."""
        verdicts: dict[int, Verdict] = {}
        if settlements:
            rows = len(settlements) + sum(map(len, map(children_of, settlements)))
            async with self._connections.settle.deadline(rows):
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
            verdicts.update(dict.fromkeys([places[nth] for nth in done.places], Verdict.COMMITTED))
            verdicts.update(dict.fromkeys([places[nth] for nth in done.awaited], Verdict.AWAITED))

    async def _settle_once(self, settlements: Sequence[Settlement]) -> Fenced:
        values = columns_of(settlements)
        families = [children_of(one) for one in settlements]
        rows = len(settlements) + sum(map(len, families))
        async with self._connections.settle.session(rows) as session:
            if not any(families):
                return await fence(session, values)
            async with session.transaction():
                done = await fence(session, values)
                await store_children(session, [families[nth] for nth in done.places])
        return done

    async def _look_back(
        self, settlements: Sequence[Settlement], places: Sequence[int], verdicts: dict[int, Verdict]
    ) -> None:
        """Those that did not match: a repeat of what was committed before, or late."""
        late = [place for place in places if place not in verdicts]
        if not late:
            return
        values = unzipped([(*identity(settlements[place]), *end_of(settlements[place])) for place in late], 5)
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
        firsts.setdefault(identity(settlements[place]), place)
    return list(firsts.values())


@dataclass(frozen=True, slots=True)
class Fenced:
    """Places of those that were committed; of those, the ends that others wait for."""

    places: Sequence[int]
    awaited: Sequence[int]


async def fence(session: Session, values: list[list[Any]]) -> Fenced:
    matched, which, told = await session.only(SQL.settle, *values)
    places = range(matched) if which is None else [nth - 1 for nth in which]
    return Fenced(places, () if told is None else [nth - 1 for nth in told])


async def store_children(session: Session, families: list[Sequence[NewTask]]) -> None:
    """Raises ContentRefused where a child's key was used for a different request, or it depends on no task."""
    plan = Plan([family for family in families if family])
    if plan.leaders:
        found = await insert(session, plan.leaders)
        judged = plan.judge(found)
        for answer in judged:
            if answer is None or falls(answer):
                raise ContentRefused("a child's idempotency key was used for a different request")
        if await link_new(session, plan, found, judged):
            raise ContentRefused("a child depends on a task that does not exist")


def identity(one: Settlement) -> Identity:
    return one.id, one.attempt, one.incarnation


def children_of(one: Settlement) -> Sequence[NewTask]:
    return one.move.children if isinstance(one.move, Finish) else ()


def end_of(one: Settlement) -> tuple[int | None, int | None]:
    """(status, kind): one of them is None."""
    if isinstance(one.move, Finish):
        return int(one.move.status), None
    return None, int(one.move.kind)


def columns_of(settlements: Sequence[Settlement]) -> list[list[Any]]:
    """The parameters of `settle`, which says when a column has one value or none."""
    moves = [one.move for one in settlements]
    columns = [
        [one.id for one in settlements],
        folded([one.attempt for one in settlements]),
        folded([one.incarnation for one in settlements]),
        folded([move.failures for move in moves]),
        folded([move.crashes for move in moves]),
        folded([move.status if isinstance(move, Finish) else None for move in moves]),
        unless_empty([move.result if isinstance(move, Finish) else None for move in moves]),
        folded([move.result_codec if isinstance(move, Finish) else Codec.JSON for move in moves]),
        unless_empty([json_of_error(move.error) for move in moves]),
    ]
    backs = [move if isinstance(move, Requeue) else None for move in moves]
    of_requeues: list[list[Any]] = [[] for _ in _OF_REQUEUES]
    if any(backs):
        of_requeues = [unless_empty([back and value_of(back) for back in backs]) for value_of in _OF_REQUEUES]
    return [*columns, *of_requeues, *_ages(settlements)]


def _ages(settlements: Sequence[Settlement]) -> list[list[float | None]]:
    """Of messages to keyed actors; nothing else has them."""
    if settlements[0].began_ago_s is None and all(one.began_ago_s is None for one in settlements):
        return [[], []]
    return [[one.began_ago_s for one in settlements], [one.ended_ago_s for one in settlements]]


_OF_REQUEUES: Final = tuple(map(attrgetter, ("kind", "delay_s", "reason", "suspect", "band")))
