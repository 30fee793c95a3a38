"""Turns of keyed actors: the lock of a key, order, the state and its version, all or nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from runtime.core.keyed import Ask, Turn, TurnEnd, actor_id
from runtime.core.task import (
    AttemptKind,
    Claim,
    Finish,
    Lane,
    NewTask,
    Requeue,
    Settlement,
    State,
    TaskFilter,
    Verdict,
)
from tests.support.factories import cancelled, failed, new_id, new_task, requeue, settlement, succeeded

if TYPE_CHECKING:
    from runtime.core.task import Band
    from runtime.ports import Store
    from tests.contract.world import World

NOBODY = UUID(int=0)
ACCOUNT = "account"


def actor(key: str = "42", tenant: str = "default") -> UUID:
    return actor_id(tenant, ACCOUNT, key)


@pytest.fixture
async def band(world: World) -> Band:
    return await world.band("account.deposit", keyed=True)


async def send(world: World, band: Band, key: str = "42", **fields: Any) -> NewTask:
    return await world.submit(band, actor_type=ACCOUNT, actor_key=key, **fields)


async def begin(
    world: World, bands: Band | list[int], me: int, *keys: str, alone: bool = False, **how: Any
) -> list[Turn]:
    asks = [Ask(**({"actor": actor(key), "limit": 10} | how)) for key in keys or ("42",)]
    numbers = bands if isinstance(bands, list) else [bands.id]
    return await world.store.begin_turns(asks, numbers, me, alone=alone)


async def begin_one(world: World, band: Band, me: int, **how: Any) -> Turn:
    [turn] = await begin(world, band, me, **how)
    return turn


def ended(
    turn: Turn, me: int, *moves: Finish | Requeue, state: bytes | None = b'{"n": 1}', **fields: Any
) -> TurnEnd:
    """All messages with these moves; all succeeded where none are given."""
    every = moves or (succeeded(),) * len(turn.claims)
    settlements = tuple(settlement(claim, me, move) for claim, move in zip(turn.claims, every, strict=True))
    defaults: dict[str, Any] = {"version": turn.version, "state": state, "state_version": 1}
    return TurnEnd(actor=turn.actor, settlements=settlements, **(defaults | fields))


async def end(store: Store, turn: Turn, me: int, *moves: Finish | Requeue, **fields: Any) -> Verdict:
    [verdict] = await store.end_turns([ended(turn, me, *moves, **fields)])
    return verdict


def ids(claims: tuple[Claim, ...]) -> list[UUID]:
    return [claim.id for claim in claims]


# -- beginning ---------------------------------------------------------------------------------------


async def test_a_turn_holds_the_messages_in_order(store: Store, world: World, band: Band, me: int) -> None:
    sent = [await send(world, band) for _ in range(4)]
    turn = await begin_one(world, band, me, limit=3)
    assert (turn.actor, turn.version, turn.state_version, turn.state) == (actor(), 0, 0, None)
    assert ids(turn.claims) == [task.id for task in sent[:3]]
    assert [claim.attempt for claim in turn.claims] == [1, 1, 1]
    assert (turn.claims[0].actor_key, turn.claims[0].slot) == ("42", sent[0].slot)
    assert {(await world.view(task.id)).state for task in sent[:3]} == {State.RUNNING}
    assert (await world.view(sent[3].id)).state is State.READY
    assert sorted(o.id for o in await store.held(me)) == sorted(ids(turn.claims))


async def test_a_busy_key_begins_no_second_turn(store: Store, world: World, band: Band, me: int) -> None:
    other = await world.member("other")
    first, second = await send(world, band), await send(world, band)
    turn = await begin_one(world, band, me, limit=1)
    assert await begin(world, band, other) == []
    assert await begin(world, band, me) == []
    assert await end(store, turn, me) is Verdict.COMMITTED
    later = await begin_one(world, band, other)
    assert (ids(turn.claims), ids(later.claims)) == ([first.id], [second.id])
    assert later.fence > turn.fence


async def test_keys_are_apart(store: Store, world: World, band: Band, me: int) -> None:
    for key in ("a", "b", "c"):
        await send(world, band, key)
    await send(world, band, "a", tenant="other")
    turns = await begin(world, band, me, "a", "b", "nobody")
    assert {turn.actor for turn in turns} == {actor("a"), actor("b")}
    assert [len(turn.claims) for turn in turns] == [1, 1]
    assert len(await begin(world, band, me, "c")) == 1
    [foreign] = await store.begin_turns([Ask(actor=actor("a", "other"), limit=9)], [band.id], me)
    assert len(foreign.claims) == 1


async def test_who_is_not_alive_begins_nothing(world: World, band: Band) -> None:
    await send(world, band)
    assert await begin(world, band, await world.dead_member()) == []
    late = await world.member("late", lease_s=1.0)
    await world.advance(2.0)
    assert await begin(world, band, late) == []


async def test_plain_claims_leave_messages_alone(store: Store, world: World, band: Band, me: int) -> None:
    task = await send(world, band)
    assert await store.claim([(task.id, 1)], me) == []
    assert await world.pull(band, me) == []
    born = new_task(band, actor_type=ACCOUNT, actor_key="42", born_on=me)
    [stored] = await world.accept(born)
    assert not stored.born
    assert ids((await begin_one(world, band, me)).claims) == [task.id, born.id]


async def test_each_turn_is_of_the_first_lane_that_can_go(world: World, me: int) -> None:
    low = await world.band("account.deposit", Lane.LOW, keyed=True)
    high = await world.band("account.deposit", Lane.HIGH, keyed=True)
    first, second = await send(world, low), await send(world, high)
    turn = (await begin(world, [low.id, high.id], me))[0]
    assert ids(turn.claims) == [second.id]
    assert await end(world.store, turn, me) is Verdict.COMMITTED
    turn = (await begin(world, [low.id, high.id], me))[0]
    assert ids(turn.claims) == [first.id]


# -- the head of the line ----------------------------------------------------------------------------


async def test_a_head_that_waits_holds_up_its_lane(store: Store, world: World, band: Band, me: int) -> None:
    head, second = await send(world, band), await send(world, band)
    turn = await begin_one(world, band, me, limit=1)
    assert await end(store, turn, me, requeue(delay_s=60.0), state=None) is Verdict.COMMITTED
    assert await begin(world, band, me) == []
    await world.advance(61.0)
    turn = await begin_one(world, band, me)
    assert ids(turn.claims) == [head.id, second.id]
    assert [claim.attempt for claim in turn.claims] == [2, 1]


async def test_a_parked_head_is_passed(store: Store, world: World, band: Band, me: int) -> None:
    head, second = await send(world, band), await send(world, band)
    turn = await begin_one(world, band, me, limit=1)
    assert await end(store, turn, me, requeue(delay_s=60.0), state=None) is Verdict.COMMITTED
    turn = await begin_one(world, band, me, passes=True)
    assert ids(turn.claims) == [second.id]
    assert await end(store, turn, me) is Verdict.COMMITTED
    await world.advance(61.0)
    assert ids((await begin_one(world, band, me, passes=True)).claims) == [head.id]


async def test_a_future_due_time_holds_up_nobody(world: World, band: Band, me: int) -> None:
    later, now = await send(world, band, delay_s=60.0), await send(world, band)
    turn = await begin_one(world, band, me)
    assert ids(turn.claims) == [now.id]
    assert await end(world.store, turn, me) is Verdict.COMMITTED
    await world.advance(61.0)
    last = await send(world, band)
    assert ids((await begin_one(world, band, me)).claims) == [later.id, last.id]


@pytest.mark.parametrize("passes", [False, True])
async def test_a_head_that_is_not_served_here(world: World, band: Band, me: int, *, passes: bool) -> None:
    paused = await world.band("account.close", keyed=True)
    first = await send(world, band)
    await send(world, paused)
    last = await send(world, band)
    turn = await begin_one(world, band, me, passes=passes)
    assert ids(turn.claims) == ([first.id, last.id] if passes else [first.id])


async def test_a_suspect_begins_only_alone(store: Store, world: World, band: Band, me: int) -> None:
    head, second = await send(world, band), await send(world, band)
    turn = await begin_one(world, band, me, limit=1)
    crash = requeue(AttemptKind.CRASHED, suspect=True)
    assert await store.settle([settlement(turn.claims[0], me, crash)]) == [Verdict.COMMITTED]
    assert await begin(world, band, me) == []
    [turn] = await begin(world, [-band.id], me, alone=True)
    assert (ids(turn.claims), turn.claims[0].alone, turn.claims[0].band) == ([head.id], True, band.id)
    assert await end(store, turn, me) is Verdict.COMMITTED
    assert ids((await begin_one(world, band, me)).claims) == [second.id]


async def test_a_cancelled_head_lets_the_next_one_go(store: Store, world: World, band: Band, me: int) -> None:
    head, second = await send(world, band), await send(world, band)
    assert (await store.cancel(head.id)).state is State.CANCELLED
    assert ids((await begin_one(world, band, me)).claims) == [second.id]


async def test_a_replayed_message_comes_before_younger_ones(
    store: Store, world: World, band: Band, me: int
) -> None:
    head = await send(world, band)
    assert await end(store, await begin_one(world, band, me), me, failed(), state=None) is Verdict.COMMITTED
    second = await send(world, band)
    await store.replay(head.id)
    turn = await begin_one(world, band, me)
    assert ids(turn.claims) == [head.id, second.id]
    assert turn.claims[0].attempt == 2


# -- the state ---------------------------------------------------------------------------------------


async def test_state_outcomes_and_children_commit_together(
    store: Store, world: World, band: Band, me: int
) -> None:
    await send(world, band)
    await send(world, band)
    turn = await begin_one(world, band, me)
    child = new_task(band, actor_type=ACCOUNT, actor_key="other")
    moves = (succeeded(b"1", children=(child,)), succeeded(b"2"))
    assert await end(store, turn, me, *moves, state=b'{"balance": 2}', state_version=3) is Verdict.COMMITTED
    views = [await world.view(claim.id) for claim in turn.claims]
    assert [(view.state, view.result) for view in views] == [(State.SUCCEEDED, b"1"), (State.SUCCEEDED, b"2")]
    assert (await world.view(child.id)).state is State.READY
    await send(world, band)
    turn = await begin_one(world, band, me)
    assert (turn.version, turn.state_version, turn.state) == (1, 3, b'{"balance": 2}')


async def test_a_known_state_is_not_sent_again(store: Store, world: World, band: Band, me: int) -> None:
    await send(world, band)
    assert await end(store, await begin_one(world, band, me), me, state=b"{}") is Verdict.COMMITTED
    for known, state in ((1, None), (0, b"{}"), (-1, b"{}"), (2, b"{}")):
        await send(world, band)
        turn = await begin_one(world, band, me, known=known)
        assert (turn.version, turn.state) == (1, state)
        assert await end(store, turn, me, state=None) is Verdict.COMMITTED


async def test_a_turn_from_an_older_state_commits_nothing(
    store: Store, world: World, band: Band, me: int
) -> None:
    await send(world, band)
    assert await end(store, await begin_one(world, band, me), me, state=b'{"n": 1}') is Verdict.COMMITTED
    await send(world, band)
    child = new_task(band)
    turn = await begin_one(world, band, me)
    stale = ended(turn, me, succeeded(b"late", children=(child,)), state=b'{"n": 9}', version=0)
    assert await store.end_turns([stale]) == [Verdict.FENCED]
    assert (await world.view(turn.claims[0].id)).state is State.RUNNING
    assert await store.get(child.id) is None
    assert await end(store, turn, me, state=b'{"n": 2}') is Verdict.COMMITTED
    await send(world, band)
    assert (await begin_one(world, band, me)).state == b'{"n": 2}'


async def test_a_turn_of_which_one_message_was_taken_away_commits_nothing(
    store: Store, world: World, band: Band, me: int
) -> None:
    for _ in range(2):
        await send(world, band)
    turn = await begin_one(world, band, me)
    assert await store.settle([settlement(turn.claims[1], me, requeue())]) == [Verdict.COMMITTED]
    assert await end(store, turn, me) is Verdict.FENCED
    assert (await world.view(turn.claims[0].id)).state is State.RUNNING
    assert await store.settle([settlement(turn.claims[0], me, requeue())]) == [Verdict.COMMITTED]
    later = await begin_one(world, band, me)
    assert (later.version, later.state, ids(later.claims)) == (0, None, ids(turn.claims))


async def test_a_newer_state_is_not_loaded(store: Store, world: World, band: Band, me: int) -> None:
    await send(world, band)
    turn = await begin_one(world, band, me, loads=2)
    assert await end(store, turn, me, state_version=2) is Verdict.COMMITTED
    await send(world, band)
    assert await begin(world, band, me, loads=1) == []
    assert len(await begin(world, band, me, loads=2)) == 1


async def test_others_of_a_batch_commit_without_those_that_fall(
    store: Store, world: World, band: Band, me: int
) -> None:
    for key in ("a", "b", "c", "d"):
        await send(world, band, key)
    turns = {turn.actor: turn for turn in await begin(world, band, me, "a", "b", "c", "d")}
    a, b, c, d = (turns[actor(key)] for key in ("a", "b", "c", "d"))
    ends = [
        ended(a, me),
        ended(b, me, version=7),
        ended(c, me + 1000),
        ended(d, me, failed(), state=None),
    ]
    verdicts = await store.end_turns(ends)
    assert verdicts == [Verdict.COMMITTED, Verdict.FENCED, Verdict.FENCED, Verdict.COMMITTED]
    assert [len(turn.claims) for turn in await begin(world, band, me, "a", "b", "c", "d")] == []
    assert sorted(o.id for o in await store.held(me)) == sorted(ids(b.claims) + ids(c.claims))


async def test_a_repeated_end_is_told_as_committed(store: Store, world: World, band: Band, me: int) -> None:
    for _ in range(2):
        await send(world, band)
    turn = await begin_one(world, band, me)
    moves = (succeeded(), requeue(delay_s=5.0))
    for _ in range(3):
        assert await end(store, turn, me, *moves, state=b"{}") is Verdict.COMMITTED
    await world.advance(6.0)
    later = await begin_one(world, band, me)
    assert (later.version, ids(later.claims)) == (1, [turn.claims[1].id])
    other = replace(ended(turn, me, succeeded(), succeeded()), version=1)
    assert await store.end_turns([other]) == [Verdict.FENCED]


async def test_what_the_record_refuses_falls_alone(store: Store, world: World, band: Band, me: int) -> None:
    await world.submit(band, key="taken", request="a")
    for key in ("a", "b"):
        await send(world, band, key)
    a, b = await begin(world, band, me, "a", "b")
    child = new_task(band, key="taken", request="b")
    verdicts = await store.end_turns([ended(a, me, succeeded(children=(child,))), ended(b, me)])
    assert verdicts == [Verdict.REFUSED, Verdict.COMMITTED]
    assert await end(store, a, me, failed(), state=None) is Verdict.COMMITTED
    await send(world, band, "a")
    await send(world, band, "b")
    versions = {turn.actor: turn.version for turn in await begin(world, band, me, "a", "b")}
    assert versions == {a.actor: 0, b.actor: 1}


# -- crashes -----------------------------------------------------------------------------------------


async def test_what_a_dead_node_ran_goes_first_again(store: Store, world: World, band: Band, me: int) -> None:
    gone = await world.member("gone")
    sent = [await send(world, band) for _ in range(3)]
    turn = await begin_one(world, band, gone, limit=2)
    await world.declare_dead(gone)
    assert await begin(world, band, me) == [], "not before what it ran is back in the line"
    orphans = await store.orphans(10)
    assert [orphan.id for orphan in orphans] == ids(turn.claims)
    back = requeue(AttemptKind.CRASHED)
    assert await store.settle([settlement(o, gone, back) for o in orphans]) == [Verdict.COMMITTED] * 2
    later = await begin_one(world, band, me)
    assert ids(later.claims) == [sent[0].id]
    assert await end(store, turn, gone) is Verdict.FENCED
    assert await end(store, later, me) is Verdict.COMMITTED


async def test_a_zombie_commits_nothing_while_another_runs(
    store: Store, world: World, band: Band, me: int
) -> None:
    zombie = await world.member("zombie")
    await send(world, band)
    old = await begin_one(world, band, zombie)
    await store.settle([settlement(old.claims[0], zombie, requeue())])
    new = await begin_one(world, band, me)
    assert await end(store, old, zombie, state=b'{"n": 9}') is Verdict.FENCED
    assert await end(store, new, me, state=b'{"n": 1}') is Verdict.COMMITTED
    await send(world, band)
    assert (await begin_one(world, band, me)).state == b'{"n": 1}'


async def test_what_met_a_crash_has_a_turn_of_its_own(
    store: Store, world: World, band: Band, me: int
) -> None:
    sent = [await send(world, band) for _ in range(4)]
    turn = await begin_one(world, band, me, limit=2)
    back = [settlement(claim, me, requeue(AttemptKind.CRASHED)) for claim in turn.claims]
    assert await store.settle(back) == [Verdict.COMMITTED] * 2
    for expected in (sent[:1], sent[1:2], sent[2:]):
        turn = await begin_one(world, band, me)
        assert ids(turn.claims) == [task.id for task in expected]
        assert await end(store, turn, me) is Verdict.COMMITTED


async def test_messages_of_a_turn_are_apart_on_record(
    store: Store, world: World, band: Band, me: int
) -> None:
    for _ in range(2):
        await send(world, band)
    turn = await begin_one(world, band, me)
    await world.advance(10.0)
    ages = ((8.0, 6.0), (6.0, 1.0))
    settlements = tuple(
        Settlement(claim.id, claim.attempt, me, move, *age)
        for claim, move, age in zip(turn.claims, (succeeded(), requeue()), ages, strict=True)
    )
    assert await store.end_turns([replace(ended(turn, me), settlements=settlements)]) == [Verdict.COMMITTED]
    first = await world.view(turn.claims[0].id)
    [second] = await store.attempts(turn.claims[1].id)
    assert first.started_at is not None
    assert first.finished_at is not None
    assert second.started_at is not None
    assert (first.finished_at - first.started_at).total_seconds() == pytest.approx(2.0)
    assert (second.ended_at - second.started_at).total_seconds() == pytest.approx(5.0)
    assert second.started_at >= first.finished_at


# -- mail --------------------------------------------------------------------------------------------


async def test_mail_names_each_lane_once(store: Store, world: World, band: Band, me: int) -> None:
    high = await world.band("account.deposit", Lane.HIGH, keyed=True)
    assert await store.mail(NOBODY, 10) == []
    for key in ("a", "b", "c"):
        for _ in range(5):
            await send(world, band, key)
    first = await send(world, high, "b")
    await send(world, band, "later", delay_s=60.0)
    await world.submit(band)
    told = await store.mail(NOBODY, 10)
    assert [(m.actor, m.lane) for m in told] == sorted(
        [(actor("a"), 1), (actor("b"), 0), (actor("b"), 1), (actor("c"), 1), (actor("later"), 1)]
    )
    by_lane = {(m.actor, m.lane): m for m in told}
    assert by_lane[actor("b"), Lane.HIGH].band == high.id
    assert by_lane[actor("b"), Lane.HIGH].slot == first.slot
    assert by_lane[actor("later"), Lane.MEDIUM].band == 0
    assert {m.busy for m in told} == {False}


async def test_mail_goes_on_where_it_ended(store: Store, world: World, band: Band, me: int) -> None:
    for n in range(7):
        await send(world, band, str(n))
    seen: list[UUID] = []
    after = NOBODY
    while some := await store.mail(after, 3):
        seen += [m.actor for m in some]
        after = seen[-1]
    assert seen == sorted(actor(str(n)) for n in range(7))


async def test_mail_says_who_is_busy_and_which_state_there_is(
    store: Store, world: World, band: Band, me: int
) -> None:
    for _ in range(3):
        await send(world, band)
    turn = await begin_one(world, band, me, limit=1)
    assert await end(store, turn, me, state_version=4) is Verdict.COMMITTED
    await begin_one(world, band, me, limit=1)
    [told] = await store.mail(NOBODY, 10)
    assert (told.busy, told.state_version, told.band) == (True, 4, band.id)


async def test_cancelling_what_runs_is_asked_of_its_node(
    store: Store, world: World, band: Band, me: int
) -> None:
    task = await send(world, band)
    turn = await begin_one(world, band, me)
    assert (await store.cancel(task.id)).cancel_requested_at is not None
    assert await store.cancel_requests(me) == [(task.id, 1)]
    assert await end(store, turn, me, cancelled(), state=None) is Verdict.COMMITTED
    assert (await world.view(task.id)).state is State.CANCELLED
    assert (await store.list(TaskFilter(actor_key="42"), 10)).tasks[0].id == task.id


# -- at the same time --------------------------------------------------------------------------------


async def test_of_many_that_begin_at_once_one_gets_the_key(store: Store, world: World, band: Band) -> None:
    members = [await world.member(f"n{n}") for n in range(6)]
    for _ in range(12):
        await send(world, band)
    for expected in range(12):
        turns = await asyncio.gather(*(begin(world, band, member, limit=1) for member in members))
        got = [(member, turn) for member, some in zip(members, turns, strict=True) for turn in some]
        assert len(got) == 1
        member, turn = got[0]
        assert turn.version == expected
        assert await end(store, turn, member, state=str(expected).encode()) is Verdict.COMMITTED


async def test_nothing_is_lost_or_done_twice_by_many_that_work_at_once(
    store: Store, world: World, band: Band
) -> None:
    """Each state is the list of messages; whatever overlaps, it ends as what was sent, in order."""
    keys = ["a", "b", "c"]
    sent: dict[str, list[UUID]] = {key: [] for key in keys}
    members = [await world.member(f"n{n}") for n in range(4)]

    async def produce(key: str) -> None:
        for _ in range(25):
            sent[key].append((await send(world, band, key)).id)

    async def work(member: int) -> None:
        idle = 0
        while idle < 60:
            turns = await begin(world, band, member, *keys, limit=3)
            idle = idle + 1 if not turns else 0
            ends = []
            for turn in turns:
                before = turn.state.decode().split() if turn.state else []
                after = " ".join([*before, *(str(claim.id) for claim in turn.claims)])
                ends.append(ended(turn, member, state=after.encode()))
            for verdict in await store.end_turns(ends):
                assert verdict is Verdict.COMMITTED
            await asyncio.sleep(0)

    await asyncio.gather(*map(produce, keys), *map(work, members))
    assert await store.mail(NOBODY, 10) == []
    for key in keys:
        await send(world, band, key)
        [turn] = await begin(world, band, members[0], key)
        assert (turn.state or b"").decode().split() == [str(task_id) for task_id in sent[key]]


async def test_wrong_asks_are_nothing(store: Store, world: World, band: Band, me: int) -> None:
    assert await store.begin_turns([], [band.id], me) == []
    assert await store.end_turns([]) == []
    await send(world, band)
    assert await begin(world, [], me) == []
    unknown = TurnEnd(actor=actor("x"), version=0, settlements=(Settlement(new_id(), 1, me, succeeded()),))
    assert await store.end_turns([unknown]) == [Verdict.FENCED]
