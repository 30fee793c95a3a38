"""One call of a batch handler, and what becomes of each of its rows.

Law: as in attempts.py, for many: `run` returns a move for every task that has not ended by itself meanwhile. What the
whole call raises, each of its tasks has raised; what does not bind takes no part in the call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from actors.authoring.batching import BatchContext, outcomes_of
from actors.authoring.exceptions import Cancelled
from actors.authoring.log_context import current_attempt
from actors.authoring.registry import Kind
from actors.authoring.task import Task
from actors.authoring.workflow import Workflow
from actors.executor.bodies import (
    Ended,
    Lot,
    Move,
    Moves,
    Raised,
    Returned,
    Run,
    Unbound,
    describe,
    end_with,
    move_of,
    move_when_stopped,
    raised,
    stopped,
)
from actors.executor.threads import Threads
from actors.world import World
from runtime.core.task import NewTask
from runtime.errors import InvalidInput

log = logging.getLogger(__name__)


class Calls:
    """`started` hears of each task; `begin` says how one ends that takes no part; `children` validates what one has
    submitted, `leave_to` finds the band of those who may bind what does not bind here.
    """

    def __init__(
        self,
        world: World,
        started: Callable[[Run], None],
        threads: Threads,
        begin: Callable[[Run], Awaitable[Ended | None]],
        children: Callable[[Run, Sequence[Task[Any] | Workflow]], Awaitable[tuple[NewTask, ...]]],
        leave_to: Callable[[Run], Awaitable[int | None]],
    ) -> None:
        self._world = world
        self._started = started
        self._threads = threads
        self._begin = begin
        self._children = children
        self._leave_to = leave_to

    async def run(self, lot: Lot) -> Move | Moves:
        for run in lot.live:
            run.started_s = lot.started_s
            self._started(run)
        self._world.telemetry.count("batch_calls_total", handler=lot.handler.name)
        self._world.telemetry.count("batch_tasks_total", len(lot.live), handler=lot.handler.name)
        current_attempt.set(lot.context)
        try:
            ends = await self._ends(lot)
            current_attempt.set(None)
            return [
                (run, await self._move(lot, run, ended)) for run, ended in ends.items() if run in lot.live
            ]
        except asyncio.CancelledError:
            if lot.stop is None and lot.worker is not None and lot.worker.cancelling():
                raise  # the loop closes
            return stopped(lot, self._world.jitter)
        except Exception as error:
            log.exception("running %s failed outside its body", lot.handler.name)
            ended = raised(lot.handler, error)
            return [(run, move_of(run, ended, self._world.jitter())) for run in lot.live]
        finally:
            current_attempt.set(None)  # what the worker starts from here on is not the handler's

    async def _ends(self, lot: Lot) -> dict[Run, Ended]:
        ends: dict[Run, Ended] = {}
        values: dict[Run, Any] = {}
        name = lot.handler.binding.signature.arguments[0].name
        for run in list(lot.live):
            if (refusal := await self._begin(run)) is not None:
                ends[run] = refusal
                continue
            try:
                args = lot.handler.bind(run.claim.payload) if run.args is None else run.args
                values[run] = args[name]
            except InvalidInput as unbound:
                ends[run] = Unbound(describe(unbound))
        values = {
            run: value for run, value in values.items() if run in lot.live
        }  # some may have ended meanwhile
        if values:
            lot.context = BatchContext([run.context for run in values])
            current_attempt.set(lot.context)
            ends |= await self._call(lot, name, values)
        return ends

    async def _call(self, lot: Lot, name: str, values: dict[Run, Any]) -> dict[Run, Ended]:
        handler, fn = lot.handler, lot.handler.batch_fn
        assert fn is not None, "only tasks of batch handlers are put together"
        args = {name: list(values.values())}
        try:
            if handler.kind is Kind.THREAD:
                returned = await self._threads.call(fn, lot.context, **args)
            else:
                returned = await fn(lot.context, **args)
            outcomes = outcomes_of(handler.name, returned, len(values))
        except asyncio.CancelledError:
            raise
        except Cancelled as stopped:  # it noticed by itself that it was asked to stop
            raise asyncio.CancelledError(str(stopped)) from stopped
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit too
            return dict.fromkeys(values, raised(handler, error))
        result_max = self._world.result_max
        return {
            run: end_with(handler, outcome, result_max) for run, outcome in zip(values, outcomes, strict=True)
        }

    async def _move(self, lot: Lot, run: Run, ended: Ended) -> Move:
        children: tuple[NewTask, ...] = ()
        leave_to: int | None = None
        try:
            tasks = run.context.close()
            if tasks and isinstance(ended, Returned):
                children = await self._children(run, tasks)
            elif isinstance(ended, Unbound):
                leave_to = await self._leave_to(run)
        except InvalidInput as refused:  # a child that would not be accepted
            ended = Raised(describe(refused), final=True)
        if lot.stop is not None and not isinstance(ended, Returned):
            run.stop = lot.stop
            return move_when_stopped(
                run, self._world.jitter()
            )  # what it raises on its way out is not why it ends
        return move_of(run, ended, self._world.jitter(), children, leave_to)


def lot_of(runs: Sequence[Run], parts: int) -> Lot:
    """Those that are called together, at least one."""
    return Lot(
        live=dict.fromkeys(runs),
        handler=runs[0].handler,
        context=BatchContext([run.context for run in runs]),
        claim=min((run.claim for run in runs), key=lambda claim: claim.timeout_s),
        parts=parts,
    )
