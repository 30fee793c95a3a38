"""What the world hears of claims and ends: metrics per batch, the event log, recent failures."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

from actors.activity import News
from actors.executor.bodies import Run
from actors.executor.settling import Settled
from actors.world import World
from runtime.core.task import Claim, ErrorInfo, Finish, Requeue, State, Status

log = logging.getLogger(__name__)

_STATES: Final = tuple(status.state for status in Status)  # by status
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
        waits: dict[int, list[float]] = {}  # by band
        for claim in claims:
            waits.setdefault(claim.band, []).append(max(0.0, claim.waited_s))
        for band, samples in waits.items():
            handler = self._world.bands[band].handler
            self._telemetry.observe("task_wait_seconds", samples, handler=handler)

    def pulled(self, claims: Sequence[Claim]) -> None:
        """As claimed; what belongs to others was stolen from them."""
        cluster, bands = self._world.cluster, self._world.bands
        if cluster.alone:
            self.claimed(claims, via="pull")
            return
        mine: list[Claim] = []
        stolen: list[Claim] = []
        for claim in claims:
            (mine if cluster.is_mine(bands[claim.band], claim.slot) else stolen).append(claim)
        self.claimed(mine, via="pull")
        self.claimed(stolen, via="steal")

    def started(self, run: Run) -> None:
        """Starts are told only while somebody wants them: twice the events would be kept half as long."""
        if self._activity.events.wants_starts:
            self._activity.events.publish(run.claim.id, run.handler.name, State.RUNNING, run.claim.attempt)

    def settled(self, batch: Sequence[Settled]) -> None:
        finished: dict[str, list[int]] = {}  # by handler: how many of each status
        requeued: Counter[tuple[str, str]] = Counter()
        run_times: dict[str, list[float]] = {}
        news: list[News] = []
        fenced = 0
        for one in batch:
            run, move = one.run, one.move
            if not one.verdict.committed:
                fenced += 1
                log.warning("fenced: attempt %d of %s is not the newest", run.claim.attempt, run.claim.id)
                continue
            handler = run.handler.name
            run_s = run.ended_s - run.started_s if run.started_s else None
            if run_s is not None:
                run_times.setdefault(handler, []).append(run_s)
            error_type = move.error.type if move.error is not None else None
            if isinstance(move, Finish):
                finished.setdefault(handler, [0] * len(Status))[move.status] += 1
                news.append(
                    (run.claim.id, handler, _STATES[move.status], run.claim.attempt, error_type, run_s)
                )
            else:
                requeued[handler, move.kind.name.lower()] += 1
                state = State.SCHEDULED if move.delay_s > 0 else State.READY
                news.append((run.claim.id, handler, state, run.claim.attempt, error_type, None))
            if move.error is not None:
                self._erred(run, move, move.error)
        self._activity.events.publish_all(news)
        self._count(finished, requeued, run_times, fenced)
        for one in batch[:_LATENCY_SAMPLES_MAX]:
            if isinstance(one.move, Finish) and one.run.started_s:
                self._activity.latency(max(0.0, one.run.claim.waited_s) + one.run.ended_s - one.run.started_s)

    def _erred(self, run: Run, move: Finish | Requeue, error: ErrorInfo) -> None:
        final = isinstance(move, Finish)
        if isinstance(move, Finish):
            if move.status is not Status.FAILED:
                return
            log.warning(
                "%s failed for good: task %s, attempt %d: %s: %s",
                run.handler.name, run.claim.id, run.claim.attempt, error.type, error.message,
            )  # fmt: skip
        self._activity.failed(
            run.claim.id,
            run.handler.name,
            run.claim.attempt,
            final=final,
            error_type=error.type,
            message=error.message,
        )

    def _count(
        self,
        finished: dict[str, list[int]],
        requeued: Counter[tuple[str, str]],
        run_times: dict[str, list[float]],
        fenced: int,
    ) -> None:
        for handler, counts in finished.items():
            for state, count in zip(_STATES, counts, strict=True):
                if count:
                    self._telemetry.count("tasks_finished_total", count, handler=handler, outcome=state.value)
                    self._activity.rates.add(state.value, count)
            if counts[Status.SUCCEEDED]:
                self._activity.handlers.succeeded(handler, counts[Status.SUCCEEDED])
        for (handler, kind), count in requeued.items():
            self._telemetry.count("attempts_requeued_total", count, handler=handler, kind=kind)
            self._activity.rates.add(kind, count)
        for handler, samples in run_times.items():
            self._telemetry.observe("task_run_seconds", samples, handler=handler)
            self._activity.handlers.took(handler, samples[:_LATENCY_SAMPLES_MAX])
        if fenced:
            self._telemetry.count("fenced_commits_total", fenced)
