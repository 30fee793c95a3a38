"""What other services hear of: final states or all, as soon as the broker takes them; what was lost is counted."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from actors.activity import EVENTS_KEPT, Activity
from actors.harness import _Tally
from actors.publishing import Publishing, Told
from runtime.adapters.memory.broker import MemoryBroker, MemoryExchange
from runtime.core.task import State
from runtime.kernel.clock import SystemClock
from runtime.kernel.virtual import simulated
from tests.support.factories import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT = datetime(2030, 1, 1, tzinfo=UTC)


class Service:
    """One node's log and publisher, and what other services got."""

    def __init__(self, told: Told) -> None:
        self.exchange = MemoryExchange()
        self.broker = MemoryBroker(self.exchange, 1)
        self.activity = Activity(lambda: 0.0, lambda: AT)
        self.tally = _Tally()
        self.publishing = Publishing(self.broker, self.activity, SystemClock(), self.tally, "a", told)

    def happens(self, *states: State, count: int = 1) -> None:
        news = [(new_id(), "echo", state, 1, None, None) for _ in range(count) for state in states]
        self.activity.events.publish_all(news)

    @property
    def heard(self) -> list[str]:
        return [event.state for event in self.exchange.events]


@asynccontextmanager
async def service(told: Told) -> AsyncIterator[Service]:
    made = Service(told)
    running = asyncio.ensure_future(made.publishing.run())
    yield made
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("told", "heard"), [(Told.FINAL, ["succeeded", "failed"]), (Told.ALL, ["running", "succeeded", "failed"])]
)
@simulated
async def test_final_states_or_all(told: Told, heard: list[str]) -> None:
    async with service(told) as one:
        await asyncio.sleep(0)
        assert one.activity.events.wants_starts is (told is Told.ALL)
        one.happens(State.RUNNING, State.SUCCEEDED, State.FAILED)
        assert await one.publishing.caught_up(1)
        assert one.heard == heard
        assert one.tally.totals["events_published_total",] == len(heard)


@simulated
async def test_what_others_read() -> None:
    async with service(Told.FINAL) as one:
        task_id = new_id()
        one.activity.events.publish(task_id, "echo", State.FAILED, 3, "ValueError", 0.25)
        await one.publishing.caught_up(1)
        [event] = one.exchange.events
        assert (event.id, event.handler, event.state) == (f"{task_id}:3:failed", "echo", "failed")
        assert event.body == {
            "task_id": task_id, "handler": "echo", "state": "failed", "attempt": 3, "at": AT, "node": "a",
            "error_type": "ValueError", "run_s": 0.25,
        }  # fmt: skip


@simulated
async def test_they_wait_for_a_broker_that_is_away_and_what_is_no_longer_kept_is_counted() -> None:
    async with service(Told.FINAL) as one:
        one.broker.cut()
        one.happens(State.SUCCEEDED)
        assert not await one.publishing.caught_up(10)
        one.happens(State.SUCCEEDED, count=EVENTS_KEPT + 5)
        one.broker.heal()
        assert await one.publishing.caught_up(10)
        assert len(one.heard) == EVENTS_KEPT, "as many as the exchange of this test keeps"
        assert one.tally.totals["events_published_total",] == EVENTS_KEPT + 1
        assert one.tally.totals["events_lost_total",] == 5
