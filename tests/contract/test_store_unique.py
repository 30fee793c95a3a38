"""Unique tasks: who stands in whose way is looked up in the record, whatever became of the other task."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from runtime.core.keyed import Ask, actor_id
from runtime.core.task import (
    Duplicate,
    KeyReused,
    NewTask,
    NotUnique,
    Refused,
    State,
    Stored,
    StoredInstead,
    TaskFilter,
    Undone,
)
from runtime.core.unique import Sole, Unique
from tests.support.factories import new_task, requeue, succeeded

if TYPE_CHECKING:
    from runtime.core.task import Acceptance, Band
    from runtime.ports import Store
    from tests.contract.world import World

REJECT = Unique(mode="reject")
EXISTING = Unique(mode="existing")
REPLACE = Unique(mode="replace")


def unique(band: Band, rule: Unique, number: int = 1, **fields: Any) -> NewTask:
    return new_task(band, unique=Sole(UUID(int=number), rule), **fields)


async def post(store: Store, task: NewTask) -> Acceptance:
    [[answer]] = await store.accept([[task]])
    return answer


async def test_until_finished_holds_through_retry_and_replay(
    store: Store, world: World, band: Band, me: int
) -> None:
    first = unique(band, REJECT)
    assert isinstance(await post(store, first), Stored)

    async def is_there() -> None:
        assert await post(store, unique(band, REJECT)) == NotUnique(first.id)
        assert await post(store, unique(band, EXISTING)) == Duplicate(first.id)

    await is_there()
    [claim] = await world.pull(band, me)
    await is_there()
    await world.settle(claim, me, requeue())
    await is_there()
    await store.cancel(first.id)
    await store.replay(first.id)
    await is_there()
    [claim] = await world.pull(band, me)
    await world.settle(claim, me, succeeded())
    second = unique(band, REJECT)
    assert isinstance(await post(store, second), Stored)
    assert await post(store, unique(band, REJECT)) == NotUnique(second.id)
    assert isinstance(await post(store, unique(band, REJECT, 2)), Stored), "another unique id"


async def test_until_started_holds_while_it_waits(store: Store, world: World, band: Band, me: int) -> None:
    rule = Unique(mode="existing", until="started")
    first = unique(band, rule)
    await post(store, first)
    assert await post(store, unique(band, rule)) == Duplicate(first.id)
    await world.pull(band, me)
    second = unique(band, rule)
    assert isinstance(await post(store, second), Stored)
    assert await post(store, unique(band, rule)) == Duplicate(second.id)


async def test_a_window_outlives_the_task_and_retention(
    store: Store, world: World, band: Band, me: int
) -> None:
    rule = Unique(mode="throttle", for_s=100)
    first = unique(band, rule)
    await post(store, first)
    [claim] = await world.pull(band, me)
    await world.settle(claim, me, succeeded())
    await world.advance(90)
    assert await store.forget(finished_before_s=1, keys_before_s=1, limit=10) == 0
    assert await post(store, unique(band, rule)) == Duplicate(first.id)
    await world.advance(10)
    assert await store.forget(finished_before_s=1, keys_before_s=1, limit=10) == 1
    assert isinstance(await post(store, unique(band, rule)), Stored)


async def test_purging_and_forgetting_free_the_id(store: Store, world: World, band: Band, me: int) -> None:
    for _ in range(2):
        task = unique(band, Unique(mode="reject", for_s=1000))
        assert isinstance(await post(store, task), Stored)
        await store.cancel(task.id)
        assert await store.purge_matching(TaskFilter(states=(State.CANCELLED,)), 10) == (1, 1)
    task = unique(band, REJECT)
    assert isinstance(await post(store, task), Stored)
    await store.cancel(task.id)
    await world.advance(10)
    assert await store.forget(finished_before_s=1, keys_before_s=1, limit=10) == 1
    assert isinstance(await post(store, unique(band, REJECT)), Stored)


async def test_the_one_that_waits_is_replaced_and_keeps_its_place(
    store: Store, world: World, band: Band, me: int
) -> None:
    first = unique(band, REPLACE, payload=b'{"n": 1}')
    stored = await post(store, first)
    assert isinstance(stored, Stored)
    await world.advance(10)
    beside = await world.submit(band)
    second = unique(band, REPLACE, payload=b'{"n": 2}')
    instead = await post(store, second)
    assert isinstance(instead, StoredInstead)
    assert (instead.replaced, instead.replaced_attempt) == (first.id, 0)
    old = await world.view(first.id)
    assert (old.state, old.error and old.error.type) == (State.CANCELLED, "Replaced")
    assert old.error is not None
    assert str(second.id) in old.error.message
    assert [(claim.id, claim.payload) for claim in await world.pull(band, me)] == [
        (second.id, b'{"n": 2}'),
        (beside.id, beside.payload),
    ]
    third = await post(store, unique(band, REPLACE))
    assert type(third) is Stored, "what runs is left alone"
    assert (await world.view(second.id)).state is State.RUNNING


async def test_a_replaced_message_to_a_key_is_gone_from_its_order(
    store: Store, world: World, me: int
) -> None:
    keyed = await world.band("account.add", keyed=True)
    who: dict[str, Any] = {"actor_type": "account", "actor_key": "42"}
    first = unique(keyed, REPLACE, **who)
    await post(store, first)
    second = unique(keyed, REPLACE, **who)
    assert isinstance(await post(store, second), StoredInstead)
    ask = Ask(actor=actor_id(second.tenant, "account", "42"), limit=10)
    [turn] = await store.begin_turns([ask], [keyed.id], me)
    assert [claim.id for claim in turn.claims] == [second.id]


async def test_a_debounced_task_is_put_off_but_not_for_ever(
    store: Store, world: World, band: Band, me: int
) -> None:
    rule = Unique(mode="debounce", for_s=10, max_s=25)
    answers = []
    for _ in range(4):
        answers.append(await post(store, unique(band, rule)))
        await world.advance(8)
    first, second, third, last = (answer for answer in answers if isinstance(answer, Stored))
    assert [round((one.due - one.created_at).total_seconds()) for one in (first, second, third, last)] == [
        10,
        10,
        9,
        1,
    ]
    assert [claim.id for claim in await world.pull(band, me)] == [last.id]
    assert (await world.view(first.id)).state is State.CANCELLED
    fresh = await post(store, unique(band, rule))
    assert type(fresh) is Stored
    assert fresh.due - fresh.created_at == timedelta(seconds=10)


async def test_the_same_ids_again_are_the_same_tasks(store: Store, band: Band) -> None:
    batch = [[unique(band, REPLACE, key="a")], [unique(band, EXISTING, 2)]]
    first = await store.accept(batch)
    assert await store.accept(batch) == first
    replacing = [[unique(band, REPLACE)]]
    [[instead]] = await store.accept(replacing)
    [[again]] = await store.accept(replacing)
    assert isinstance(instead, StoredInstead)
    assert isinstance(again, Stored)
    assert (again.id, again.seq, again.due) == (instead.id, instead.seq, instead.due)


async def test_an_idempotency_key_comes_first(store: Store, band: Band) -> None:
    first = unique(band, REJECT, key="k", request="a")
    await post(store, first)
    assert await post(store, unique(band, REJECT, key="k", request="a")) == Duplicate(first.id)
    assert await post(store, unique(band, REJECT, 2, key="k", request="b")) == KeyReused(
        first.id, first.digest or b""
    )
    assert await post(store, unique(band, EXISTING, key="l")) == Duplicate(first.id)
    assert isinstance(await post(store, new_task(band, key="l")), Stored), "what was found has taken no key"


async def test_groups_are_judged_in_order_and_stored_whole_or_not_at_all(store: Store, band: Band) -> None:
    held = unique(band, REJECT)
    await post(store, held)
    plain, other = new_task(band), unique(band, REJECT, 2)
    twice = [unique(band, EXISTING, 3), unique(band, EXISTING, 3)]
    chain = [unique(band, REPLACE, 4), unique(band, REPLACE, 4)]
    answers = await store.accept(
        [[plain, other, unique(band, REJECT)], twice, chain, [unique(band, REJECT, 2)]]
    )
    assert answers[0] == [Undone(), Undone(), NotUnique(held.id)]
    assert answers[1][1] == Duplicate(twice[0].id)
    assert isinstance(answers[2][1], StoredInstead)
    assert answers[2][1].replaced == chain[0].id
    assert isinstance(answers[3][0], Stored), "the group that fell has left nothing behind"
    assert await store.get(plain.id) is None


async def test_a_refused_row_falls_alone(store: Store, band: Band) -> None:
    bad, good = unique(band, REJECT, slot=5_000), unique(band, REJECT, 2)
    beside = unique(band, REJECT, 3)
    answers = await store.accept([[bad, beside], [good], [unique(band, REJECT, 3)]])
    assert isinstance(answers[0][0], Refused)
    assert answers[0][1] == Undone()
    assert isinstance(answers[1][0], Stored)
    assert isinstance(answers[2][0], Stored)


async def test_a_task_that_is_born_running_stands_in_the_way(store: Store, band: Band, me: int) -> None:
    first = unique(band, EXISTING, born_on=me)
    answer = await post(store, first)
    assert isinstance(answer, Stored)
    assert answer.born
    assert await post(store, unique(band, EXISTING)) == Duplicate(first.id)
