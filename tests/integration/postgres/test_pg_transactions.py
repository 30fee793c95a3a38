"""What becomes of a handler's writes, by what the record says to the outcome that they are to commit with."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.adapters.postgres.transactions import PostgresTransactions
from runtime.core.task import BandKey, Claim, Finish, Lane, Settlement, State, Status, Take, Verdict
from runtime.errors import TransactionRefused, Unavailable
from tests.support.factories import new_task, settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime.core.task import NewTask


class Scene:
    def __init__(self, store: PostgresStore, transactions: PostgresTransactions, app: Any, me: int) -> None:
        self.store, self.transactions, self.app, self.me = store, transactions, app, me

    async def claim(self) -> Claim:
        [band] = await self.store.intern([BandKey("echo", Lane.MEDIUM)])
        await self.store.accept([[new_task(band)]])
        [claim] = await self.store.pull([Take(band.id, 1)], self.me)
        return claim

    async def written(self) -> int:
        return int(await self.app.fetchval("SELECT count(*) FROM effect"))

    def done(self, claim: Claim, *children: NewTask) -> Settlement:
        return settlement(claim, self.me, Finish(status=Status.SUCCEEDED, result=b"1", children=children))


@pytest.fixture
async def scene(pg_each_dsn: str) -> AsyncIterator[Scene]:
    async with opened(pg_each_dsn) as made:
        yield made


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Scene]:
    app = await asyncpg.connect(dsn)
    try:
        await app.execute("CREATE TABLE effect (name text UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        async with PostgresStore.open(dsn) as store, PostgresTransactions.open(dsn, 2) as transactions:
            yield Scene(store, transactions, app, await store.join("me", 3600, {}))
    finally:
        await app.close()


async def test_all_or_nothing(scene: Scene) -> None:
    """Committed; fenced, for another attempt runs; refused, for a child's key is that of a different request."""
    claim = await scene.claim()
    held = await scene.transactions.begin()
    await held.connection.execute("INSERT INTO effect VALUES ('a')")
    child = new_task(claim.band, key="k", request="a")
    assert await held.commit(scene.done(claim, child)) is Verdict.COMMITTED
    await held.roll_back()  # over is over
    view = await scene.store.get(claim.id)
    assert view is not None
    assert (view.state, await scene.written()) == (State.SUCCEEDED, 1)
    assert await scene.store.get(child.id) is not None

    claim = await scene.claim()
    held = await scene.transactions.begin()
    await held.connection.execute("INSERT INTO effect VALUES ('b')")
    await scene.app.execute("UPDATE noria.running SET attempt = 2 WHERE id = $1", claim.id)
    assert await held.commit(scene.done(claim)) is Verdict.FENCED

    claim = await scene.claim()
    held = await scene.transactions.begin()
    await held.connection.execute("INSERT INTO effect VALUES ('c')")
    assert await held.commit(scene.done(claim, new_task(claim.band, key="k", request="b"))) is Verdict.REFUSED
    view = await scene.store.get(claim.id)
    assert view is not None
    assert (view.state, await scene.written()) == (State.RUNNING, 1)


async def test_what_cannot_commit_says_whether_anything_may_be_there(scene: Scene) -> None:
    claim = await scene.claim()
    held = await scene.transactions.begin()
    await held.connection.execute("INSERT INTO effect VALUES ('a'), ('a')")  # found out at the commit
    with pytest.raises(TransactionRefused, match="duplicate key") as refused:
        await held.commit(scene.done(claim))
    assert isinstance(refused.value.__cause__, asyncpg.UniqueViolationError)

    held = await scene.transactions.begin()
    await held.connection.execute("INSERT INTO effect VALUES ('b')")
    pid = await held.connection.fetchval("SELECT pg_backend_pid()")
    await scene.app.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    with pytest.raises(Unavailable):
        await held.commit(scene.done(claim))
    assert await scene.written() == 0

    held = await scene.transactions.begin()
    await held.connection.execute("INSERT INTO effect VALUES ('c')")
    assert await held.commit(scene.done(claim)) is Verdict.COMMITTED
    assert await scene.written() == 1


async def test_nothing_of_one_is_left_to_the_next(scene: Scene) -> None:
    """Settings, locks and temporary names of a handler end with it, and it plans as the server is set up."""
    for _ in range(3):
        held = await scene.transactions.begin()
        shown = {
            name: await held.connection.fetchval(f"SHOW {name}")
            for name in ("enable_seqscan", "search_path", "statement_timeout", "transaction_isolation")
        }
        assert shown == {
            "enable_seqscan": "on",
            "search_path": '"$user", public',
            "statement_timeout": "0",
            "transaction_isolation": "read committed",
        }
        await held.connection.execute(
            "SET search_path = pg_temp; SET statement_timeout = '1s'; SET enable_seqscan = off"
        )
        await held.commit(scene.done(await scene.claim()))
        with pytest.raises(asyncpg.InterfaceError):
            await held.connection.execute("SELECT 1")
