"""Tells other services what became of tasks, through the broker: after the commit, as well as it can be done.

It reads the node's event log like any other reader, so a broker that is away costs nothing but a place in the log:
what is still kept when it is back is told then, and what is not is counted. An event may be told twice; its id says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from actors.activity import Activity, Gap, TaskEvent
from actors.insisting import until_taken
from runtime.kernel.clock import Clock
from runtime.ports import Broker, Event, Telemetry

log = logging.getLogger(__name__)

_REPEAT_FIRST_S: Final = 0.5
_REPEAT_MAX_S: Final = 5.0
_LOOK_S: Final = 0.02


class Told(StrEnum):
    """Which changes of state other services hear of."""

    OFF = "off"
    FINAL = "final"
    ALL = "all"


class Publishing:
    def __init__(
        self, broker: Broker, activity: Activity, clock: Clock, telemetry: Telemetry, node: str, told: Told
    ) -> None:
        self._broker = broker
        self._log = activity.events
        self._clock = clock
        self._telemetry = telemetry
        self._node = node
        self._told = told
        self._position = self._log.newest

    async def run(self) -> None:
        """Without end."""
        with self._log.subscribe_batches(self._position, starts=self._told is Told.ALL) as batches:
            async for batch in batches:
                events = [self._event(one) for one in self._wanted(batch)]
                if events:
                    await self._publish(events)
                    self._telemetry.count("events_published_total", len(events))
                last = batch[-1]
                self._position = last.sequence if isinstance(last, TaskEvent) else self._position

    async def caught_up(self, within_s: float) -> bool:
        """Wait until everything that has happened is told, for so long at most."""
        until_s = self._clock.now_s() + within_s
        while self._position < self._log.newest and self._clock.now_s() < until_s:
            await self._clock.sleep(_LOOK_S)
        return self._position >= self._log.newest

    def _wanted(self, batch: Iterable[TaskEvent | Gap]) -> Iterable[TaskEvent]:
        for one in batch:
            if isinstance(one, Gap):
                self._telemetry.count("events_lost_total", one.missed)
            elif self._told is Told.ALL or one.state.final:
                yield one

    async def _publish(self, events: list[Event]) -> None:
        await until_taken(
            lambda: self._broker.publish(events),
            self._clock,
            lambda away: log.debug("%d events wait for the broker: %s", len(events), away),
            first_s=_REPEAT_FIRST_S,
            max_s=_REPEAT_MAX_S,
        )

    def _event(self, event: TaskEvent) -> Event:
        body: dict[str, object] = {
            "task_id": event.id,
            "handler": event.handler,
            "state": event.state.value,
            "attempt": event.attempt,
            "at": event.at,
            "node": self._node,
        }
        if event.error_type is not None:
            body["error_type"] = event.error_type
        if event.run_s is not None:
            body["run_s"] = round(event.run_s, 6)
        return Event(
            f"{event.id}:{event.attempt}:{event.state.value}", event.handler, event.state.value, body
        )
