"""Accepting: groups whole or not at all, one key one task, bad rows alone, tasks born running."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runtime.core.task import (
    Acceptance,
    Duplicate,
    KeyReused,
    NewTask,
    Refused,
    State,
    Stored,
    TaskFilter,
    Undone,
)
from tests.support.factories import digest, new_id, new_task

if TYPE_CHECKING:
    from runtime.core.task import Band
    from runtime.ports import Store
    from tests.contract.world import World


async def tasks_on_record(store: Store) -> int:
    return len((await store.list(TaskFilter(), 500)).tasks)


def kinds(answers: list[Acceptance]) -> list[type[Acceptance]]:
    return [type(answer) for answer in answers]


# -- one task ----------------------------------------------------------------------------------------


async def test_a_task_is_stored_and_ready(store: Store, band: Band) -> None:
    before = await store.now()
    task = new_task(band)
    [[stored]] = await store.accept([[task]])
    after = await store.now()
    assert isinstance(stored, Stored)
    assert stored.id == task.id
    assert before <= stored.created_at == stored.due <= after
    view = await store.get(task.id)
    assert view is not None
    assert (view.state, view.attempt, view.due, view.created_at) == (
        State.READY,
        0,
        stored.due,
        stored.created_at,
    )


async def test_nothing_is_accepted_of_nothing(store: Store) -> None:
    assert await store.accept([]) == []
    assert await store.accept([[], []]) == [[], []]


async def test_a_delay_counts_from_the_commit(store: Store, world: World, band: Band) -> None:
    [stored] = await world.accept(new_task(band, delay_s=60.0))
    assert stored.due - stored.created_at == timedelta(seconds=60)
    assert (await world.view(stored.id)).state is State.SCHEDULED
    await world.advance(59)
    assert (await world.view(stored.id)).state is State.SCHEDULED
    await world.advance(1)
    assert (await world.view(stored.id)).state is State.READY


async def test_run_at_is_an_instant_and_wins_over_a_delay(store: Store, world: World, band: Band) -> None:
    run_at = await store.now() + timedelta(hours=1)
    [stored] = await world.accept(new_task(band, run_at=run_at, delay_s=5.0))
    assert stored.due == run_at
    view = await world.view(stored.id)
    assert (view.state, view.run_at, view.due) == (State.SCHEDULED, run_at, run_at)


async def test_seq_ascends_in_the_order_of_the_batch(store: Store, band: Band) -> None:
    tasks = [new_task(band, key=f"k{n}") for n in range(20)]
    random.Random(7).shuffle(tasks)
    answers = await store.accept([tasks[:3], tasks[3:4], tasks[4:15], *([task] for task in tasks[15:])])
    seqs = [answer.seq for group in answers for answer in group if isinstance(answer, Stored)]
    assert len(seqs) == 20
    assert seqs == sorted(set(seqs))
    [[later]] = await store.accept([[new_task(band)]])
    assert isinstance(later, Stored)
    assert later.seq > seqs[-1]


async def test_the_same_ids_again_are_the_same_tasks(store: Store, band: Band) -> None:
    batch = [[new_task(band, key="k"), new_task(band)], [new_task(band, delay_s=60)]]
    first = await store.accept(batch)
    assert await store.accept(batch) == first  # an answer was lost, the batch was repeated
    assert await tasks_on_record(store) == 3


async def test_the_same_ids_again_are_answered_even_when_they_run_or_ended(
    store: Store, world: World, band: Band, me: int
) -> None:
    task = new_task(band, key="k")
    [stored] = await world.accept(task)
    [claim] = await world.pull(band, me)
    assert await store.accept([[task]]) == [[stored]]
    await store.cancel(claim.id)
    assert await store.accept([[task]]) == [[stored]]
    assert await tasks_on_record(store) == 1


# -- keys --------------------------------------------------------------------------------------------


async def test_the_same_key_and_request_is_the_same_task(store: Store, band: Band) -> None:
    first = new_task(band, key="k")
    await store.accept([[first]])
    assert await store.accept([[new_task(band, key="k")]]) == [[Duplicate(first.id)]]
    assert await tasks_on_record(store) == 1


async def test_the_same_key_and_another_request_is_refused(store: Store, band: Band) -> None:
    first = new_task(band, key="k", request="a")
    await store.accept([[first]])
    answer = await store.accept([[new_task(band, key="k", request="b")]])
    assert answer == [[KeyReused(first.id, digest("a"))]]
    assert await tasks_on_record(store) == 1


async def test_a_key_belongs_to_its_tenant(store: Store, world: World) -> None:
    mine, theirs = await world.band(tenant="mine"), await world.band(tenant="theirs")
    await world.accept(
        new_task(mine, key="k", tenant="mine"), new_task(theirs, key="k", tenant="theirs", request="b")
    )
    assert await tasks_on_record(store) == 2


async def test_keys_are_compared_byte_by_byte(store: Store, world: World, band: Band) -> None:
    await world.accept(*(new_task(band, key=key) for key in ("k", "K", "k ", "ﬀ", "ff", "é", "e\u0301", "")))
    assert await tasks_on_record(store) == 8


@pytest.mark.parametrize("end", ["cancel", "finish"])
async def test_a_key_is_kept_when_its_task_has_ended(
    store: Store, world: World, band: Band, me: int, end: str
) -> None:
    if end == "finish":
        first = (await world.end(band, me, idempotency_key="k", digest=digest("a"))).id
    else:
        first = (await world.submit(band, key="k")).id
        await store.cancel(first)
    assert await store.accept([[new_task(band, key="k")]]) == [[Duplicate(first)]]


async def test_equal_keys_of_one_batch_count_as_one(store: Store, band: Band) -> None:
    batch = [[new_task(band, key="k")] for _ in range(5)]
    answers = await store.accept(batch)
    first = batch[0][0].id
    assert kinds(answers[0]) == [Stored]
    assert answers[1:] == [[Duplicate(first)]] * 4
    assert await tasks_on_record(store) == 1


async def test_of_equal_keys_in_one_batch_the_other_request_falls_alone(store: Store, band: Band) -> None:
    first, other, again = (new_task(band, key="k", request=request) for request in "aba")
    answers = await store.accept([[first], [other], [new_task(band)], [again]])
    assert kinds(answers[0] + answers[2]) == [Stored, Stored]
    assert answers[1] == [KeyReused(first.id, digest("a"))]
    assert answers[3] == [Duplicate(first.id)]


async def test_a_key_twice_in_a_group_is_one_task_when_the_request_is_the_same(
    store: Store, band: Band
) -> None:
    first, other, again = new_task(band, key="k"), new_task(band), new_task(band, key="k")
    [answers] = await store.accept([[first, other, again]])
    assert kinds(answers) == [Stored, Stored, Duplicate]
    assert answers[2] == Duplicate(first.id)
    assert await tasks_on_record(store) == 2


async def test_a_hundred_posts_of_one_key_at_the_same_time_store_one_task(store: Store, band: Band) -> None:
    tasks = [new_task(band, key="k") for _ in range(100)]
    answers = [group[0] for [group] in await asyncio.gather(*(store.accept([[task]]) for task in tasks))]
    stored = [answer for answer in answers if isinstance(answer, Stored)]
    assert len(stored) == 1
    assert [answer for answer in answers if answer != stored[0]] == [Duplicate(stored[0].id)] * 99
    assert await tasks_on_record(store) == 1


async def test_crossing_batches_of_the_same_keys_neither_block_nor_lose(store: Store, band: Band) -> None:
    keys = [f"k{n}" for n in range(50)]

    async def post(order: list[str]) -> list[Acceptance]:
        return [group[0] for group in await store.accept([[new_task(band, key=key)] for key in order])]

    up, down = await asyncio.gather(post(keys), post(keys[::-1]))
    for one, other in zip(up, reversed(down), strict=True):
        assert {type(one), type(other)} == {Stored, Duplicate}
        assert isinstance(one, Stored | Duplicate)
        assert isinstance(other, Stored | Duplicate)
        assert one.id == other.id
    assert await tasks_on_record(store) == 50


# -- groups ------------------------------------------------------------------------------------------


async def test_a_group_with_a_reused_key_leaves_no_trace(store: Store, world: World, band: Band) -> None:
    holder = new_task(band, key="held", request="a")
    known = new_task(band, key="known")
    await world.accept(holder, known)
    group = [
        new_task(band),
        new_task(band, key="known"),
        new_task(band, key="held", request="b"),
        new_task(band),
    ]
    [answers] = await store.accept([group])
    assert answers == [Undone(), Duplicate(known.id), KeyReused(holder.id, digest("a")), Undone()]
    assert await tasks_on_record(store) == 2


async def test_a_group_at_odds_with_itself_leaves_no_trace(store: Store, band: Band) -> None:
    first, other, again = (new_task(band, key="k", request=request) for request in "aba")
    [answers] = await store.accept([[first, other, again, new_task(band)]])
    assert answers == [Undone(), KeyReused(first.id, digest("a")), Undone(), Undone()]
    assert await tasks_on_record(store) == 0


async def test_a_group_that_falls_takes_no_other_with_it(store: Store, band: Band) -> None:
    await store.accept([[new_task(band, key="held")]])
    good = [[new_task(band), new_task(band)] for _ in range(3)]
    bad = [new_task(band), new_task(band, key="held", request="b")]
    answers = await store.accept([good[0], good[1], bad, good[2]])
    assert [kinds(group) for group in answers] == [
        [Stored, Stored],
        [Stored, Stored],
        [Undone, KeyReused],
        [Stored, Stored],
    ]
    assert await tasks_on_record(store) == 7


async def test_the_key_of_a_group_that_fell_is_free_for_the_next(store: Store, band: Band) -> None:
    holder = new_task(band, key="held")
    await store.accept([[holder]])
    falls = [new_task(band, key="k", request="a"), new_task(band, key="held", request="b")]
    stands, again = new_task(band, key="k", request="c"), new_task(band, key="k", request="c")
    answers = await store.accept([falls, [stands], [again]])
    assert answers[0] == [Undone(), KeyReused(holder.id, digest("a"))]
    assert kinds(answers[1]) == [Stored]
    assert answers[2] == [Duplicate(stands.id)]


async def test_a_group_of_duplicates_only_changes_nothing(store: Store, band: Band) -> None:
    first, second = new_task(band, key="1"), new_task(band, key="2")
    await store.accept([[first, second]])
    answers = await store.accept([[new_task(band, key="2"), new_task(band, key="1")]])
    assert answers == [[Duplicate(second.id), Duplicate(first.id)]]


# -- rows that PostgreSQL refuses --------------------------------------------------------------------

_INCOMPRESSIBLE = "".join(random.Random(1).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=9_000))

BAD_ROWS = {
    "slot out of range": {"slot": 5_000},
    "slot that is no int2": {"slot": 70_000},
    "NUL in a key": {"key": "a\0b"},
    "lone surrogate in a key": {"key": "a\ud800b"},
    "key larger than an index takes": {"key": _INCOMPRESSIBLE},
    "NUL in an actor key": {"actor_type": "account", "actor_key": "4\0002"},
    "lone surrogate in a text": {"created_by": "\udfff"},
    "metadata that is no JSON": {"metadata": b'{"a":'},
    "metadata that is no object": {"metadata": b"[1]"},
    "NUL in metadata": {"metadata": b'{"a": "\\u0000"}'},
    "an instant beyond all instants": {"delay_s": 1e30},
}


@pytest.mark.parametrize("fields", BAD_ROWS.values(), ids=BAD_ROWS)
async def test_a_bad_row_fails_alone(store: Store, band: Band, fields: dict[str, object]) -> None:
    fields = {"slot": 1, **fields}
    bad: NewTask = new_task(band, **fields)  # type: ignore[arg-type]  # the table above names fields of NewTask
    good = [new_task(band, key=f"k{n}") for n in range(6)]
    answers = await store.accept([[good[0]], [good[1], good[2]], [bad], [good[3], bad, good[4]], [good[5]]])
    assert [kinds(group) for group in answers] == [
        [Stored],
        [Stored, Stored],
        [Refused],
        [Undone, Refused, Undone],
        [Stored],
    ]
    [refused] = answers[2]
    assert isinstance(refused, Refused)
    assert refused.detail
    assert await tasks_on_record(store) == 4


async def test_good_rows_around_many_bad_ones_are_stored(store: Store, band: Band) -> None:
    groups = [[new_task(band, slot=-1 if n % 3 == 0 else n)] for n in range(60)]
    answers = await store.accept(groups)
    assert [kinds(group) for group in answers] == [[Refused if n % 3 == 0 else Stored] for n in range(60)]
    assert await tasks_on_record(store) == 40


async def test_in_a_refused_group_every_wrong_task_says_why(store: Store, band: Band) -> None:
    holder, known = new_task(band, key="held"), new_task(band, key="known")
    await store.accept([[holder], [known]])
    group = [
        new_task(band),
        new_task(band, key="held", request="b"),
        new_task(band, slot=5_000),
        new_task(band, key="known"),
        new_task(band, key="new"),
        new_task(band, key="new"),
        new_task(band, key="new", request="b"),
    ]
    [answers] = await store.accept([group])
    assert isinstance(answers[2], Refused)
    assert answers[:2] + answers[3:] == [
        Undone(),
        KeyReused(holder.id, digest("a")),
        Duplicate(known.id),
        Undone(),
        Undone(),
        KeyReused(group[4].id, digest("a")),
    ]
    assert await tasks_on_record(store) == 2


# -- born running ------------------------------------------------------------------------------------


async def test_a_task_is_born_running_where_it_was_accepted(
    store: Store, world: World, band: Band, me: int
) -> None:
    task = new_task(band, born_on=me)
    [stored] = await world.accept(task)
    assert stored.born
    assert await world.accept(task) == [stored], "a repeat after a lost answer"
    view = await world.view(stored.id)
    assert (view.state, view.attempt, view.node, view.started_at) == (
        State.RUNNING,
        1,
        "me",
        stored.created_at,
    )
    assert await world.pull(band, me) == []
    [held] = await store.held(me)
    assert (held.id, held.attempt, held.incarnation, held.alone) == (stored.id, 1, me, False)


async def test_a_duplicate_is_not_born_again(store: Store, world: World, band: Band, me: int) -> None:
    await world.accept(new_task(band, key="k"))
    [[answer]] = await store.accept([[new_task(band, key="k", born_on=me)]])
    assert isinstance(answer, Duplicate)
    assert await store.held(me) == []


async def test_born_and_waiting_tasks_of_one_batch_keep_their_order(
    store: Store, world: World, band: Band, me: int
) -> None:
    ids = [new_id() for _ in range(6)]
    await store.accept(
        [[new_task(band, id=task_id, born_on=me if n % 2 else None) for n, task_id in enumerate(ids)]]
    )
    assert [held.id for held in sorted(await store.held(me), key=lambda held: held.id)] == ids[1::2]
    assert [claim.id for claim in await world.pull(band, me)] == ids[::2]


@pytest.mark.parametrize("fate", ["dead", "left", "lease run out", "never was"])
async def test_no_task_is_born_on_an_incarnation_that_is_not_alive(
    store: Store, world: World, band: Band, fate: str
) -> None:
    match fate:
        case "dead":
            nobody = await world.dead_member()
        case "left":
            nobody = await world.member()
            await store.set_state(nobody, "left")
        case "lease run out":
            nobody = await world.member(lease_s=-1)
        case _:
            nobody = 999_999
    task = new_task(band, born_on=nobody)
    [stored] = await world.accept(task)
    assert not stored.born, "whoever accepted it must not run it: somebody will claim it"
    assert await world.accept(task) == [stored]
    view = await world.view(stored.id)
    assert (view.state, view.attempt) == (State.READY, 0)
    assert await store.held(nobody) == []


async def test_a_task_that_is_due_later_is_not_born_running(
    store: Store, world: World, band: Band, me: int
) -> None:
    run_at = await store.now() + timedelta(seconds=60)
    await world.accept(new_task(band, born_on=me, delay_s=60), new_task(band, born_on=me, run_at=run_at))
    assert await store.held(me) == []
    await world.advance(60)
    assert [claim.attempt for claim in await world.pull(band, me)] == [1, 1]


@pytest.mark.parametrize("state", ["joining", "active", "draining"])
async def test_a_task_is_born_in_every_living_state(
    store: Store, world: World, band: Band, state: str
) -> None:
    incarnation = await store.join("n", 60, {})
    await store.set_state(incarnation, state)
    [stored] = await world.accept(new_task(band, born_on=incarnation))
    assert (await world.view(stored.id)).state is State.RUNNING
