"""Nobody without a fault of its own is declared dead: what PostgreSQL does to all at once kills nobody.

Time passes by moving the instants on record back, so nothing waits.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.adapters.postgres.lease import open_lease
from runtime.adapters.postgres.queries import SQL
from runtime.errors import IncarnationDead, SettingsError, Unavailable
from tests.support.pg_proxy import pg_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEASE_S = 100.0


class Scene:
    def __init__(self, store: PostgresStore, admin: asyncpg.Connection[Any]) -> None:
        self.store = store
        self.admin = admin

    async def pass_(self, leases: float) -> None:
        """So many leases of time."""
        await self.admin.execute(
            "UPDATE noria.lease SET alive_until = alive_until - $1 * interval '1 second', "
            "unbroken_since = unbroken_since - $1 * interval '1 second'",
            leases * LEASE_S,
        )

    async def member(self, name: str, lease_s: float = LEASE_S) -> int:
        return await self.store.join(name, lease_s, {})

    async def steady(self, *members: int, leases: float = 1.25) -> None:
        """All renew four times a lease, for as long."""
        for _ in range(round(leases * 4)):
            await self.pass_(0.25)
            for member in members:
                await self.store.renew(member, LEASE_S)

    async def bury(self, by: int) -> list[int]:
        return await self.store.bury(by, LEASE_S)


@pytest.fixture
async def scene(pg_dsn: str) -> AsyncIterator[Scene]:
    admin = await asyncpg.connect(pg_dsn)
    async with PostgresStore.open(pg_dsn) as store:
        yield Scene(store, admin)
    await admin.close()


async def test_who_stopped_is_buried_by_one_that_went_on(scene: Scene) -> None:
    witness, gone = await scene.member("witness"), await scene.member("gone")
    await scene.steady(witness, gone)
    await scene.steady(witness, leases=0.75)
    assert await scene.bury(witness) == []  # its lease has not run out
    await scene.steady(witness, leases=0.5)
    assert await scene.bury(witness) == [gone]
    with pytest.raises(IncarnationDead, match="gone is dead"):
        await scene.store.renew(gone, LEASE_S)


@pytest.mark.parametrize("stall", [0.5, 0.6, 0.65, 0.7, 0.8, 0.95, 1.5, 50])
async def test_a_record_that_stood_still_for_all_kills_nobody(scene: Scene, stall: float) -> None:
    """A freeze, a failover, a long lock: some leases have run out, others not quite. Who comes back first must not take
    the others for dead, however its own last renewal fell."""
    first, late = await scene.member("first"), await scene.member("late")
    await scene.steady(first, late)
    await scene.pass_(1 / 3)  # `late` was just about to renew …
    await scene.store.renew(first, LEASE_S)  # … as `first` still could
    await scene.pass_(stall)
    assert await scene.bury(first) == []  # it has not even looked at its own lease
    await scene.store.renew(first, LEASE_S)
    assert await scene.bury(first) == []
    await scene.store.renew(late, LEASE_S)
    await scene.steady(first, late, leases=2)
    assert await scene.bury(first) == []
    await scene.steady(first, leases=1.25)
    assert await scene.bury(first) == [late]  # and who then really goes is found


async def test_another_start_of_postgresql_makes_everybody_wait_for_a_lease(scene: Scene) -> None:
    witness, gone = await scene.member("witness"), await scene.member("gone")
    await scene.steady(witness, gone)
    await scene.steady(witness, leases=1.25)
    await scene.admin.execute(
        "UPDATE noria.lease SET server = server - 1"
    )  # as a restart or failover leaves it
    assert await scene.bury(witness) == []
    await scene.store.renew(witness, LEASE_S)
    assert await scene.bury(witness) == []
    await scene.steady(witness, leases=0.75)
    assert await scene.bury(witness) == []
    await scene.steady(witness, leases=0.5)
    assert await scene.bury(witness) == [gone]


async def test_a_clock_that_steps_back_or_forward_kills_nobody(scene: Scene) -> None:
    one, other, gone = [await scene.member(name) for name in ("one", "other", "gone")]
    await scene.steady(one, other, gone)
    for step in (-500.0, 500.0):
        await scene.pass_(step)
        assert await scene.bury(one) == []
        await scene.store.renew(one, LEASE_S)
        assert await scene.bury(one) == []
        await scene.steady(one, other, leases=0.75)
        assert await scene.bury(one) == []
        if step < 0:
            await scene.store.renew(gone, LEASE_S)
        await scene.steady(one, other, leases=0.5)
    assert await scene.bury(one) == [gone]


async def test_a_witness_must_be_unbroken_for_the_longer_of_both_leases(scene: Scene) -> None:
    """Its own lease is short, so it has long been in order again; the other needs more time to come back."""
    slow = await scene.member("slow", 10 * LEASE_S)
    witness = await scene.member("witness")
    await scene.pass_(50)
    await scene.store.renew(witness, LEASE_S)
    await scene.steady(witness, leases=5)
    assert await scene.bury(witness) == []
    await scene.steady(witness, leases=6)
    assert await scene.bury(witness) == [slow]


async def test_a_renewal_under_way_is_neither_waited_for_nor_overruled(scene: Scene) -> None:
    witness, slow = await scene.member("witness"), await scene.member("slow")
    await scene.steady(witness, leases=2.5)
    async with scene.admin.transaction():
        await scene.admin.execute(
            "UPDATE noria.lease SET alive_until = clock_timestamp() + interval '1 hour', lease_s = 3600 "
            "WHERE incarnation = $1",
            slow,
        )
        async with asyncio.timeout(1):
            assert await scene.bury(witness) == []
    assert await scene.bury(witness) == []
    assert await scene.store.renew(slow, LEASE_S) == LEASE_S


# -- the lease's own connection ----------------------------------------------------------------------


async def test_a_lease_lives_in_a_thread_and_loop_of_its_own(pg_dsn: str, scene: Scene) -> None:
    granted: list[float] = []
    incarnations: list[int] = []

    async def keep() -> None:
        async with open_lease(pg_dsn) as lease:
            incarnations.append(await lease.join("threaded", LEASE_S, {"a": 1}))
            granted.extend([await lease.renew(incarnations[0], LEASE_S) for _ in range(5)])

    thread = threading.Thread(target=lambda: asyncio.run(keep()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert granted == [LEASE_S] * 5
    [view] = await scene.store.nodes()
    assert (view.incarnation, view.node, view.about) == (incarnations[0], "threaded", {"a": 1})


async def test_a_lease_reads_that_it_is_dead(pg_dsn: str, scene: Scene) -> None:
    async with open_lease(pg_dsn) as lease:
        incarnation = await lease.join("n", LEASE_S, {})
        await scene.store.set_state(incarnation, "left")
        with pytest.raises(IncarnationDead, match="n is left"):
            await lease.renew(incarnation, LEASE_S)
        with pytest.raises(IncarnationDead, match="not on record"):
            await lease.renew(incarnation + 1, LEASE_S)


async def test_a_lease_does_not_hang_on_a_silent_server(pg_dsn: str) -> None:
    async with pg_proxy(pg_dsn) as proxy:
        async with open_lease(proxy.dsn, answer_s=0.2) as lease:
            incarnation = await lease.join("n", LEASE_S, {})
            proxy.fall_silent()
            async with asyncio.timeout(2):
                with pytest.raises(Unavailable):
                    await lease.renew(incarnation, LEASE_S)
        proxy.talk_again()
        async with open_lease(proxy.dsn) as lease:
            assert await lease.renew(incarnation, LEASE_S) == LEASE_S


async def test_a_lease_needs_a_schema(pg_dsn_empty: str) -> None:
    async with open_lease(pg_dsn_empty) as lease:
        with pytest.raises(SettingsError, match="run noria migrate"):
            await lease.renew(1, LEASE_S)


async def test_renewals_leave_no_index_entries_behind(scene: Scene) -> None:
    """They are heap-only updates: no column that an index knows changes, and the page has room, also with all that a
    busy node tells."""
    incarnation = await scene.member("n")
    renew = await scene.admin.prepare(SQL.renew.sql)
    for n in range(50):
        handlers = {f"shop.handler_with_a_long_name_{number}": [n * 1000.1, number] for number in range(20)}
        load = {
            "running": n,
            "limit": 110,
            "rates": {"accepted": n * 1.1, "succeeded": n},
            "handlers": handlers,
        }
        await renew.fetch(incarnation, LEASE_S, json.dumps(load))
    counts = await scene.admin.fetchrow(
        "SELECT pg_stat_get_xact_tuples_hot_updated(c) AS hot, pg_stat_get_xact_tuples_updated(c) AS updated "
        "FROM (SELECT 'noria.lease'::regclass::oid AS c) t"
    )
    assert counts is not None
    assert counts["hot"] == counts["updated"] > 0
