"""Attempts: one body run under its context, and what becomes of its row.

Law: whatever the handler does, `run` returns a move and raises nothing but the cancellation of a pool that closes. Where
the body runs (this loop, a thread, a child process) is decided by the handler's kind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID

import orjson

from actors.authoring.binding import PAYLOAD, refused
from actors.authoring.context import Context
from actors.authoring.limits import RESULT_BYTES_MAX
from actors.authoring.log_context import current_attempt
from actors.authoring.parents import Parent, Parents
from actors.authoring.registry import HandlerDef, Kind
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
    end_of,
    move_of,
    move_when_stopped,
    raised,
)
from actors.executor.calls import Calls
from actors.executor.processes import Processes
from actors.executor.threads import Threads
from actors.insisting import until_taken
from actors.intake.intake import UNCHECKED
from actors.intake.requests import specs_of
from actors.world import World
from runtime.core import versions
from runtime.core.canonical import read_json
from runtime.core.objects import Reference
from runtime.core.task import Claim, NewTask, Progress
from runtime.core.workflow import INLINE_BYTES_MAX, ParentView
from runtime.errors import InvalidInput, ObjectNotFound, Unavailable

log = logging.getLogger(__name__)

_RETRY_S: Final = 1.0


class Attempts:
    """`started` hears of each body, `progress` of (id, attempt, how far)."""

    def __init__(
        self,
        world: World,
        started: Callable[[Run], None],
        progress: Callable[[UUID, int, Progress], None],
    ) -> None:
        self._world = world
        self._started = started
        self._progress = progress
        self._threads = Threads(world.limits.threads)
        self._processes = Processes(world.sources, world.result_max)
        self._bodies: dict[Kind, Callable[[Run], Awaitable[Ended]]] = {
            Kind.ASYNC: self._in_loop,
            Kind.THREAD: self._in_thread,
            Kind.PROCESS: self._processes.run,
        }
        self._calls = Calls(world, started, self._threads, self._begin, self._children, self._other_versions)

    def context(self, claim: Claim, handler: HandlerDef, fence: int | None = None) -> Context:
        return Context(
            task_id=claim.id,
            attempt=claim.attempt,
            handler=handler.name,
            failures=claim.failures,
            fence=fence,
            idempotency_key=claim.idempotency_key,
            actor_key=claim.actor_key,
            metadata=None if claim.metadata is None else orjson.loads(claim.metadata),
            trace_context=claim.trace_context,
            resources=self._world.resources,
            transactions=self._world.transactions if handler.batch_fn is None else None,
            on_progress=self._progress,
        )

    async def run(self, run: Run | Lot) -> Move | Moves:
        """Run one body. Few frames: quick bodies pay for each."""
        if isinstance(run, Lot):
            return await self._calls.run(run)
        current_attempt.set(run.context)
        self._started(run)
        children: tuple[NewTask, ...] = ()
        leave_to: int | None = None
        ended: Ended
        try:
            if run.claim.parents:
                run.context.meet(await self._parents(run.claim))
            if run.claim.created_by.startswith(UNCHECKED):
                ended = await self._refusal(run) or await self._bodies[run.handler.kind](run)
            else:
                ended = await self._bodies[run.handler.kind](run)
            tasks = run.context.close()
            if tasks and isinstance(ended, Returned):
                children = await self._children(run, tasks)
            elif isinstance(ended, Unbound):
                leave_to = await self._other_versions(run)
        except InvalidInput as unfit:  # a child that would not be accepted
            ended = Raised(describe(unfit), final=True)
        except asyncio.CancelledError:
            if run.stop is None and run.worker is not None and run.worker.cancelling():
                raise  # the loop closes
            return move_when_stopped(run, self._world.jitter())
        except Exception as error:
            log.exception("running %s failed outside its body", run.handler.name)
            ended = raised(run.handler, error)
        finally:
            current_attempt.set(None)  # what the worker starts from here on is not the handler's
        if run.stop is not None and not isinstance(ended, Returned):
            # what it raises on its way out is not why it ends
            return move_when_stopped(run, self._world.jitter())
        return move_of(run, ended, self._world.jitter(), children, leave_to)

    async def _begin(self, run: Run) -> Ended | None:
        """What comes before the body, for one task of a batch."""
        if run.claim.parents:
            run.context.meet(await self._parents(run.claim))
        return await self._refusal(run) if run.claim.created_by.startswith(UNCHECKED) else None

    async def _refusal(self, run: Run) -> Ended | None:
        """What SQL enqueued is checked here as at any other door. What no version takes is a dead letter at once."""
        handler = run.handler
        try:
            payload = read_json(run.claim.payload, PAYLOAD)
        except InvalidInput as inexact:
            return Raised(describe(refused(handler.name, list(inexact.errors))), final=True)
        try:
            _, run.args = handler.accept(payload)
        except InvalidInput as unbound:
            others = await until_taken(
                lambda: self._world.intake.others_accept(handler.name, payload), self._world.clock, log.debug
            )
            error = describe(unbound)
            return Unbound(error) if others else Raised(error, final=True)
        return None

    def _in_loop(self, run: Run) -> Awaitable[Ended]:
        call = partial(run.handler.fn, run.context)
        return end_of(run.handler, run.claim.payload, run.args, call, self._result_max(run))

    def _in_thread(self, run: Run) -> Awaitable[Ended]:
        call = partial(self._threads.call, run.handler.fn, run.context)
        return end_of(run.handler, run.claim.payload, run.args, call, self._result_max(run))

    def _result_max(self, run: Run) -> int:
        """What belongs to a turn commits with it: the others of its key do not wait for a result to be stored."""
        return self._world.result_max if run.turn is None else RESULT_BYTES_MAX

    async def _parents(self, claim: Claim) -> Parents:
        """The tasks that it waited for, with the results that come along."""
        while True:
            try:
                views = await self._world.store.parents(claim.parents, INLINE_BYTES_MAX)
                break
            except Unavailable:
                await self._world.clock.sleep(_RETRY_S)
        return Parents([Parent(view, self._read) for view in views])

    @asynccontextmanager
    async def _read(self, parent: ParentView) -> AsyncIterator[AsyncIterator[bytes]]:
        """A result that did not come along. Raises Unavailable, ObjectNotFound."""
        view = await self._world.store.get(parent.id)
        if view is None or view.result is None:
            raise ObjectNotFound(f"the result of task {parent.id} is not kept any more")
        if not view.result_codec.is_apart:
            yield _piece(view.result)
            return
        if self._world.objects is None:
            raise Unavailable(
                "large results lie apart from the record, and this node was not told where (RESULTS_URL)"
            )
        async with self._world.objects.read(Reference.from_bytes(view.result).key) as pieces:
            yield pieces

    async def _children(self, run: Run, tasks: Sequence[Task[Any] | Workflow]) -> tuple[NewTask, ...]:
        """Children are validated like any request; the record may be away while their bands are interned."""
        claim = run.claim
        tenant = self._world.bands[claim.band].tenant
        specs = specs_of(
            tasks, tenant=tenant, trace=claim.trace_context, workflow_id=claim.workflow_id, own=claim.id
        )
        while True:
            try:
                return tuple(prepared.task for prepared in await self._world.intake.prepare(specs))
            except Unavailable:
                await self._world.clock.sleep(_RETRY_S)

    async def _other_versions(self, run: Run) -> int | None:
        """The band of nodes with another version of the handler. None for a keyed task: its key has one queue."""
        world = self._world
        band = world.bands[run.claim.band]
        if band.keyed:
            return None
        newest = max([world.incarnation, *(member.incarnation for member in world.cluster.view.members)])
        key = versions.left_to_others(band.key, run.handler.entry().digest, newest)
        while True:
            try:
                await world.bands.intern([key])
                return world.bands.id_of(key)
            except Unavailable:
                await world.clock.sleep(_RETRY_S)

    async def close(self) -> None:
        """Threads are given up, child processes killed."""
        self._threads.close()
        await self._processes.close()


async def _piece(body: bytes) -> AsyncIterator[bytes]:
    yield body
