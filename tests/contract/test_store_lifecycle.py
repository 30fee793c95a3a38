"""The stores' conditions repeat the lifecycle table: every (state, event) pair is walked through both.

What the table forbids changes nothing. What only parents do to their children is in test_store_workflows.py.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from runtime.core.lifecycle import INITIAL, TRANSITIONS, Event, step
from runtime.core.task import AttemptKind, Finish, Lane, Requeue, Settlement, State, TaskView
from runtime.errors import IllegalTransition, WrongState
from tests.contract.world import ALL
from tests.support.factories import cancelled, error, failed, new_task, requeue, succeeded

if TYPE_CHECKING:
    from uuid import UUID

    from tests.contract.world import World

LATER_S: Final = 1_000.0
EXPIRY_S: Final = 3_000.0
NEVER_S: Final = 10_000.0

OF_PARENTS: Final = {Event.PARENTS_DONE, Event.PARENT_FAILED, Event.SKIPPED, Event.REOPENED}
EVENTS: Final = [event for event in Event if event not in OF_PARENTS]

ENDS: Final[dict[Event, Finish | Requeue]] = {
    Event.SUCCEEDED: succeeded(),
    Event.FAILED: failed(),
    Event.GIVEN_UP: failed(crashes=3),
    Event.RETRIED: requeue(AttemptKind.FAILED, delay_s=LATER_S),
    Event.SNOOZED: requeue(AttemptKind.SNOOZED, delay_s=LATER_S),
    Event.RELEASED: requeue(AttemptKind.RELEASED, delay_s=LATER_S),
    Event.CRASHED: requeue(AttemptKind.CRASHED),
    Event.CANCELLED: cancelled(error=error(type="Cancelled")),
    Event.EXPIRED: cancelled(error=error(type="Expired")),
}


class Life:
    """One task that things happen to, in a band of its own."""

    def __init__(self, world: World, me: int) -> None:
        self.world, self.store, self.me = world, world.store, me
        self.id: UUID | None = None

    async def begin(self, state: State, delay_s: float) -> None:
        """Bring a new task into `state`; a scheduled one is due after `delay_s`."""
        band = await self.world.band("lifecycle", Lane.HIGH)
        scheduled = state is State.SCHEDULED
        expires_at = await self.store.now() + timedelta(seconds=EXPIRY_S)
        parents = ()
        if state is State.BLOCKED:
            parents = ((await self.world.submit(await self.world.band("parent"))).id,)
        task = new_task(band, delay_s=delay_s if scheduled else 0.0, expires_at=expires_at, parents=parents)
        await self.world.accept(task)
        self.id = task.id
        if state in {State.BLOCKED, State.SCHEDULED, State.READY}:
            return
        assert await self.store.claim([(task.id, 1)], self.me)
        first = {State.SUCCEEDED: succeeded(), State.FAILED: failed(), State.CANCELLED: cancelled()}
        if state in first:
            await self.settle(first[state])

    async def view(self) -> TaskView:
        assert self.id is not None
        return await self.world.view(self.id)

    async def settle(self, move: Finish | Requeue) -> None:
        view = await self.view()
        await self.store.settle([Settlement(view.id, max(view.attempt, 1), self.me, move)])

    async def happen(self, event: Event) -> None:
        view = await self.view()
        match event:
            case Event.DUE:
                await self.world.advance(LATER_S)
            case Event.CLAIMED:
                await self.store.claim([(view.id, view.attempt), (view.id, view.attempt + 1)], self.me)
            case Event.REPLAYED:
                with suppress(WrongState):
                    await self.store.replay(view.id)
            case Event.CANCELLED:
                await self.store.cancel(view.id)
                await self.settle(ENDS[event])  # what the executor makes of the request
            case Event.EXPIRED:
                await self.world.advance(EXPIRY_S)
                await self.store.expire(ALL)
                await self.settle(ENDS[event])  # what the executor makes of a claim that is expired
            case _:
                await self.settle(ENDS[event])


def marks(view: TaskView) -> tuple[object, ...]:
    """What tells whether a task changed, instants apart (time passes here)."""
    return (
        view.state,
        view.attempt,
        view.failures,
        view.crashes,
        view.result,
        view.error,
        view.reason,
        view.node,
    )


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("state", State, ids=str)
async def test_every_event_in_every_state_does_what_the_table_says(
    world: World, me: int, state: State, event: Event
) -> None:
    life = Life(world, me)
    await life.begin(state, NEVER_S if event is Event.EXPIRED else LATER_S)
    before = await life.view()
    assert before.state is state
    await life.happen(event)
    after = await life.view()
    if (state, event) in TRANSITIONS:
        assert after.state is step(state, event)
    else:
        with pytest.raises(IllegalTransition):
            step(state, event)
        assert marks(after) == marks(before)
        assert (after.finished_at is None) is (before.finished_at is None)


@pytest.mark.parametrize("state", [state for state in INITIAL if state is not State.BLOCKED], ids=str)
async def test_a_task_begins_in_every_initial_state(world: World, me: int, state: State) -> None:
    band = await world.band()
    delay_s = LATER_S if state is State.SCHEDULED else 0.0
    task = await world.submit(band, delay_s=delay_s, born_on=me if state is State.RUNNING else None)
    assert (await world.view(task.id)).state is state


def test_a_final_state_is_left_by_replay_only() -> None:
    left_by = {event for state, event in TRANSITIONS if state.final}
    assert left_by == {Event.REPLAYED, Event.REOPENED}
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.SUCCEEDED}
