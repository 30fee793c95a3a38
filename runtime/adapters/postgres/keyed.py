"""Turns of keyed actors: who has mail, beginning a turn, ending it.

Law: the row of a key is its lock. A turn begins in two statements of one transaction, because the second must see
what was committed before the lock was got. It ends in one transaction: first the state, under the condition of its
version, then the outcomes, under theirs; a turn of which anything does not match takes everything back, and the
others are committed without it.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final
from uuid import UUID

from runtime.adapters.postgres.connections import unzipped
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import claim_of, uuid_of
from runtime.adapters.postgres.settling import (
    Fenced,
    children_of,
    columns_of,
    end_of,
    fence,
    identity,
    store_children,
)
from runtime.adapters.postgres.translate import ContentRefused, repeated
from runtime.core.keyed import Ask, Mail, Turn, TurnEnd
from runtime.core.task import Lane, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from runtime.adapters.postgres.connections import Connections, Session

_CLAIM_COLUMNS: Final = 23
_ADOPTED_MAX: Final = 10_000


class Keyed:
    _connections: Connections

    async def mail(self, after: UUID, limit: int) -> list[Mail]:
        """Raises Unavailable, Overloaded."""
        rows = await self._connections.claim.fetch(SQL.mail, after, max(limit, 0), rows=limit)
        return [Mail(uuid_of(row[0]), Lane(row[1]), *row[2:]) for row in rows]

    async def begin_turns(
        self, asks: Sequence[Ask], bands: Sequence[int], incarnation: int, *, alone: bool = False
    ) -> list[Turn]:
        """Never repeated by itself, as a claim is not. Raises Unavailable, Overloaded."""
        if not asks:
            return []
        wanted = sorted(asks, key=lambda ask: ask.actor.int)
        async with (
            self._connections.claim.session(sum(ask.limit for ask in wanted)) as session,
            session.transaction(),
        ):
            locked = await _lock(session, [ask.actor for ask in wanted])
            columns = unzipped([_asked(ask) for ask in wanted if ask.actor in locked], 5)
            rows = await session.fetch(SQL.begin_turns, *columns, list(bands), incarnation, alone)
        return [_turn(list(some)) for _, some in groupby(rows, key=lambda row: row["actor"])]

    async def end_turns(self, turns: Sequence[TurnEnd]) -> list[Verdict]:
        """Raises Unavailable, Overloaded; then all of it may be repeated."""
        verdicts: dict[int, Verdict] = {}
        async with self._connections.settle.deadline(sum(len(turn.settlements) for turn in turns)):
            while going := _next(turns, verdicts):
                await self._end_some(turns, going, verdicts)
                await self._look_back_at_turns(turns, going, verdicts)
        return [verdicts[place] for place in range(len(turns))]

    async def adopt_strays(self) -> int:
        """Put messages that a node without keyed actors handed back into the order of their keys."""
        return len(await self._connections.sweep.fetch(SQL.adopt, _ADOPTED_MAX))

    # -- steps ---------------------------------------------------------------------------------------

    async def _end_some(
        self, turns: Sequence[TurnEnd], places: Sequence[int], verdicts: dict[int, Verdict]
    ) -> None:
        """Where PostgreSQL refuses some content, halves go on their own until the guilty turn stands alone."""
        try:
            committed = await repeated(lambda: self._end_whole(turns, places))
        except ContentRefused:
            if len(places) == 1:
                verdicts[places[0]] = Verdict.REFUSED
                return
            half = len(places) // 2
            await self._end_some(turns, places[:half], verdicts)
            await self._end_some(turns, places[half:], verdicts)
        else:
            verdicts.update(committed)

    async def _end_whole(self, turns: Sequence[TurnEnd], places: Sequence[int]) -> dict[int, Verdict]:
        """Of those turns that were committed; without those that fall, which others did not wait for."""
        left = list(places)
        awaited: set[UUID] = set()
        while left:
            try:
                async with self._connections.settle.session(len(left)) as session, session.transaction():
                    awaited = await _end(session, [turns[place] for place in left])
            except _FallenError as fallen:
                left = [place for place in left if turns[place].actor not in fallen.actors]
            else:
                break
        return {
            place: Verdict.AWAITED if turns[place].actor in awaited else Verdict.COMMITTED for place in left
        }

    async def _look_back_at_turns(
        self, turns: Sequence[TurnEnd], places: Sequence[int], verdicts: dict[int, Verdict]
    ) -> None:
        """Those that fell: a repeat of what was committed before, or late."""
        for place in places:
            if place not in verdicts:
                settlements = turns[place].settlements
                values = unzipped([(*identity(one), *end_of(one)) for one in settlements], 5)
                found = await self._connections.settle.fetch(SQL.on_record, *values, rows=len(settlements))
                done = settlements and len(found) == len(settlements)
                verdicts[place] = Verdict.COMMITTED if done else Verdict.FENCED


async def _lock(session: Session, actors: list[UUID]) -> set[UUID]:
    """Those whose rows are ours until the end of this transaction."""
    locked = {row[0] for row in await session.fetch(SQL.lock_actors, actors)}
    if len(locked) < len(actors):
        absent = [actor for actor in actors if actor not in locked]
        locked.update(row[0] for row in await session.fetch(SQL.make_actors, absent))
    return locked


async def _end(session: Session, turns: Sequence[TurnEnd]) -> set[UUID]:
    """Actors with messages whose end others wait for. Raises _FallenError naming those that do not match,
    ContentRefused."""
    writing = sorted((turn for turn in turns if turn.state is not None), key=lambda turn: turn.actor.int)
    written: set[UUID] = set()
    if writing:
        columns = unzipped([(t.actor, t.version, t.state, t.state_version) for t in writing], 4)
        written = {row[0] for row in await session.fetch(SQL.write_states, *columns)}
    settlements = sorted((one for turn in turns for one in turn.settlements), key=lambda one: one.id.int)
    fenced = await fence(session, columns_of(settlements)) if settlements else Fenced((), ())
    done = {identity(settlements[place]) for place in fenced.places}
    fallen = {turn.actor for turn in turns if not _is_whole(turn, written, done)}
    if fallen:
        raise _FallenError(fallen)
    if any(children_of(one) for one in settlements):
        await store_children(session, [children_of(one) for one in settlements])
    told = {settlements[place].id for place in fenced.awaited}
    return {turn.actor for turn in turns if told and any(one.id in told for one in turn.settlements)}


def _is_whole(turn: TurnEnd, written: set[UUID], done: set[tuple[UUID, int, int]]) -> bool:
    return (turn.state is None or turn.actor in written) and all(
        identity(one) in done for one in turn.settlements
    )


class _FallenError(Exception):
    """Rolls the transaction back."""

    def __init__(self, actors: set[UUID]) -> None:
        super().__init__()
        self.actors = actors


def _next(turns: Sequence[TurnEnd], verdicts: dict[int, Verdict]) -> list[int]:
    """Of each key the first turn that has no verdict: a second one is judged after it."""
    firsts: dict[UUID, int] = {}
    for place, turn in enumerate(turns):
        if place not in verdicts:
            firsts.setdefault(turn.actor, place)
    return list(firsts.values())


def _asked(ask: Ask) -> tuple[UUID, int, int, int, bool]:
    return ask.actor, ask.limit, ask.known, ask.loads, ask.passes


def _turn(rows: Sequence[asyncpg.Record]) -> Turn:
    actor, fence_number, version, state_version, state = rows[0][_CLAIM_COLUMNS:]
    return Turn(
        actor=uuid_of(actor),
        fence=fence_number,
        version=version,
        state_version=state_version,
        state=state,
        claims=tuple(claim_of(row[:_CLAIM_COLUMNS]) for row in rows),
    )
