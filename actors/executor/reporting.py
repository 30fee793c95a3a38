"""What the world hears of claims and ends: metrics per batch, the event log, recent failures."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

from actors.executor.bodies import Run
from actors.executor.settling import Settled
from actors.world import World
from runtime.core.task import Claim, Finish, Requeue, State, Verdict

log = logging.getLogger(__name__)

_LATENCY_SAMPLES_MAX: Final = 20  # per batch: percentiles for people need no more


class Reporter:
    def __init__(self, world: World) -> None:
        self._world = world
        self._activity = world.activity
        self._telemetry = world.telemetry

    def claimed(self, claims: Sequence[Claim], via: str) -> None:
        if not claims:
            return
        self._telemetry.count("tasks_claimed_total", len(claims), via=via)
        waits: dict[str, list[float]] = {}
        for claim in claims:
            waits.setdefault(self._world.bands[claim.band].handler, []).append(max(0.0, claim.waited_s))
        for handler, samples in waits.items():
            self._telemetry.observe("task_wait_seconds", samples, handler=handler)

    def started(self, run: Run) -> None:
        self._activity.events.publish(run.claim.id, run.handler.name, State.RUNNING, run.claim.attempt)

    def settled(self, batch: Sequence[Settled]) -> None:
        finished: Counter[tuple[str, str]] = Counter()
        requeued: Counter[tuple[str, str]] = Counter()
        run_times: dict[str, list[float]] = {}
        fenced = 0
        for one in batch:
            run, move = one.run, one.move
            if one.verdict is not Verdict.COMMITTED:
                fenced += 1
                log.warning("fenced: attempt %d of %s is not the newest", run.claim.attempt, run.claim.id)
                continue
            handler = run.handler.name
            if run.started_s:
                run_times.setdefault(handler, []).append(run.ended_s - run.started_s)
            if isinstance(move, Finish):
                finished[handler, move.status.name.lower()] += 1
                self._finished(run, move)
            else:
                requeued[handler, move.kind.name.lower()] += 1
                self._requeued(run, move)
        self._count(finished, requeued, run_times, fenced)
        for one in batch[:_LATENCY_SAMPLES_MAX]:
            if isinstance(one.move, Finish) and one.run.started_s:
                self._activity.latency(max(0.0, one.run.claim.waited_s) + one.run.ended_s - one.run.started_s)

    def _finished(self, run: Run, move: Finish) -> None:
        error_type = move.error.type if move.error else None
        run_s = run.ended_s - run.started_s if run.started_s else None
        self._activity.events.publish(
            run.claim.id, run.handler.name, move.status.state, run.claim.attempt, error_type, run_s
        )
        if move.error is not None and move.status.state is State.FAILED:
            log.warning(
                "%s failed for good: task %s, attempt %d: %s: %s",
                run.handler.name, run.claim.id, run.claim.attempt, move.error.type, move.error.message,
            )  # fmt: skip
            self._failed(run, move.error.type, move.error.message, final=True)

    def _requeued(self, run: Run, move: Requeue) -> None:
        error_type = move.error.type if move.error else None
        state = State.SCHEDULED if move.delay_s > 0 else State.READY
        self._activity.events.publish(run.claim.id, run.handler.name, state, run.claim.attempt, error_type)
        if move.error is not None:
            self._failed(run, move.error.type, move.error.message, final=False)

    def _failed(self, run: Run, error_type: str, message: str, *, final: bool) -> None:
        self._activity.failed(
            run.claim.id,
            run.handler.name,
            run.claim.attempt,
            final=final,
            error_type=error_type,
            message=message,
        )

    def _count(
        self,
        finished: Counter[tuple[str, str]],
        requeued: Counter[tuple[str, str]],
        run_times: dict[str, list[float]],
        fenced: int,
    ) -> None:
        for (handler, outcome), count in finished.items():
            self._telemetry.count("tasks_finished_total", count, handler=handler, outcome=outcome)
            self._activity.rates.add(outcome, count)
        for (handler, kind), count in requeued.items():
            self._telemetry.count("attempts_requeued_total", count, handler=handler, kind=kind)
            self._activity.rates.add(kind, count)
        for handler, samples in run_times.items():
            self._telemetry.observe("task_run_seconds", samples, handler=handler)
        if fenced:
            self._telemetry.count("fenced_commits_total", fenced)
