"""Turns of keyed actors: who has mail, beginning a turn, ending it whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.adapters.memory import content
from runtime.adapters.memory.accepting import plan_group
from runtime.adapters.memory.rows import ActorRow
from runtime.adapters.memory.working import on_record, settle_one, start
from runtime.core.keyed import Ask, Mail, Turn, TurnEnd
from runtime.core.task import Finish, Lane, Reason, Settlement, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from runtime.adapters.memory.leases import Leases
    from runtime.adapters.memory.rows import WaitingRow
    from runtime.adapters.memory.tables import Tables


def mail(tables: Tables, after: UUID, limit: int, now: datetime) -> list[Mail]:
    lanes = sorted(
        (key for key in tables.mail if key[0].int > after.int), key=lambda key: (key[0].int, key[1])
    )
    return [_mail(tables, actor, lane, now) for actor, lane in lanes[: max(limit, 0)]]


def _mail(tables: Tables, actor: UUID, lane: Lane, now: datetime) -> Mail:
    head = next((row for row in _waiting(tables, actor, lane) if row.due <= now), None)
    known = tables.actors.get(actor)
    return Mail(
        actor,
        lane,
        0 if head is None else tables.tasks[head.id].new.slot,
        0 if head is None else head.band,
        0 if known is None else known.state_version,
        tables.busy[actor] > 0,
    )


def _waiting(tables: Tables, actor: UUID, lane: Lane) -> Iterator[WaitingRow]:
    queue = tables.mail.get((actor, lane))
    return iter(()) if queue is None else (tables.waiting[task_id] for _, task_id in queue.ascending())


# -- begin -------------------------------------------------------------------------------------------


def begin(
    tables: Tables, asks: Sequence[Ask], bands: Sequence[int], incarnation: int, now: datetime, *, alone: bool
) -> list[Turn]:
    served = frozenset(bands)
    turns = []
    for ask in sorted(asks, key=lambda each: each.actor.int):
        row = _actor(tables, ask.actor)
        if row is None or row.state_version > ask.loads or tables.busy[ask.actor]:
            continue
        tables.fence += 1
        first = next((found for lane in Lane if (found := _clear(tables, ask, lane, served, now))), [])
        if first:
            claims = tuple(start(tables, each, incarnation, now, alone=alone) for each in first)
            state = None if ask.known == row.version else row.state
            turns.append(
                Turn(
                    actor=row.id,
                    fence=tables.fence,
                    version=row.version,
                    state_version=row.state_version,
                    state=state,
                    claims=claims,
                )
            )
    return turns


def _actor(tables: Tables, actor: UUID) -> ActorRow | None:
    """The row of a key, made when its first turn begins."""
    row = tables.actors.get(actor)
    if row is None:
        head = next((each for lane in Lane for each in _waiting(tables, actor, lane)), None)
        if head is None:
            return None
        new = tables.tasks[head.id].new
        row = tables.actors[actor] = ActorRow(
            id=actor, slot=new.slot, tenant=new.tenant, type=new.actor_type or "", key=new.actor_key or ""
        )
    return row


def _clear(tables: Tables, ask: Ask, lane: Lane, served: frozenset[int], now: datetime) -> list[WaitingRow]:
    """What of this lane may run now, in order, up to the first message that holds up the others."""
    clear: list[WaitingRow] = []
    for row in _waiting(tables, ask.actor, lane):
        if len(clear) == ask.limit:
            break
        if row.due <= now and row.band in served:
            if clear and (row.crashes or clear[0].crashes):  # what a crash has met has a turn of its own
                break
            clear.append(row)
        elif not ask.passes and (row.due <= now or row.reason is not Reason.NONE):
            break
    return clear


# -- end ---------------------------------------------------------------------------------------------


def end(tables: Tables, leases: Leases, turns: Sequence[TurnEnd], now: datetime) -> list[Verdict]:
    return [_end_one(tables, leases, turn, now) for turn in turns]


def _end_one(tables: Tables, leases: Leases, turn: TurnEnd, now: datetime) -> Verdict:
    row = tables.actors.get(turn.actor)
    stale = turn.state is not None and (row is None or row.version != turn.version)
    if stale or not all(_runs(tables, each) for each in turn.settlements):
        done = bool(turn.settlements) and all(on_record(tables, each) for each in turn.settlements)
        return Verdict.COMMITTED if done else Verdict.FENCED
    if not _acceptable(tables, turn, now):
        return Verdict.REFUSED
    verdicts = [settle_one(tables, leases, each, now) for each in turn.settlements]
    if turn.state is not None and row is not None:
        row.state, row.state_version, row.version = turn.state, turn.state_version, turn.version + 1
    return Verdict.AWAITED if Verdict.AWAITED in verdicts else Verdict.COMMITTED


def _runs(tables: Tables, settlement: Settlement) -> bool:
    row = tables.running.get(settlement.id)
    return row is not None and (row.attempt, row.incarnation) == (settlement.attempt, settlement.incarnation)


def _acceptable(tables: Tables, turn: TurnEnd, now: datetime) -> bool:
    children = [c for s in turn.settlements if isinstance(s.move, Finish) for c in s.move.children]
    return plan_group(tables, children, now).whole and all(
        content.wrong_with_move(each.move) is None for each in turn.settlements
    )
