"""The executor actor: starts what it claims, commits how it ended, and repairs what was lost on the way.

Law: the record decides who owns an attempt; everything here is about speed and order. Any claim may come back with
less than was asked for, any settlement may be refused, any answer may be lost: the pull once a second and the audit
(housekeeping.py) repair all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, assert_never
from uuid import UUID

from actors.authoring.registry import HandlerDef, Kind
from actors.executor.attempts import Attempts
from actors.executor.batches import Batches
from actors.executor.bodies import (
    Lot,
    Move,
    Moves,
    Run,
    Stop,
    runs_of,
    stopped,
)
from actors.executor.claiming import Claiming
from actors.executor.draining import Draining
from actors.executor.housekeeping import Housekeeping
from actors.executor.limited import Limited
from actors.executor.messages import (
    AnswerLost,
    Born,
    CancelRun,
    Claimed,
    Drain,
    Drained,
    DueLater,
    LimitedPulled,
    ListRunning,
    Message,
    MoreMayBegin,
    Offered,
    Pulled,
    Refresh,
    Running,
    Second,
    SuspectsWait,
    Tick,
    Waits,
)
from actors.executor.offers import Offers
from actors.executor.pool import Body, Pool
from actors.executor.reminders import Reminders
from actors.executor.reporting import Reporter
from actors.executor.settling import Settled, Settler
from actors.executor.storing import Storing, is_large
from actors.executor.suspects import Suspects
from actors.executor.transacting import Transacting
from actors.keyed.keyed import Keyed
from actors.keyed.messages import KeysWait, MailSeen, TurnsBegun
from actors.router.messages import Route, TasksEnded
from actors.router.offering import Ready, ready
from actors.world import World
from runtime.core import decisions
from runtime.core.task import Claim, Reason, Requeue, Take, Verdict
from runtime.errors import Unavailable
from runtime.kernel.actor import ActorContext, Behavior, Reply

log = logging.getLogger(__name__)

_TICK_S: Final = 0.1
_SECOND_S: Final = 1.0
_LAST_COMMITS_S: Final = 3.5  # with the end of the pools, less than an actor's shutdown_s
_RUNNING_LISTED_MAX: Final = 100


class Executor(Behavior[Message]):
    """`tell_router` gets what has ended and which children wait."""

    def __init__(self, world: World, tell_router: Callable[[TasksEnded | Route], object]) -> None:
        self._world = world
        self._tell_router = tell_router
        self._runs: dict[UUID, Run] = {}  # in hand: queued, running, or waiting to be settled
        self._claiming = Claiming(world)
        self._limited = Limited(world, self._claiming.limited)
        self._suspects = Suspects(world.capacity, self._serves)
        self._reporter = Reporter(world)
        self._housekeeping = Housekeeping(world, self._knows, self._cancel, self._on_waits)
        self._settler = Settler(world.store, world.incarnation, world.clock, self._on_settled)
        self._transacting = Transacting(world, self._settle, self._on_committed)
        self._storing = Storing(world, self._settle, self._housekeeping.progress)
        self._attempts = Attempts(world, self._reporter.started, self._housekeeping.progress)
        self._pools = {kind: self._pool(world.limits.of(kind)) for kind in Kind}
        self._batches = Batches(world, self._pools, self._on_run_ended)
        self._keyed = Keyed(
            world, self._attempts, self._runs, self._start_message, self._on_settled, self._settler.put
        )
        self._reminders = Reminders()
        self._pulling = False
        self._sweep_next = False
        self._draining: Draining | None = None

    def _pool(self, size: int) -> Pool:
        return Pool(size, self._attempts.run, self._on_ended, self._on_abandoned, self._world.clock.now_s)

    # -- the actor ----------------------------------------------------------------------------------

    async def started(self, ctx: ActorContext[Message]) -> None:
        self._tell, self._detach = ctx.self.tell, ctx.detach
        self._world.capacity.reset()
        self._offers = Offers(self._world, ctx.detach, ctx.self.tell)
        self._world.cluster.grant = self._offers.grant
        self._keyed.start(ctx.detach, ctx.self.tell)
        self._limited.start(
            ctx.detach, ctx.self.tell, lambda in_s: ctx.after(in_s, MoreMayBegin(), key="limited")
        )
        ctx.after(_TICK_S, Tick(), key="tick")
        ctx.self.tell(Second())

    async def stopped(self, ctx: ActorContext[Message], reason: object) -> None:
        self._offers.close()
        self._keyed.halt()
        self._withdraw()
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        await self._attempts.close()
        self._hand_back_unstored()
        try:  # what was in hand is committed or handed back, also by a life that failed
            async with asyncio.timeout(_LAST_COMMITS_S):
                await self._keyed.close()
                await self._transacting.close()
                await self._settler.close()
        except TimeoutError:
            log.warning(
                "the record is away; %d attempts end without it and run again", self._settler.unsettled
            )

    async def receive(self, ctx: ActorContext[Message], message: Message) -> None:
        match message:
            case Born(claims, args):
                self._on_born(claims, args)
            case Pulled():
                self._on_pulled(message)
            case Claimed():
                self._on_claimed(message)
            case LimitedPulled():
                self._on_limited(message)
            case MoreMayBegin():
                self._limited.look()
            case Tick():
                self._on_tick()
                ctx.after(_TICK_S, Tick(), key="tick")
            case Second():
                self._detach(self._housekeeping.once())
                self._limited.sweep()
                self._limited.look()
                self._claiming.second()
                self._pull(sweep=True)
                self._keyed.second()
                # nodes that sweep in step would leave what one of them hands back to always the same
                ctx.after(_SECOND_S * (0.6 + 0.4 * self._world.jitter()), Second(), key="second")
            case Refresh():
                self._detach(self._housekeeping.anew())
            case AnswerLost():
                self._housekeeping.audit_soon()
            case Waits(bands):
                self._on_waits(bands)
            case DueLater(items):
                self._on_due_later(items)
            case KeysWait():
                self._keyed.waits(message)
            case MailSeen():
                self._keyed.seen(message)
            case TurnsBegun():
                self._on_begun(message)
            case Offered(delivery):
                self._offers.put(delivery)
            case CancelRun(task_id):
                self._cancel(task_id)
            case SuspectsWait(bands):
                self._suspects.seen(bands)
            case ListRunning():
                ctx.reply(self._running())
            case Drain(within_s):
                self._drain(ctx.defer(), within_s)
            case _:
                assert_never(message)

    # -- claiming -----------------------------------------------------------------------------------

    def _pull(self, *, sweep: bool = False) -> None:
        """Claim more, if there is room and something may wait. One pull at a time; what it frees, the next takes.

        A sweep that finds a pull under way is the next one: else a busy node, which always pulls, would never sweep.
        """
        self._sweep_next = self._sweep_next or sweep
        if not self._pulling and (takes := self._claiming.takes(sweep=self._sweep_next)):
            self._sweep_next = False
            self._send_pull(takes, alone=False)

    def _send_pull(self, takes: Sequence[Take], *, alone: bool) -> None:
        self._pulling = True
        if alone and (band := self._world.bands[takes[0].band]).keyed:
            self._keyed.begin_alone(band)
            return
        marks = tuple(self._world.capacity.backlog_mark(take.band) for take in takes)
        self._detach(self._do_pull(tuple(takes), marks, alone=alone))

    async def _do_pull(self, takes: tuple[Take, ...], marks: tuple[int, ...], *, alone: bool) -> None:
        try:
            if alone and self._limited.covers(takes[0].band):
                claims: Sequence[Claim] = (await self._limited.pull_alone(takes[0])).claims
            else:
                claims = await self._world.store.pull(takes, self._world.incarnation, alone=alone)
            self._tell(Pulled(takes, marks, tuple(claims), alone=alone))
        except Unavailable as away:
            log.warning("pulling: the record is away: %s", away)
            self._tell(Pulled(takes, marks, (), failed=True, alone=alone))

    def _on_pulled(self, pulled: Pulled) -> None:
        self._pulling = False
        if pulled.failed:
            self._housekeeping.audit_soon()
        if pulled.alone:
            self._suspects.pulled(found=bool(pulled.claims), now_s=self._world.clock.now_s())
        elif not pulled.failed:
            self._claiming.returned(pulled.takes, pulled.marks, pulled.claims)
        self._reporter.pulled(pulled.claims)
        self._start(pulled.claims)
        if not pulled.failed:
            self._pull()

    def _on_begun(self, begun: TurnsBegun) -> None:
        claims = [claim for turn in begun.turns for claim in turn.claims]
        if begun.failed:
            self._housekeeping.audit_soon()
        if begun.alone:
            self._pulling = False
            self._suspects.pulled(found=bool(claims), now_s=self._world.clock.now_s())
        self._reporter.claimed(claims, via="turn")
        self._keyed.begun(begun)
        self._finish_drain()

    def _on_limited(self, pulled: LimitedPulled) -> None:
        if pulled.failed:
            self._housekeeping.audit_soon()
        self._reporter.claimed(pulled.pull.claims, via="limit")
        self._start(pulled.pull.claims)
        self._limited.pulled(pulled)
        self._finish_drain()

    def _on_claimed(self, claimed: Claimed) -> None:
        self._offers.claimed(claimed)
        if claimed.failed:
            self._housekeeping.audit_soon()
        self._reporter.claimed(claimed.claims, via="offer")
        self._start(claimed.claims)
        self._offers.claim(claimed.kind)

    def _on_waits(self, bands: Iterable[int]) -> None:
        for band in bands:
            if not self._limited.waits(band):
                self._claiming.waits(band)
        self._limited.look()
        self._pull()
        if any((known := self._world.bands.get(band)) is not None and known.keyed for band in bands):
            self._keyed.look()

    def _on_due_later(self, items: Iterable[tuple[int, float]]) -> None:
        now_s = self._world.clock.now_s()
        for band, in_s in items:
            self._reminders.add(now_s + in_s, band)

    # -- starting -----------------------------------------------------------------------------------

    def _on_born(self, claims: Sequence[Claim], args: Sequence[dict[str, Any]]) -> None:
        self._reporter.claimed(claims, via="born")
        handlers = {band: self._handler_of(band) for band in {claim.band for claim in claims}}
        for claim, values in zip(claims, args, strict=True):
            self._put(claim, handlers[claim.band], values)

    def _start(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            handler = self._handler_of(claim.band)
            self._world.capacity.take(handler.kind, share=handler.share)
            self._put(claim, handler, None)

    def _put(self, claim: Claim, handler: HandlerDef, args: dict[str, Any] | None) -> None:
        run = Run(claim, handler, self._attempts.context(claim, handler), args)
        self._runs[claim.id] = run
        if claim.expired:
            self._on_run_ended(run, decisions.after_expiry(claim))
        elif self._draining is not None:
            self._on_run_ended(run, decisions.after_release(claim))
        elif handler.batch_fn is not None:
            self._batches.put(run)
        else:
            self._pools[handler.kind].put(run)

    def _start_message(self, run: Run) -> None:
        self._pools[run.handler.kind].put(run)

    def _serves(self, band_id: int) -> bool:
        band = self._world.bands.get(band_id)
        if band is None or self._world.capacity.paused.holds(band):
            return False
        return self._world.serves(band) is not None

    def _handler_of(self, band: int) -> HandlerDef:
        handler = self._world.registry.get(self._world.bands[band].handler)
        assert handler is not None, "only bands that this node serves are claimed or born"
        return handler

    # -- ending -------------------------------------------------------------------------------------

    def _on_ended(self, body: Body, ended: Move | Moves) -> None:
        if isinstance(body, Lot):
            assert isinstance(ended, list), "a move for each of its tasks"
            self._batches.over(body)
            for run, move in ended:
                self._on_run_ended(run, move)
        else:
            assert not isinstance(ended, list), "one task has one move"
            self._on_run_ended(body, ended)

    def _on_run_ended(self, run: Run, move: Move) -> None:
        run.ended_s = self._world.clock.now_s()
        if run.turn is not None:
            self._world.capacity.end(run.handler.kind)
            self._keyed.ended(run, move)
        elif (transaction := run.context.take_transaction()) is not None:
            self._transacting.put(run, move, transaction)
        elif is_large(move):
            self._storing.put(run, move)
        else:
            self._settle(run, move)

    def _settle(self, run: Run, move: Move) -> None:
        self._world.capacity.end(run.handler.kind, run.handler.share)
        self._settler.put(run, move)
        self._goes_on(run, move)

    def _on_committed(self, one: Settled) -> None:
        self._world.capacity.end(one.run.handler.kind)
        self._goes_on(one.run, one.move)
        self._on_settled([one])

    def _goes_on(self, run: Run, move: Move) -> None:
        """A body's place is free again."""
        if self._draining is not None:
            self._draining.count(move)
        elif self._world.capacity.worth_pulling(run.handler.kind):
            self._limited.look()
            self._offers.claim(run.handler.kind)
            if not self._pulling and self._world.capacity.backlog:
                self._pull()

    def _on_abandoned(self, body: Body) -> None:
        log.error(
            "%s does not stop: attempt %d of %s is ended without it, while it goes on in the background",
            body.handler.name, body.claim.attempt, body.claim.id,
        )  # fmt: skip
        self._world.telemetry.count("abandoned_bodies_total", handler=body.handler.name)
        self._on_ended(body, stopped(body, self._world.jitter))

    def _on_settled(self, batch: Sequence[Settled]) -> None:
        self._reporter.settled(batch)
        final: list[UUID] = []
        waits: set[int] = set()
        children: list[Ready] = []
        awaited = False
        for one in batch:
            run, move = one.run, one.move
            task_id = run.claim.id
            if self._runs.get(task_id) is run:
                del self._runs[task_id]
            if run.claim.alone:
                self._suspects.over(self._world.clock.now_s())
            if run.turn is not None and self._draining is not None:
                self._draining.count(move)
            if one.verdict is Verdict.AWAITED:
                awaited = True
            elif one.verdict is not Verdict.COMMITTED:
                continue
            self._limited.ended(run.handler)
            if isinstance(move, Requeue):
                self._on_requeued(run, move, waits)
                continue
            final.append(task_id)
            for child in move.children:
                if child.parents:
                    awaited = True  # it may depend on what has ended before
                elif not child.delay_s and child.run_at is None:
                    children.append(ready(child))
        if waits:
            self._on_waits(waits)
        self._limited.look()
        if final:
            self._tell_router(TasksEnded(tuple(final), awaited))
        if children:
            self._tell_router(Route(tuple(children)))
        self._finish_drain()

    def _on_requeued(self, run: Run, move: Requeue, waits: set[int]) -> None:
        if move.suspect:
            self._suspects.seen((run.claim.band,))
        elif move.delay_s > 0:
            if move.reason is not Reason.RELEASED:  # that is for others: do not be first each time
                self._on_due_later([(run.claim.band, move.delay_s)])
        elif run.turn is None:  # a keyed actor goes on by itself
            waits.add(run.claim.band if move.band is None else move.band)

    # -- stopping -----------------------------------------------------------------------------------

    def _knows(self, task_id: UUID, attempt: int) -> bool:
        run = self._runs.get(task_id)
        return run is not None and run.claim.attempt == attempt

    def _cancel(self, task_id: UUID) -> None:
        run = self._runs.get(task_id)
        if run is None:
            return
        pool = self._pools[run.handler.kind]
        if self._batches.cancel(run):
            return
        if pool.remove(run):
            self._on_run_ended(run, decisions.after_cancel(run.claim))
        elif pool.is_active(run) and run.stop is None:
            pool.stop(run, Stop.CANCEL)
        elif self._storing.give_up(run):
            self._settle(run, decisions.after_cancel(run.claim))

    def _drain(self, reply: Reply[Drained], within_s: float) -> None:
        self._world.capacity.close("drain")
        until_s = self._world.clock.now_s() + within_s
        if self._draining is None:
            self._draining = Draining(until_s)
        self._draining.join(reply, until_s)
        self._keyed.halt()
        self._withdraw()
        self._finish_drain()

    def _withdraw(self) -> None:
        """Hand back what has not started."""
        runs = self._batches.withdraw()
        for pool in self._pools.values():
            for body in pool.withdraw():
                if isinstance(body, Lot):
                    self._batches.over(body)
                runs += runs_of(body)
        for run in runs:
            self._on_run_ended(run, decisions.after_release(run.claim))

    def _hand_back_unstored(self) -> None:
        """Results whose store is away for longer than this node has time: the bodies run again elsewhere."""
        for run in self._storing.give_up_all():
            self._settle(run, decisions.after_release(run.claim))

    def _finish_drain(self) -> None:
        asked = self._pulling or not self._keyed.idle or not self._limited.idle
        if self._draining is not None and not self._runs and not asked:
            self._draining.finish()

    # -- time ---------------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        now_s = self._world.clock.now_s()
        self._world.capacity.measure(now_s)
        self._offers.tick()
        self._limited.look()
        fenced = self._world.fence.passed
        self._batches.check_deadlines()
        for pool in self._pools.values():
            pool.check_deadlines()
            if fenced:
                self._stop_keyed(pool)
        if bands := self._reminders.due(now_s):
            self._on_waits(bands)
        idle = not self._pulling and self._draining is None
        if idle and (take := self._suspects.next_take(now_s)) is not None:
            self._send_pull([take], alone=True)
        elif idle and (self._world.capacity.backlog or self._claiming.looks_on()):
            self._pull(sweep=not self._world.capacity.backlog)
        if self._draining is not None:
            if now_s >= self._draining.until_s:
                self._stop_all(Stop.DRAIN)
                self._hand_back_unstored()
            self._finish_drain()

    def _stop_keyed(self, pool: Pool) -> None:
        """The lease may run out before the record answers: their keys may be somebody else's then."""
        for run in pool.active:
            if run.turn is not None and run.stop is None:
                log.warning("%s is stopped: the lease was not renewed in time", run.handler.name)
                pool.stop(run, Stop.DRAIN)

    def _stop_all(self, why: Stop) -> None:
        for pool in self._pools.values():
            for run in pool.active:
                if run.stop is None:
                    pool.stop(run, why)

    def _running(self) -> tuple[Running, ...]:
        now_s = self._world.clock.now_s()
        runs = sorted(
            (run for pool in self._pools.values() for body in pool.active for run in runs_of(body)),
            key=lambda run: run.started_s,
        )
        return tuple(
            Running(run.claim.id, run.handler.name, run.claim.attempt, now_s - run.started_s)
            for run in runs[:_RUNNING_LISTED_MAX]
        )
