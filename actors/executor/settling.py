"""Group commit of how attempts ended, repeated until the record answers.

Whatever happens to PostgreSQL, a finished body is not forgotten: its settlement waits here, which is bounded by what
the node may claim. The fence makes repeats harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from actors.executor.bodies import Move, Run
from runtime.core.task import ErrorInfo, Finish, Settlement, Status, Verdict
from runtime.errors import Unavailable
from runtime.kernel.batcher import Batcher
from runtime.kernel.clock import Clock
from runtime.ports import TaskStore

log = logging.getLogger(__name__)

_BATCH_MAX: Final = 500
_FLUSHERS: Final = 2
_WAITING_MAX: Final = 1_000_000  # never reached: claims bound it
_REPEAT_FIRST_S: Final = 0.1
_REPEAT_MAX_S: Final = 2.0
_TRIES_ALONE: Final = 3


@dataclass(frozen=True, slots=True)
class Settled:
    run: Run
    move: Move
    verdict: Verdict


class Settler:
    def __init__(
        self, store: TaskStore, incarnation: int, clock: Clock, told: Callable[[Sequence[Settled]], None]
    ) -> None:
        self._store = store
        self._incarnation = incarnation
        self._clock = clock
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
        self._batcher.put((run, move))

    async def close(self) -> None:
        """Wait until everything that was put is settled."""
        await self._batcher.close()

    async def _flush(self, items: list[tuple[Run, Move]]) -> Sequence[Verdict]:
        settlements = [Settlement(r.claim.id, r.claim.attempt, self._incarnation, move) for r, move in items]
        try:
            return await self._settle(settlements)
        except Exception:
            log.exception("settling %d attempts failed in a way that nobody has foreseen", len(items))
        return [verdict for each in settlements for verdict in await self._settle_alone(each)]

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[Verdict]:
        delay_s = _REPEAT_FIRST_S
        while True:
            try:
                return await self._store.settle(settlements)
            except Unavailable as away:
                log.warning("%d outcomes wait for the record: %s", len(settlements), away)
            await self._clock.sleep(delay_s)
            delay_s = min(_REPEAT_MAX_S, delay_s * 2)

    async def _settle_alone(self, settlement: Settlement) -> Sequence[Verdict]:
        """One that nothing is known of but that settling it fails; its neighbours must not wait for it for ever."""
        for _ in range(_TRIES_ALONE):
            try:
                return await self._settle([settlement])
            except Exception:
                log.exception("settling %s alone failed", settlement.id)
            await self._clock.sleep(_REPEAT_MAX_S)
        return [Verdict.REFUSED]

    def _done(self, batch: Sequence[tuple[tuple[Run, Move], Verdict | Exception]]) -> None:
        settled: list[Settled] = []
        failed: list[Exception] = []
        for (run, move), verdict in batch:
            self._unsettled -= 1
            if isinstance(verdict, Exception):
                failed.append(verdict)
            elif verdict is Verdict.REFUSED and isinstance(move, Finish) and move.status is Status.SUCCEEDED:
                self.put(run, _refused(move))
            else:
                settled.append(Settled(run, move, verdict))
        if failed:  # one line: whoever stops while the record is away has hundreds
            log.error("%d attempts end without an outcome and run again: %r", len(failed), failed[0])
        self._told(settled)


def _refused(move: Finish) -> Finish:
    """PostgreSQL refuses the result's bytes or the children: the attempt ends with an error that says so."""
    error = ErrorInfo("ResultNotStorable", "PostgreSQL refused the result or the tasks it submitted")
    return Finish(status=Status.FAILED, error=error, failures=move.failures + 1, crashes=move.crashes)
