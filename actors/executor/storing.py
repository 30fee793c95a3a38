"""Results that are too large for the record are stored apart from it, before the outcome that refers to them commits.

Law: a body that has ended is not run again because its result cannot be stored. It is tried again, later and later,
until it succeeds, the task is cancelled or the node leaves; the task tells meanwhile why it waits. What was stored and
then not committed (a fenced attempt, a node that died in between) is an orphan, which the collector finds.

Memory is bounded: a body's place is not free before its result is stored, and while more than `results_in_hand_bytes`
wait, this node claims nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeGuard
from uuid import UUID

from actors.authoring.limits import RESULT_BYTES_MAX
from actors.executor.bodies import Move, Run
from actors.world import World
from runtime.core.objects import Reference, key_of
from runtime.core.task import Finish, Progress
from runtime.errors import Unavailable
from runtime.ports import Objects

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
_AGAIN_FIRST_S: Final = 0.5
_AGAIN_MAX_S: Final = 30.0
_FULL: Final = "results"  # why capacity is closed


def is_large(move: Move) -> TypeGuard[Finish]:
    """Whether its result does not belong into the record."""
    return (
        isinstance(move, Finish)
        and move.result is not None
        and len(move.result) > RESULT_BYTES_MAX
        and not move.result_codec.is_apart
    )


class Storing:
    """`stored` gets the move with a reference instead of the result, `progress` why it waits."""

    def __init__(
        self,
        world: World,
        stored: Callable[[Run, Move], object],
        progress: Callable[[UUID, int, Progress], object],
    ) -> None:
        self._world = world
        self._stored = stored
        self._progress = progress
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._pending: dict[Run, asyncio.Task[None]] = {}
        self._sizes: dict[Run, int] = {}

    def put(self, run: Run, move: Finish) -> None:
        """Only for what `is_large`."""
        objects = self._world.objects
        assert objects is not None, "without them no result is larger than fits in the record"
        assert move.result is not None, "large"
        self._sizes[run] = len(move.result)
        # owned: kept in _pending, cancelled by give_up
        self._pending[run] = asyncio.create_task(self._store(objects, run, move, move.result))
        self._account()

    def give_up(self, run: Run) -> bool:
        """Stop storing this one: somebody else says how it ends. False when it is not here."""
        task = self._pending.pop(run, None)
        if task is None:
            return False
        task.cancel()
        self._sizes.pop(run)
        self._account()
        return True

    def give_up_all(self) -> list[Run]:
        return [run for run in list(self._pending) if self.give_up(run)]

    async def _store(self, objects: Objects, run: Run, move: Finish, body: bytes) -> None:
        key = key_of(run.claim.id, run.claim.attempt)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        delay_s = _AGAIN_FIRST_S
        while not await self._put_once(objects, key, body):
            await self._world.clock.sleep(delay_s * (0.5 + 0.5 * self._world.jitter()))
            delay_s = min(_AGAIN_MAX_S, delay_s * 2)
        del self._pending[run], self._sizes[run]
        self._account()
        self._world.telemetry.count("results_stored_total")
        self._world.telemetry.count("results_stored_bytes_total", len(body))
        reference = Reference(key, len(body), digest).to_bytes()
        self._stored(run, replace(move, result=reference, result_codec=move.result_codec.apart))

    async def _put_once(self, objects: Objects, key: str, body: bytes) -> bool:
        async with self._at_once:
            try:
                await objects.put(key, body)
            except Unavailable as away:
                self._wait_for(str(away))
                return False
            except Exception as unforeseen:
                log.exception("storing %s failed in a way that nobody has foreseen", key)
                self._wait_for(f"{type(unforeseen).__name__}: {unforeseen}")
                return False
        return True

    def _wait_for(self, why: str) -> None:
        """Tell it of all: the others wait behind this one."""
        log.warning("%d large results wait for their store: %s", len(self._pending), why)
        self._world.telemetry.count("results_refused_total")
        for run in self._pending:
            shown = Progress(done=1, total=1, message="the body has ended", result_waits=why)
            self._progress(run.claim.id, run.claim.attempt, shown)

    def _account(self) -> None:
        waiting = sum(self._sizes.values())
        self._world.telemetry.gauge("results_in_hand_bytes", waiting)
        if waiting > self._world.limits.results_in_hand_bytes:
            self._world.capacity.close(_FULL)
        else:
            self._world.capacity.open(_FULL)
