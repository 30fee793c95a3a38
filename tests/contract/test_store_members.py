"""Leases: who is alive, by one clock; who may bury whom; what is terminal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runtime.errors import IncarnationDead, InvalidInput
from tests.contract.world import LEASE_S

if TYPE_CHECKING:
    from runtime.core.task import NodeView
    from runtime.ports import Store
    from tests.contract.world import World


async def node(store: Store, incarnation: int) -> NodeView:
    [view] = [view for view in await store.nodes() if view.incarnation == incarnation]
    return view


async def unbroken(world: World, name: str = "witness") -> int:
    """A member that has been alive for more than one lease and has most of it left."""
    incarnation = await world.store.join(name, LEASE_S, {})
    await world.keep_alive(incarnation)
    return incarnation


# -- join, renew, states -----------------------------------------------------------------------------


async def test_every_start_is_a_new_incarnation_with_a_greater_number(store: Store) -> None:
    numbers = [await store.join(name, 10, {}) for name in ("a", "b", "a", "a")]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 0


async def test_starts_at_the_same_time_are_different_incarnations(store: Store) -> None:
    numbers = await asyncio.gather(*(store.join("a", 10, {}) for _ in range(20)))
    assert len(set(numbers)) == 20


async def test_a_new_incarnation_is_seen_joining(store: Store) -> None:
    about = {"tags": ["gpu"], "handlers": {"echo": "d1"}, "address": None, "weight": 1.5}
    before = await store.now()
    incarnation = await store.join("ä", 60, about)
    view = await node(store, incarnation)
    assert (view.node, view.state, view.about) == ("ä", "joining", about)
    assert view.started_at >= before
    assert 50 < view.alive_for_s <= 60


@pytest.mark.parametrize("state", ["joining", "active", "draining", "left"])
async def test_a_state_is_seen(store: Store, state: str) -> None:
    incarnation = await store.join("a", 60, {})
    other = await store.join("b", 60, {})
    await store.set_state(incarnation, state)
    assert (await node(store, incarnation)).state == state
    assert (await node(store, other)).state == "joining"


@pytest.mark.parametrize("state", ["dead", "", "Active", "gone"])
async def test_no_other_state_can_be_set(store: Store, state: str) -> None:
    incarnation = await store.join("a", 60, {})
    with pytest.raises(InvalidInput):
        await store.set_state(incarnation, state)
    assert (await node(store, incarnation)).state == "joining"


async def test_a_renewal_grants_the_lease_anew(store: Store, world: World) -> None:
    incarnation = await store.join("a", 60, {})
    await world.advance(50)
    assert (await node(store, incarnation)).alive_for_s < 11
    assert await store.renew(incarnation, 30) == pytest.approx(30)
    assert 20 < (await node(store, incarnation)).alive_for_s <= 30


async def test_what_a_renewal_tells_is_read_by_all_until_the_next_tells_otherwise(store: Store) -> None:
    incarnation, other = await store.join("a", 60, {"tags": ["x"]}), await store.join("b", 60, {})
    assert (await node(store, incarnation)).load == {}
    told = {"running": 3, "handlers": {"echo": [1.5, 0.0]}}
    await store.renew(incarnation, 60, told)
    await store.renew(incarnation, 60)
    view = await node(store, incarnation)
    assert (view.load, view.about) == (told, {"tags": ["x"]})
    await store.renew(incarnation, 60, {})
    assert (await node(store, incarnation)).load == {}
    assert (await node(store, other)).load == {}


async def test_a_lease_runs_out_below_zero(store: Store, world: World) -> None:
    incarnation = await store.join("a", 60, {})
    await world.advance(70)
    assert -20 < (await node(store, incarnation)).alive_for_s <= -10
    assert (await node(store, incarnation)).state == "joining"  # nobody has declared it dead


async def test_a_lease_that_ran_out_is_renewed_while_nobody_has_declared_it_dead(
    store: Store, world: World
) -> None:
    incarnation = await world.member(lease_s=1)
    await world.advance(60)
    await store.renew(incarnation, 60)
    assert (await node(store, incarnation)).alive_for_s > 50


# -- terminal states ---------------------------------------------------------------------------------


async def gone(world: World, fate: str) -> int:
    if fate == "dead":
        return await world.dead_member("gone")
    if fate == "never was":
        return 999_999
    incarnation = await world.member("gone")
    await world.store.set_state(incarnation, "left")
    return incarnation


@pytest.mark.parametrize("fate", ["dead", "left", "never was"])
async def test_who_is_gone_cannot_renew(store: Store, world: World, fate: str) -> None:
    incarnation = await gone(world, fate)
    with pytest.raises(IncarnationDead):
        await store.renew(incarnation, 60)


@pytest.mark.parametrize("fate", ["dead", "left", "never was"])
@pytest.mark.parametrize("state", ["joining", "active", "draining"])
async def test_who_is_gone_does_not_come_back(store: Store, world: World, fate: str, state: str) -> None:
    incarnation = await gone(world, fate)
    with pytest.raises(IncarnationDead):
        await store.set_state(incarnation, state)
    if fate != "never was":
        assert (await node(store, incarnation)).state == fate


async def test_the_dead_cannot_leave_and_leaving_twice_is_no_error(store: Store, world: World) -> None:
    dead, left = await gone(world, "dead"), await gone(world, "left")
    with pytest.raises(IncarnationDead):
        await store.set_state(dead, "left")
    await store.set_state(left, "left")
    assert (await node(store, dead)).state == "dead"


async def test_the_gone_are_shown_for_an_hour(store: Store, world: World) -> None:
    dead, left = await gone(world, "dead"), await gone(world, "left")
    stays = await world.member("stays")
    await world.advance(3500)
    assert {view.incarnation for view in await store.nodes()} >= {dead, left, stays}
    await world.advance(200)
    shown = {view.incarnation for view in await store.nodes()}
    assert stays in shown
    assert not shown & {dead, left}


# -- drain -------------------------------------------------------------------------------------------


async def test_who_is_asked_to_drain_sees_it_and_no_other_does(store: Store, world: World) -> None:
    asked, other = await world.member("a"), await world.member("b")
    assert await store.request_drain("a")
    assert await store.request_drain("a")  # repeatable
    assert [(await node(store, one)).drain_requested for one in (asked, other)] == [True, False]
    assert (await node(store, asked)).state == "active"  # that it drains, it says itself


async def test_asking_is_seen_until_the_end(store: Store, world: World) -> None:
    asked = await world.member("a")
    await store.request_drain("a")
    await store.renew(asked, 60)
    await store.set_state(asked, "draining")
    assert (await node(store, asked)).drain_requested


async def test_all_living_incarnations_of_a_node_are_asked(store: Store, world: World) -> None:
    """One that was killed may not have been buried when the next one starts."""
    both = [await world.member("a") for _ in range(2)]
    assert await store.request_drain("a")
    assert all([(await node(store, one)).drain_requested for one in both])


@pytest.mark.parametrize("fate", ["dead", "left", "never was"])
async def test_where_nobody_lives_nobody_is_asked(store: Store, world: World, fate: str) -> None:
    incarnation = await gone(world, fate)
    assert not await store.request_drain("gone")
    if fate != "never was":
        assert not (await node(store, incarnation)).drain_requested


async def test_a_later_start_of_the_node_was_not_asked(store: Store, world: World) -> None:
    asked = await world.member("a")
    await store.request_drain("a")
    await store.set_state(asked, "left")
    again = await world.member("a")
    assert not (await node(store, again)).drain_requested


# -- bury --------------------------------------------------------------------------------------------


async def test_a_lease_that_ran_out_is_buried_once(store: Store, world: World) -> None:
    witness = await unbroken(world)
    late = [await store.join(name, -1, {}) for name in ("a", "b")]
    alive = await store.join("c", LEASE_S, {})
    assert sorted(await store.bury(witness, LEASE_S)) == late
    assert await store.bury(witness, LEASE_S) == []
    states = {view.incarnation: view.state for view in await store.nodes()}
    assert states == {witness: "joining", late[0]: "dead", late[1]: "dead", alive: "joining"}


async def test_the_departed_are_not_buried(store: Store, world: World) -> None:
    witness = await unbroken(world)
    left = await store.join("a", -1, {})
    await store.set_state(left, "left")
    assert await store.bury(witness, LEASE_S) == []
    assert (await node(store, left)).state == "left"


@pytest.mark.parametrize("state", ["joining", "active", "draining"])
async def test_every_living_state_can_be_buried(store: Store, world: World, state: str) -> None:
    witness = await unbroken(world)
    late = await store.join("a", -1, {})
    await store.set_state(late, state)
    assert await store.bury(witness, LEASE_S) == [late]


async def test_who_just_joined_buries_nobody(store: Store, world: World) -> None:
    late = await store.join("late", -1, {})
    newcomer = await store.join("new", LEASE_S, {})
    assert await store.bury(newcomer, LEASE_S) == []
    for _ in range(2):
        await world.advance(0.4 * LEASE_S)
        await store.renew(newcomer, LEASE_S)
        assert await store.bury(newcomer, LEASE_S) == []  # not yet one lease
    await world.advance(0.4 * LEASE_S)
    assert await store.bury(newcomer, LEASE_S) == [late]


async def test_who_had_lost_its_own_lease_buries_nobody(store: Store, world: World) -> None:
    witness, other = await store.join("witness", LEASE_S, {}), await store.join("other", LEASE_S, {})
    await world.keep_alive(witness, other)
    await world.advance(1.1 * LEASE_S)  # the record was away: all leases ran out
    assert await store.bury(witness, LEASE_S) == []  # it has not even come back itself
    await store.renew(witness, LEASE_S)
    assert await store.bury(witness, LEASE_S) == []  # it came back first, and kills nobody
    await store.renew(other, LEASE_S)
    late = await store.join("late", -1, {})
    await world.advance(0.4 * LEASE_S)
    assert await store.bury(witness, LEASE_S) == []
    await world.keep_alive(witness, other)
    assert await store.bury(witness, LEASE_S) == [late]  # unbroken again for a lease


async def test_a_renewal_that_came_late_begins_a_new_unbroken_time(store: Store, world: World) -> None:
    """A record that stood still for two thirds of a lease may have held up the others for longer."""
    witness, late = await unbroken(world), await store.join("late", -1, {})
    await store.renew(witness, LEASE_S)
    await world.advance(0.7 * LEASE_S)
    assert await store.bury(witness, LEASE_S) == []  # it ought to have renewed by now
    await store.renew(witness, LEASE_S)
    assert await store.bury(witness, LEASE_S) == []
    await world.keep_alive(witness)
    assert await store.bury(witness, LEASE_S) == [late]


async def test_who_has_a_longer_lease_is_given_as_long(store: Store, world: World) -> None:
    witness = await store.join("witness", LEASE_S, {})
    slow = await store.join("slow", 2 * LEASE_S, {})
    await store.renew(slow, 2 * LEASE_S)
    await world.keep_alive(witness)
    assert await store.bury(witness, 0.1 * LEASE_S) == []  # alive
    await world.keep_alive(witness)
    assert await store.bury(witness, 0.1 * LEASE_S) == [slow]
    newcomer = await store.join("newcomer", LEASE_S, {})
    await store.set_state(witness, "left")
    slow = await store.join("slow", 3 * LEASE_S, {})
    await world.advance(-10 * LEASE_S)  # the clock steps back: all leases have run out
    await store.renew(newcomer, LEASE_S)
    await world.keep_alive(newcomer)
    assert await store.bury(newcomer, LEASE_S) == []  # unbroken for its own lease, not for that of the other
    await world.keep_alive(newcomer)
    await world.keep_alive(newcomer)
    assert await store.bury(newcomer, LEASE_S) == [slow]


async def test_regular_renewals_do_not_break_a_lease(store: Store, world: World) -> None:
    witness = await store.join("witness", LEASE_S, {})
    late = await store.join("late", -1, {})
    for _ in range(4):
        await world.advance(0.3 * LEASE_S)
        await store.renew(witness, LEASE_S)
    assert await store.bury(witness, LEASE_S) == [late]


@pytest.mark.parametrize("fate", ["dead", "left", "never was"])
async def test_the_gone_bury_nobody(store: Store, world: World, fate: str) -> None:
    late = await store.join("late", LEASE_S, {})
    witness = await gone(world, fate)
    await store.renew(late, -1)
    await world.advance(5 * LEASE_S)
    assert await store.bury(witness, 0.1) == []
    assert (await node(store, late)).state == "joining"


async def test_nobody_buries_itself(store: Store, world: World) -> None:
    witness = await unbroken(world)
    await store.renew(witness, -1)
    assert await store.bury(witness, LEASE_S) == []
    assert (await node(store, witness)).state == "joining"


async def test_many_bury_the_same_members_once(store: Store, world: World) -> None:
    witnesses = [await store.join(f"w{n}", LEASE_S, {}) for n in range(4)]
    await world.keep_alive(*witnesses)
    late = [await store.join(f"late{n}", -1, {}) for n in range(10)]
    buried = await asyncio.gather(*(store.bury(witness, LEASE_S) for witness in witnesses))
    assert sorted(incarnation for some in buried for incarnation in some) == late


async def test_renewal_and_death_at_the_same_time_agree(store: Store, world: World) -> None:
    witness = await unbroken(world)
    late = [await store.join(f"late{n}", -1, {}) for n in range(20)]

    async def renewed(incarnation: int) -> bool:
        try:
            await store.renew(incarnation, LEASE_S)
        except IncarnationDead:
            return False
        return True

    renewals = asyncio.gather(*map(renewed, late))
    buried, alive = await asyncio.gather(store.bury(witness, LEASE_S), renewals)
    assert set(buried) == {incarnation for incarnation, yes in zip(late, alive, strict=True) if not yes}
    for incarnation, yes in zip(late, alive, strict=True):
        assert (await node(store, incarnation)).state == ("joining" if yes else "dead")


# -- a clock that steps back -------------------------------------------------------------------------


async def test_a_lease_further_away_than_was_granted_has_run_out(store: Store, world: World) -> None:
    stale = await store.join("stale", LEASE_S, {})
    witness = await store.join("witness", LEASE_S, {})
    await world.advance(-50 * LEASE_S)
    await store.renew(witness, LEASE_S)  # its own was too far away: a new unbroken time begins
    assert await store.bury(witness, LEASE_S) == []
    await world.keep_alive(witness)
    assert await store.bury(witness, LEASE_S) == [stale]


async def test_a_longer_lease_than_the_witness_has_is_no_fault(store: Store, world: World) -> None:
    witness = await unbroken(world)
    longer = await store.join("longer", 100 * LEASE_S, {})
    assert await store.bury(witness, LEASE_S) == []
    assert (await node(store, longer)).state == "joining"
