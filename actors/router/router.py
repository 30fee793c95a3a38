"""The router actor: accepts tasks durably, decides where they go, and tells those who wait for their end.

Law: an answer to Submit means that PostgreSQL has committed. Where a task goes is only a proposal: born running here
when its slot is ours, there is room and no backlog of its band; else its row waits, and its owner hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, assert_never
from uuid import UUID

from actors.activity import News
from actors.executor.messages import AnswerLost, Born, DueLater, Waits
from actors.executor.messages import Message as ExecutorMessage
from actors.keyed.messages import KeysWait
from actors.router.accepting import Accepted, Accepting, Group
from actors.router.messages import AnswerAll, AwaitEnd, FromAfar, Look, Message, Route, Submit, TasksEnded
from actors.router.offering import Offering, Ready, ready
from actors.router.passing import Passing
from actors.router.submitting import give_back
from actors.router.unique import tell_of_unique
from actors.router.waiters import Waiters
from actors.router.watching import Watching
from actors.world import World
from runtime.core.messages import ITEMS_MAX, Finished, Watch
from runtime.core.task import Claim, NewTask, Stored, TaskView
from runtime.core.workflow import Freed
from runtime.errors import Overloaded, Unavailable
from runtime.kernel.actor import ActorContext, Behavior, Ref

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0


class Router(Behavior[Message]):
    def __init__(self, world: World, executor: Ref[ExecutorMessage]) -> None:
        self._world = world
        self._executor = executor
        self._accepting = Accepting(
            world.store, world.limits.accept_waiting_max, self._on_accepted, self._on_unique_accepted
        )
        self._waiters = Waiters(world.limits.waiters_max)
        self._watching = Watching()
        self._draining = False

    async def started(self, ctx: ActorContext[Message]) -> None:
        self._detach = ctx.detach
        self._offering = Offering(
            self._world,
            ctx.detach,
            lambda bands: self._executor.tell(Waits(bands)),
            lambda keys: self._executor.tell(KeysWait(keys)),
        )
        self._passing = Passing(self._world, ctx.detach, self._on_freed)
        ctx.after(_LOOK_S, Look(), key="look")

    async def stopped(self, ctx: ActorContext[Message], reason: object) -> None:
        await self._accepting.close()

    async def receive(self, ctx: ActorContext[Message], message: Message) -> None:
        match message:
            case Submit(group):
                message.taken = True
                self._submit(Group(group, ctx.defer()))
            case AwaitEnd(task_id):
                self._await_end(ctx, task_id)
            case TasksEnded(task_ids, awaited):
                self._on_ended(task_ids)
                if awaited:
                    self._passing.soon()
            case Route(tasks):
                self._offering.route(tasks)
            case FromAfar(told):
                self._on_told(told)
            case AnswerAll():
                self._draining = True
                self._detach(self._answer_all())
            case Look():
                self._waiters.forget_answered()
                self._look_at(self._waiters.ids)
                self._passing.soon()
                ctx.after(_LOOK_S, Look(), key="look")
            case _:
                assert_never(message)

    # -- accepting ----------------------------------------------------------------------------------

    def _submit(self, group: Group) -> None:
        try:
            self._accepting.put(group)
        except (Overloaded, Unavailable) as full:
            give_back(self._world, group.tasks)
            group.reply.fail(full)

    def _on_accepted(self, batch: Sequence[Accepted]) -> None:
        born: list[Claim] = []
        args: list[dict[str, Any]] = []
        due: list[Ready] = []
        later: list[tuple[int, float]] = []
        stored, lost, blocked = 0, False, False
        for group, answer in batch:
            if isinstance(answer, Exception):
                give_back(self._world, group.tasks)
                group.reply.fail(answer)
                lost = lost or any(prepared.task.born_on is not None for prepared in group.tasks)
                continue
            for prepared, acceptance in zip(group.tasks, answer, strict=True):
                if not isinstance(acceptance, Stored):
                    give_back(self._world, (prepared,))
                    continue
                stored += 1
                if acceptance.born:
                    born.append(_claim(prepared.task, acceptance))
                    args.append(prepared.args)
                    continue
                give_back(self._world, (prepared,))
                if prepared.task.parents:
                    blocked = True
                elif acceptance.due <= acceptance.created_at:
                    due.append(ready(prepared.task))
                else:
                    later.append(
                        (prepared.task.band, (acceptance.due - acceptance.created_at).total_seconds())
                    )
            group.reply.send(answer)
        self._world.telemetry.count("tasks_accepted_total", stored)
        self._world.activity.rates.add("accepted", stored)
        if born:
            self._executor.tell(Born(tuple(born), tuple(args)))
        if lost:
            self._executor.tell(AnswerLost())
        if blocked:  # some of those that they depend on may have ended before
            self._passing.soon()
        if due:
            self._offering.route(due)
        if later:
            self._executor.tell(DueLater(tuple(later)))

    def _on_unique_accepted(self, batch: Sequence[Accepted]) -> None:
        self._on_accepted(batch)
        if replaced := tell_of_unique(self._world, batch):
            self._on_ended(replaced)
            self._passing.soon()

    # -- waiting for the end ------------------------------------------------------------------------

    def _await_end(self, ctx: ActorContext[Message], task_id: UUID) -> None:
        reply = ctx.defer()
        try:
            self._waiters.add(task_id, reply)
        except Overloaded as full:
            reply.fail(full)
            return
        self._detach(self._answer_all() if self._draining else self._first_look(task_id))

    async def _first_look(self, task_id: UUID) -> None:
        """It may be final already, or not exist: registered first and read then, so nothing is missed."""
        try:
            views = await self._world.store.get_many([task_id])
        except Unavailable as away:
            log.debug("a waiter's first look: the record is away: %s", away)
            return
        if not views or views[0].state.final:
            self._waiters.answer(task_id, views[0] if views else None)
        else:
            await self._watch(views[0])

    def _on_ended(self, ids: Sequence[UUID]) -> None:
        self._look_at(self._waiters.wanted(ids))
        self._tell_watchers(ids)

    def _on_freed(self, children: Sequence[Freed]) -> None:
        """Who waited for others has its turn, or has ended with them."""
        ended = [each for each in children if each.status is not None]
        waits = [each for each in children if each.status is None]
        due = [
            Ready(each.id, each.attempt, each.band, each.slot, each.prefers, each.actor)
            for each in waits
            if not each.due_in_s
        ]
        if due:
            self._offering.route(due)
        if later := [(each.band, each.due_in_s) for each in waits if each.due_in_s]:
            self._executor.tell(DueLater(tuple(later)))
        if ended:
            self._tell_of(ended)
            self._on_ended([each.id for each in ended])

    def _tell_of(self, ended: Sequence[Freed]) -> None:
        news: list[News] = []
        for each in ended:
            band = self._world.bands.get(each.band)
            if band is not None and each.status is not None:
                state, error_type = each.status.state, each.error.type if each.error else None
                news.append((each.id, band.handler, state, each.attempt - 1, error_type, None))
                self._world.telemetry.count("tasks_finished_total", handler=band.handler, outcome=state.value)
        self._world.activity.events.publish_all(news)

    # -- on other nodes -----------------------------------------------------------------------------

    async def _watch(self, view: TaskView) -> None:
        """Ask the node that runs it, or will, to tell us its end; the look once a second finds it too."""
        cluster = self._world.cluster
        home = cluster.running_on(view.node) or cluster.home(
            view.handler, view.requires, view.prefers, view.slot
        )
        if home is not None and home.incarnation != cluster.incarnation:
            await self._send(home.incarnation, Watch(cluster.incarnation, (view.id,)))

    def _on_told(self, told: Watch | Finished) -> None:
        if isinstance(told, Finished):
            self._look_at(self._waiters.wanted(told.ids))
        else:
            self._tell(told.incarnation, self._watching.watch(told.incarnation, told.ids))

    def _tell_watchers(self, ids: Sequence[UUID]) -> None:
        if not self._world.cluster.alone:
            for incarnation, ended in self._watching.ended(ids).items():
                self._tell(incarnation, ended)

    def _tell(self, incarnation: int, ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), ITEMS_MAX):
            self._detach(self._send(incarnation, Finished(tuple(ids[start : start + ITEMS_MAX]))))

    async def _send(self, incarnation: int, message: Watch | Finished) -> None:
        if self._world.broker is None:
            return
        try:
            await self._world.broker.tell(incarnation, message)
        except Unavailable as refused:
            log.debug("incarnation %d is not told: %s", incarnation, refused)

    # -- looking ------------------------------------------------------------------------------------

    def _look_at(self, ids: Sequence[UUID]) -> None:
        if ids:
            self._detach(self._answer_finished(ids))

    async def _answer_finished(self, ids: Sequence[UUID]) -> None:
        """One query for all waiters."""
        try:
            for view in await self._world.store.finished(ids):
                self._waiters.answer(view.id, view)
        except Unavailable as away:
            log.debug("looking for ended tasks: the record is away: %s", away)

    async def _answer_all(self) -> None:
        ids = self._waiters.ids
        try:
            views = {view.id: view for view in await self._world.store.get_many(ids)}
        except Unavailable as away:
            for task_id in ids:
                self._waiters.fail(task_id, away)
            return
        for task_id in ids:
            self._waiters.answer(task_id, views.get(task_id))


def _claim(task: NewTask, stored: Stored) -> Claim:
    """What a task that was born running is claimed with."""
    return Claim(
        id=task.id,
        attempt=1,
        band=task.band,
        slot=task.slot,
        seq=stored.seq,
        failures=0,
        crashes=0,
        payload=task.payload,
        payload_codec=task.payload_codec,
        max_attempts=task.max_attempts,
        timeout_s=task.timeout_s,
        started_at=stored.created_at,
        waited_s=0.0,
        created_at=stored.created_at,
        idempotency_key=task.idempotency_key,
        actor_key=task.actor_key,
        metadata=task.metadata,
        trace_context=task.trace_context,
        created_by=task.created_by,
    )
