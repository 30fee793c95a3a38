"""Views in PostgreSQL: who comes second waits and loses, a lost answer is settled, and the log costs the same for ever."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.core.view import VIEWS_KEPT, View, view_to_json
from runtime.errors import Unavailable
from tests.support.measured_session import MeasuredSession
from tests.support.pg_proxy import Cut, CutSession, pg_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ALL: Final = 1_000_000
PAGES: Final = 60  # of a proposal: ways down two indexes, what is written, what is trimmed


@pytest.fixture
async def admin(pg_dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(pg_dsn)
    yield connection
    await connection.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_proposal_whose_commit_is_in_doubt_is_settled(pg_dsn: str, when: Cut) -> None:
    async with pg_proxy(pg_dsn) as proxy:
        session = CutSession.at(proxy)
        async with PostgresStore.open(proxy.dsn, answer_s=20, session=session) as store:
            coordinator = store.coordinator
            views = [View(number=number, by=1) for number in range(1, 10)]
            for view in views[:8]:  # every connection has prepared its statements
                assert await coordinator.propose(view)
            session.plan["propose_view"] = when
            assert await coordinator.propose(views[8])
            assert proxy.cuts == 1
            assert await coordinator.history(ALL) == views[::-1]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_who_comes_second_waits_for_who_came_first(
    pg_dsn: str, admin: asyncpg.Connection[Any], end: str
) -> None:
    first, second = View(number=1, by=1), View(number=1, by=2)
    async with PostgresStore.open(pg_dsn, answer_s=20) as store:
        transaction = admin.transaction()
        await transaction.start()
        text = json.dumps(view_to_json(first))
        await admin.execute("UPDATE noria.view SET number = 1, view = $1", text)
        await admin.execute("INSERT INTO noria.view_log (number, view) VALUES (1, $1)", text)
        proposing = asyncio.create_task(store.coordinator.propose(second))
        watcher = await asyncpg.connect(pg_dsn)
        while not await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not proposing.done()
        await watcher.close()
        await (transaction.commit() if end == "commit" else transaction.rollback())
        assert await proposing is (end == "rollback")
        winner = first if end == "commit" else second
        assert await store.coordinator.view() == winner
        assert await store.coordinator.history(ALL) == [winner]


async def test_a_full_log_is_trimmed_and_costs_no_more_than_an_empty_one(
    pg_dsn: str, admin: asyncpg.Connection[Any]
) -> None:
    await admin.execute("ALTER TABLE noria.view_log SET (autovacuum_enabled = off)")
    session = MeasuredSession.fresh()
    async with PostgresStore.open(pg_dsn, answer_s=20, session=session) as store:
        coordinator = store.coordinator
        for number in range(1, 9):  # planned while there is nothing
            assert await coordinator.propose(View(number=number))
            await coordinator.history(10)
        await admin.execute(
            "INSERT INTO noria.view_log (number, view) "
            "SELECT n, jsonb_set((SELECT view FROM noria.view), '{number}', to_jsonb(n)) FROM generate_series(9, $1) n",
            VIEWS_KEPT + 8,
        )
        await admin.execute("UPDATE noria.view SET number = $1", VIEWS_KEPT + 8)
        session.costs.clear()
        for number in range(VIEWS_KEPT + 9, VIEWS_KEPT + 17):
            assert await coordinator.propose(View(number=number))
            assert len(await coordinator.history(10)) == 10
        log = [
            row["number"] for row in await admin.fetch("SELECT number FROM noria.view_log ORDER BY number")
        ]
        assert log == list(range(17, VIEWS_KEPT + 17))
        proposals, looks = session.costs["propose_view"], session.costs["view_history"]
        # the first one trims what stood there before all of them, and the dead stay in the index for a while
        assert [cost for cost in proposals[1:] if cost.pages > PAGES or cost.scanned > PAGES] == []
        assert [cost for cost in looks if cost.pages > PAGES or cost.scanned > 0] == []


async def test_the_row_never_changes_without_the_log(pg_dsn: str) -> None:
    """The row and its log are one statement: a number that the log has already would tear them apart."""
    async with PostgresStore.open(pg_dsn) as store:
        admin = await asyncpg.connect(pg_dsn)
        await admin.execute("INSERT INTO noria.view_log (number, view) VALUES (1, '{}')")
        await admin.close()
        with pytest.raises(Exception, match="view_log_pkey"):
            await store.coordinator.propose(View(number=1))
        assert (await store.coordinator.view()).number == 0


async def test_newer_ends_when_postgresql_falls_silent_and_misses_nothing(pg_dsn: str) -> None:
    async with pg_proxy(pg_dsn) as proxy, PostgresStore.open(pg_dsn) as other:
        async with PostgresStore.open(proxy.dsn, answer_s=0.5) as store:
            waiting = asyncio.create_task(store.coordinator.newer(0, 30))
            assert await store.coordinator.newer(0, 0.1) is None
            proxy.fall_silent()
            with pytest.raises(Unavailable):
                await waiting
            for number in (1, 2, 3):
                assert await other.coordinator.propose(View(number=number))
            proxy.talk_again()
            async with asyncio.timeout(10):
                assert await _after(store) == View(number=3)


async def _after(store: PostgresStore) -> View | None:
    while True:
        try:
            return await store.coordinator.newer(0, 5)
        except Unavailable:
            await asyncio.sleep(0.05)  # it fails at once while PostgreSQL is known to be away
