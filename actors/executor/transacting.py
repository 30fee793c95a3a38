"""Attempts whose handler opened a transaction: it commits with their outcome, or what the handler wrote never was.

Law: a body that returned is committed in its own transaction and in no other way. Where that answer is lost, nothing is
assumed: the attempt is handed back under the fence, which waits for what is still under way, and only what is refused
there may have been committed before; then the record says whether it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from actors.authoring.limits import RESULT_BYTES_MAX
from actors.executor.bodies import Move, Run, describe, move_of, raised
from actors.executor.settling import Settled, refused
from actors.executor.storing import is_large
from actors.insisting import Committing
from actors.world import World
from runtime.core import decisions
from runtime.core.task import ErrorInfo, Finish, Settlement, Status, Verdict
from runtime.errors import TransactionRefused, Unavailable
from runtime.ports import Transaction

log = logging.getLogger(__name__)

_AGAIN_S: Final = 1.0


class Transacting:
    """`settle` ends an attempt in the ordinary way, `settled` hears of one that is on record."""

    def __init__(
        self, world: World, settle: Callable[[Run, Move], None], settled: Callable[[Settled], None]
    ) -> None:
        self._world = world
        self._settle = settle
        self._settled = settled
        self._committing = Committing(world.store.settle, world.clock, "outcomes", lambda one: one.id)
        self._pending: set[asyncio.Task[None]] = set()

    def put(self, run: Run, move: Move, transaction: Transaction) -> None:
        """The body has ended."""
        end = asyncio.create_task(
            self._end(run, move, transaction)
        )  # owned: kept in _pending, awaited by close
        self._pending.add(end)
        end.add_done_callback(self._pending.discard)

    async def close(self) -> None:
        """Wait until all that was put is on record, or with those who settle."""
        while self._pending:
            await asyncio.wait(self._pending)

    async def _end(self, run: Run, move: Move, transaction: Transaction) -> None:
        if not (isinstance(move, Finish) and move.status is Status.SUCCEEDED):
            await self._roll_back(run, move, transaction)
        elif is_large(move):
            await self._roll_back(run, _too_large(move), transaction)
        else:
            await self._commit(run, move, transaction)

    async def _roll_back(self, run: Run, move: Move, transaction: Transaction) -> None:
        await transaction.roll_back()
        self._count("rolled_back")
        self._settle(run, move)

    async def _commit(self, run: Run, move: Finish, transaction: Transaction) -> None:
        try:
            verdict = await transaction.commit(self._settlement(run, move))
        except TransactionRefused as why:
            self._count("refused")
            ended = raised(run.handler, why.__cause__ or why)
            self._settle(run, move_of(run, ended, self._world.jitter()))
        except Exception as lost:
            if not isinstance(lost, Unavailable):
                log.exception("committing %s failed in a way that nobody has foreseen", run.claim.id)
            self._count("lost")
            self._settled(await self._found_out(run, move, lost))
        else:
            self._count("committed" if verdict.committed else verdict.name.lower())
            if verdict is Verdict.REFUSED:
                self._settle(run, refused(move))
            else:
                self._settled(Settled(run, move, verdict))

    async def _found_out(self, run: Run, move: Finish, lost: Exception) -> Settled:
        release = decisions.after_release(run.claim, _AGAIN_S, describe(lost))
        [verdict] = await self._committing.all([self._settlement(run, release)])
        if verdict.committed:
            return Settled(run, release, verdict)
        [verdict] = await self._committing.all(
            [self._settlement(run, move)]
        )  # it does not run: this only looks
        return Settled(run, move, verdict)

    def _settlement(self, run: Run, move: Move) -> Settlement:
        return Settlement(run.claim.id, run.claim.attempt, self._world.incarnation, move)

    def _count(self, end: str) -> None:
        self._world.telemetry.count("handler_transactions_total", end=end)


def _too_large(move: Finish) -> Finish:
    size = 0 if move.result is None else len(move.result)
    detail = f"{size} bytes; a result that commits with ctx.transaction() has at most {RESULT_BYTES_MAX}"
    error = ErrorInfo("ResultTooLarge", detail)
    return replace(
        move, status=Status.FAILED, result=None, children=(), error=error, failures=move.failures + 1
    )
