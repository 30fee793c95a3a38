"""Group commit of how attempts ended, repeated until the record answers.

Whatever happens to PostgreSQL, a finished body is not forgotten: its settlement waits here, which is bounded by what
the node may claim. The fence makes repeats harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from actors.executor.bodies import Move, Run
from actors.insisting import Committing
from runtime.core.task import ErrorInfo, Finish, Settlement, Status, Verdict, light
from runtime.kernel.batcher import Batcher
from runtime.kernel.clock import Clock
from runtime.ports import TaskStore

log = logging.getLogger(__name__)

_BATCH_MAX: Final = 500
_FLUSHERS: Final = 2
_WAITING_MAX: Final = 1_000_000  # never reached: claims bound it


@light
class Settled:
    run: Run
    move: Move
    verdict: Verdict


class Settler:
    def __init__(
        self, store: TaskStore, incarnation: int, clock: Clock, told: Callable[[Sequence[Settled]], None]
    ) -> None:
        self._store = store
        self._committing = Committing(self._commit, clock, "outcomes", lambda one: one.id)
        self._incarnation = incarnation
        self._told = told
        self._unsettled = 0
        self._batcher: Batcher[tuple[Run, Move], Verdict] = Batcher(
            self._flush,
            name="settling",
            flushers=_FLUSHERS,
            max_items=_BATCH_MAX,
            capacity=_WAITING_MAX,
            on_done=self._done,
        )

    @property
    def unsettled(self) -> int:
        return self._unsettled

    def put(self, run: Run, move: Move) -> None:
        self._unsettled += 1
        children = len(move.children) if isinstance(move, Finish) else 0
        self._batcher.put((run, move), weight=1 + children)

    async def close(self) -> None:
        """Wait until everything that was put is settled."""
        await self._batcher.close()

    async def _flush(self, items: list[tuple[Run, Move]]) -> Sequence[Verdict]:
        settlements = [Settlement(r.claim.id, r.claim.attempt, self._incarnation, move) for r, move in items]
        return await self._committing.all(settlements)

    async def _commit(self, settlements: Sequence[Settlement]) -> Sequence[Verdict]:
        return await self._store.settle(settlements)

    def _done(self, batch: Sequence[tuple[tuple[Run, Move], Verdict | Exception]]) -> None:
        settled: list[Settled] = []
        failed: list[Exception] = []
        for (run, move), verdict in batch:
            self._unsettled -= 1
            if isinstance(verdict, Exception):
                failed.append(verdict)
            elif verdict is Verdict.REFUSED and isinstance(move, Finish) and move.status is Status.SUCCEEDED:
                self.put(run, refused(move))
            else:
                settled.append(Settled(run, move, verdict))
        if failed:  # one line: whoever stops while the record is away has hundreds
            log.error("%d attempts end without an outcome and run again: %r", len(failed), failed[0])
        self._told(settled)


def refused(move: Finish) -> Finish:
    """PostgreSQL refuses the result's bytes or the children: the attempt ends with an error that says so."""
    error = ErrorInfo("ResultNotStorable", "PostgreSQL refused the result or the tasks it submitted")
    return Finish(status=Status.FAILED, error=error, failures=move.failures + 1, crashes=move.crashes)
