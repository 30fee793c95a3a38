"""Another priority for tasks that wait: at once, in their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runtime.core.keyed import Ask, actor_id
from runtime.core.task import AttemptKind, Lane, State, TaskFilter
from runtime.errors import TaskNotFound, WrongState
from tests.support.factories import new_id, requeue, succeeded

if TYPE_CHECKING:
    from runtime.core.task import Band
    from runtime.ports import Store
    from tests.contract.world import World


async def test_a_waiting_task_changes_its_lane_at_once(
    store: Store, world: World, band: Band, me: int
) -> None:
    high = await world.band(lane=Lane.HIGH)
    first, second = await world.submit(band), await world.submit(band)
    view = await store.prioritize(second.id, Lane.HIGH)
    assert (view.lane, view.state, view.unbound) == (Lane.HIGH, State.READY, False)
    assert (await store.prioritize(second.id, Lane.HIGH)).lane is Lane.HIGH, "again is no error"
    assert [claim.id for claim in await world.pull(high, me)] == [second.id]
    assert (await world.view(second.id)).lane is Lane.HIGH
    assert [claim.id for claim in await world.pull(band, me)] == [first.id]


async def test_a_band_that_nobody_had_is_made_and_suspects_stay_suspects(
    store: Store, world: World, band: Band, me: int
) -> None:
    claim = await world.start(band, me)
    await world.settle(claim, me, requeue(AttemptKind.CRASHED, suspect=True))
    view = await store.prioritize(claim.id, Lane.LOW)
    assert (view.lane, view.suspect) == (Lane.LOW, True)
    low = await world.band(lane=Lane.LOW)
    assert [each.id for each in await world.pull(-low.id, me, alone=True)] == [claim.id]


async def test_what_has_begun_keeps_its_priority(store: Store, world: World, band: Band, me: int) -> None:
    claim = await world.start(band, me)
    with pytest.raises(WrongState, match="only waiting"):
        await store.prioritize(claim.id, Lane.HIGH)
    await world.settle(claim, me, succeeded())
    with pytest.raises(WrongState, match="only waiting"):
        await store.prioritize(claim.id, Lane.HIGH)
    with pytest.raises(TaskNotFound):
        await store.prioritize(new_id(), Lane.HIGH)


async def test_all_that_match_and_wait_change_their_lane(
    store: Store, world: World, band: Band, me: int
) -> None:
    await world.start(band, me)
    tasks = [await world.submit(band) for _ in range(5)]
    other = await world.submit(await world.band("slow"))
    already = await world.submit(await world.band(lane=Lane.LOW))
    which = TaskFilter(handler="echo")
    assert await store.prioritize_matching(which, 100, lane=Lane.LOW, dry_run=True) == (5, 0)
    assert await store.prioritize_matching(which, 3, lane=Lane.LOW) == (3, 3)
    assert await store.prioritize_matching(which, 100, lane=Lane.LOW) == (2, 2)
    assert await store.prioritize_matching(which, 100, lane=Lane.LOW) == (0, 0)
    low = await world.band(lane=Lane.LOW)
    assert {c.id for c in await world.pull(low, me)} == {*(task.id for task in tasks), already.id}
    one = TaskFilter(ids=(other.id, already.id))
    assert await store.prioritize_matching(one, 100, lane=Lane.HIGH) == (1, 1), "the other one runs"
    assert (await world.view(other.id)).lane is Lane.HIGH


async def test_a_message_to_a_key_changes_its_queue_there(store: Store, world: World, me: int) -> None:
    keyed = await world.band("account.add", keyed=True)
    who: dict[str, Any] = {"actor_type": "account", "actor_key": "42"}
    first, second = await world.submit(keyed, **who), await world.submit(keyed, **who)
    await store.prioritize(second.id, Lane.HIGH)
    high = await world.band("account.add", Lane.HIGH, keyed=True)
    ask = Ask(actor=actor_id(first.tenant, "account", "42"), limit=1)
    [turn] = await store.begin_turns([ask], [keyed.id, high.id], me)
    assert [claim.id for claim in turn.claims] == [second.id]
