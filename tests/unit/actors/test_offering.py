"""Offers from one node to another over a broker: what is sent within credit, what comes of it, and who acknowledges."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from actors.authoring.registry import Kind
from actors.executor import offers
from runtime.core.messages import ITEMS_MAX, Credit, Offer, Waiting
from runtime.core.task import Paused, State
from runtime.errors import Unavailable
from tests.support.factories import new_id
from tests.support.offer_rig import ROOM, Spot, Spots, quick, spots, threaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from actors.router.offering import Ready
    from runtime.core.task import Claim

_BOTH = (quick, threaded)


@pytest.fixture
async def two() -> AsyncIterator[Spots]:
    async with spots(_BOTH, _BOTH) as made:
        yield made


@pytest.fixture
def near(two: Spots) -> Spot:
    """Where tasks are accepted."""
    return next(iter(two.values()))


@pytest.fixture
def far(two: Spots) -> Spot:
    """Whose slots they have. Its credit is known."""
    return list(two.values())[1]


async def granted(near: Spot, far: Spot) -> None:
    near.credit_of(far)[:] = far.offers.grant()


async def route(near: Spot, tasks: Sequence[Ready]) -> None:
    near.offering.route(tasks)
    await near.spots.settled()


def ids(items: Sequence[Claim | Ready]) -> list[UUID]:
    return [item.id for item in items]


# -- sending ----------------------------------------------------------------------------------------


async def test_what_belongs_to_another_is_offered_in_one_message_and_claimed_there(
    two: Spots, near: Spot, far: Spot
) -> None:
    await granted(near, far)
    tasks = await two.waiting(far, ROOM)
    await route(near, tasks)
    [delivery] = far.deliveries
    assert delivery.offer == Offer(1, near.incarnation, tuple((one.id, 1) for one in tasks), 0)
    assert sorted(ids(far.started)) == sorted(ids(tasks))
    assert near.here == [], "nobody else has to look"
    assert near.counted == {"offer_messages_total": 1, "tasks_offered_total": ROOM}
    views = await two.store.get_many(ids(tasks))
    assert {(view.state, view.node) for view in views} == {(State.RUNNING, "n1")}


async def test_what_belongs_here_is_looked_for_here(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    tasks = await two.waiting(near, 2)
    await route(near, tasks)
    assert near.here == [{tasks[0].band}]
    assert far.deliveries == []


async def test_credit_is_spent_and_beyond_it_there_is_a_hint_and_a_look_here(
    two: Spots, near: Spot, far: Spot
) -> None:
    near.credit_of(far)[:] = [3, 0, 0]
    tasks = await two.waiting(far, 5)
    await route(near, tasks)
    assert [len(delivery.offer.items) for delivery in far.deliveries] == [3]
    assert Waiting((tasks[0].band,)) in far.told(), "the owner pulls the rest"
    assert near.here == [{tasks[0].band}], "or this node, if it has room"
    assert near.credit_of(far)[0] == 0
    await route(near, tasks[3:])
    assert len(far.deliveries) == 1, "without credit nothing is offered"


async def test_kinds_of_bodies_have_credit_of_their_own(two: Spots, near: Spot, far: Spot) -> None:
    near.credit_of(far)[:] = [0, 2, 0]
    await route(near, [*await two.waiting(far, 1), *await two.waiting(far, 2, name="threaded")])
    [delivery] = far.deliveries
    assert (delivery.offer.kind, len(delivery.offer.items)) == (1, 2)
    assert [claim.kind for claim in far.claimed] == [Kind.THREAD]


async def test_a_message_never_holds_more_ids_than_the_wire_takes(two: Spots, near: Spot, far: Spot) -> None:
    near.credit_of(far)[:] = [10 * ITEMS_MAX, 0, 0]
    [one] = await two.waiting(far, 1)
    await route(near, [one] * (ITEMS_MAX + 1))
    assert [len(delivery.offer.items) for delivery in far.deliveries] == [ITEMS_MAX]
    assert near.here == [{one.band}]


async def test_an_offer_that_is_refused_is_looked_for_here_and_its_credit_is_gone(
    two: Spots, near: Spot, far: Spot
) -> None:
    await granted(near, far)
    far.broker.close()  # its inbox is gone, the view does not know yet
    tasks = await two.waiting(far, 2)
    await route(near, tasks)
    assert near.here == [{tasks[0].band}]
    assert near.credit_of(far) == [], "until it is heard again"


async def test_without_a_reachable_broker_it_is_looked_for_here(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    near.broker.cut()
    tasks = await two.waiting(far, 2)
    await route(near, tasks)
    assert near.here == [{tasks[0].band}]
    assert near.credit_of(far)[0] == ROOM, "nothing was spent"


async def test_messages_of_actors_are_never_offered(two: Spots, near: Spot, far: Spot) -> None:
    """They wait for their turn with the owner of the key."""
    await granted(near, far)
    key = new_id()
    [at_far], [at_near] = await two.waiting(far, 1), await two.waiting(near, 1)
    await route(near, [replace(at_far, actor=key)])
    assert (far.deliveries, near.here, near.mail) == ([], [], [])
    assert far.told() == [Waiting((at_far.band,))]
    await route(near, [replace(at_near, actor=key)])
    assert near.mail == [(key, at_near.band)]
    assert far.told() == []


# -- receiving --------------------------------------------------------------------------------------


async def test_an_offer_is_acknowledged_after_its_claim_and_not_before(
    two: Spots, near: Spot, far: Spot, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, unsettled = two.store.claim, []

    async def claim(offers: Sequence[tuple[UUID, int]], incarnation: int) -> list[Claim]:
        unsettled.append(len(far.broker._unsettled))
        return await real(offers, incarnation)

    monkeypatch.setattr(two.store, "claim", claim)
    await granted(near, far)
    await route(near, await two.waiting(far, 2))
    assert unsettled == [1], "it would be lost with this process"
    assert len(far.broker._unsettled) == 0, "and nothing is held while it runs"


async def test_an_offer_whose_claim_failed_is_acknowledged_too(two: Spots, near: Spot, far: Spot) -> None:
    async def away(*_: object) -> list[Claim]:
        raise Unavailable("the record is away")

    two.store.claim = away  # type: ignore[method-assign]
    await granted(near, far)
    await route(near, await two.waiting(far, 2))
    assert len(far.broker._unsettled) == 0
    assert [(answer.failed, answer.asked) for answer in far.claimed] == [(True, 2)]
    far.run()
    assert far.capacity.taken == 0


async def test_an_offer_that_somebody_else_was_faster_with_leaves_its_room_free(
    two: Spots, near: Spot, far: Spot
) -> None:
    await granted(near, far)
    tasks = await two.waiting(far, 3)
    await two.store.claim([(tasks[0].id, 1)], near.incarnation)
    await route(near, tasks)
    assert sorted(ids(far.started)) == sorted(ids(tasks[1:]))
    far.run()
    assert far.capacity.taken == 2


async def test_an_offer_comes_twice_and_is_claimed_once(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    tasks = await two.waiting(far, 2)
    await route(near, tasks)
    await near.broker.offer(far.incarnation, far.deliveries[0].offer)
    await two.settled()
    assert len(far.started) == 2


async def test_what_this_node_cannot_run_is_handed_back() -> None:
    """As when the sender went by an older view."""
    async with spots(_BOTH, (threaded,)) as two:
        near, far = two.values()
        tasks = await two.waiting(near, 1)
        await near.broker.offer(far.incarnation, Offer(1, near.incarnation, ((tasks[0].id, 1),)))
        await two.settled()
        assert far.started == []
        [view] = await two.store.get_many(ids(tasks))
        assert (view.state, view.failures, view.crashes) == (State.READY, 0, 0), "no budget is burnt"
        far.run()
        assert far.capacity.taken == 0


async def test_what_is_paused_is_handed_back(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    tasks = await two.waiting(far, 1)
    far.capacity.paused = Paused(frozenset({"quick"}))
    await route(near, tasks)
    assert far.started == []
    [view] = await two.store.get_many(ids(tasks))
    assert view.state is State.READY


async def test_a_kind_that_this_release_does_not_know_is_given_up(two: Spots, near: Spot, far: Spot) -> None:
    [one] = await two.waiting(far, 1)
    await near.broker.offer(far.incarnation, Offer(1, near.incarnation, ((one.id, 1),), kind=7))
    await two.settled()
    assert (far.claimed, len(far.broker._unsettled)) == ([], 0)


# -- a full node ------------------------------------------------------------------------------------


async def test_a_full_node_keeps_offers_until_there_is_room(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    far.capacity.take(Kind.ASYNC, ROOM - 1)
    tasks = await two.waiting(far, 3)
    await route(near, tasks)
    assert (len(far.started), len(far.broker._unsettled)) == (1, 1), "acknowledged when all of it is claimed"
    far.run()
    far.capacity.give_back(Kind.ASYNC, ROOM)
    far.offers.claim(Kind.ASYNC)
    await two.settled()
    assert sorted(ids(far.started)) == sorted(ids(tasks[1:]))
    assert len(far.broker._unsettled) == 0


async def test_a_full_node_gives_offers_up_after_five_seconds(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    far.capacity.take(Kind.ASYNC, ROOM)
    tasks = await two.waiting(far, 2)
    await route(near, tasks)
    two.now_s = 5.0
    far.offers.tick()
    assert len(far.broker._unsettled) == 1
    two.now_s = 5.1
    far.offers.tick()
    assert len(far.broker._unsettled) == 0
    far.capacity.give_back(Kind.ASYNC, ROOM)
    far.offers.tick()
    await two.settled()
    assert far.started == []
    assert {view.state for view in await two.store.get_many(ids(tasks))} == {State.READY}, "others find them"


async def test_a_node_that_drains_gives_all_offers_up_at_once(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    far.capacity.take(Kind.ASYNC, ROOM)
    await route(near, await two.waiting(far, 2))
    far.capacity.close("drain")
    far.offers.tick()
    assert len(far.broker._unsettled) == 0


async def test_an_executor_that_ends_gives_all_offers_up(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    far.capacity.take(Kind.ASYNC, ROOM)
    await route(near, await two.waiting(far, 2))
    far.offers.close()
    assert len(far.broker._unsettled) == 0


async def test_no_more_offers_wait_than_there_is_place_for(two: Spots, near: Spot, far: Spot) -> None:
    far.capacity.take(Kind.ASYNC, ROOM)
    [one] = await two.waiting(far, 1)
    for _ in range(5):
        await near.broker.offer(far.incarnation, Offer(1, near.incarnation, ((one.id, 1),) * 1_000))
    await two.settled()
    assert len(far.broker._unsettled) == 4, "the fifth is given up as it comes"


async def test_place_for_offers_is_free_again_when_they_are_claimed_or_given_up(
    two: Spots, near: Spot, far: Spot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "_WAITING_MAX", 3)
    for _ in range(2):
        near.credit_of(far)[:] = [3, 0, 0]
        tasks = await two.waiting(far, 3)
        await route(near, tasks)
        assert sorted(ids(far.started)) == sorted(ids(tasks))
        far.run()
    far.capacity.take(Kind.ASYNC, ROOM)
    for _ in range(2):
        near.credit_of(far)[:] = [3, 0, 0]
        await route(near, await two.waiting(far, 3))
        assert len(far.broker._unsettled) == 1
        two.now_s += 6
        far.offers.tick()


# -- credit -----------------------------------------------------------------------------------------


async def ended(spot: Spot, kind: Kind, count: int) -> None:
    for _ in range(count):
        spot.capacity.end(kind)


def credit_told(spot: Spot) -> list[tuple[int, ...]]:
    return [message.credits for message in spot.told() if isinstance(message, Credit)]


async def test_credit_is_renewed_when_half_of_it_is_spent(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    await route(near, await two.waiting(far, ROOM // 2))
    far.run()
    await two.settled()
    assert credit_told(near) == [], "they have all that there is room for"
    await ended(far, Kind.ASYNC, ROOM // 2)
    await route(near, await two.waiting(far, 1))
    far.run()
    await two.settled()
    assert credit_told(near) == [(ROOM - 1, 4, 1)]
    assert near.credit_of(far) == [ROOM - 1, 4, 1]


async def test_what_was_claimed_and_will_start_is_no_room(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    await route(near, await two.waiting(far, ROOM))
    far.run()
    await two.settled()
    assert near.credit_of(far)[0] == 0
    assert far.capacity.room(Kind.ASYNC) == 0


async def test_credit_is_renewed_without_an_offer_when_bodies_end(two: Spots, near: Spot, far: Spot) -> None:
    far.capacity.take(Kind.ASYNC, ROOM - 2)
    await granted(near, far)
    assert near.credit_of(far)[0] == 2
    far.offers.tick()
    await two.settled()
    assert credit_told(near) == []
    await ended(far, Kind.ASYNC, ROOM - 2)
    far.offers.tick()
    await two.settled()
    assert credit_told(near) == [(ROOM, 4, 1)]
    far.offers.tick()
    await two.settled()
    assert credit_told(near) == [], "told once"


async def test_credit_is_taken_back_as_soon_as_there_is_a_backlog(two: Spots, near: Spot, far: Spot) -> None:
    await granted(near, far)
    [one] = await two.waiting(far, 1)
    far.capacity.put_in_backlog(one.band, Kind.ASYNC)
    far.offers.tick()
    await two.settled()
    assert credit_told(near) == [(0, 4, 1)]


async def test_who_does_not_hear_renews_no_credit(two: Spots, near: Spot, far: Spot) -> None:
    far.capacity.take(Kind.ASYNC, ROOM)
    await granted(near, far)
    await ended(far, Kind.ASYNC, ROOM)
    far.broker.reachable = False
    far.offers.tick()
    await two.settled()
    far.broker.reachable = True
    assert credit_told(near) == []
    far.offers.tick()
    await two.settled()
    assert credit_told(near) == [(ROOM, 4, 1)]


async def test_the_window_is_shared_out_among_the_others() -> None:
    async with spots(_BOTH, _BOTH, _BOTH) as three:
        first, *_ = three.values()
        assert first.offers.grant() == (ROOM // 2, 2, 1)
