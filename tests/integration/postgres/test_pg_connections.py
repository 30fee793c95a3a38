"""What callers meet when PostgreSQL is silent, gone, busy, pooled, too old, or set up badly."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore, connections
from runtime.adapters.postgres.connections import Connections
from runtime.adapters.postgres.lease import open_lease
from runtime.adapters.postgres.migrate import migrate
from runtime.core.task import (
    BandKey,
    Finish,
    Lane,
    Progress,
    Refused,
    Settlement,
    State,
    Status,
    Take,
    TaskFilter,
)
from runtime.errors import InvalidInput, Overloaded, SettingsError, Unavailable
from tests.support.factories import new_id, new_task, succeeded
from tests.support.pg_pooler import pg_pooler
from tests.support.pg_proxy import pg_proxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ANSWER_S = 0.4
SOON_S = 0.2  # "at once", on a busy machine


async def until_answered(store: PostgresStore) -> None:
    """It comes back by itself; asking is the only way to see it."""
    async with asyncio.timeout(20):
        while True:
            try:
                await store.now()
            except Unavailable:
                await asyncio.sleep(0)
            else:
                return


def calls(store: PostgresStore) -> list[Callable[[], Awaitable[object]]]:
    """One of each duty that somebody waits for."""
    end = Settlement(new_id(), 1, 1, Finish(status=Status.SUCCEEDED))
    return [
        lambda: store.accept([[new_task(1)]]),
        lambda: store.accept([[new_task(1, key="a"), new_task(1, key="b")]]),
        lambda: store.claim([(new_id(), 1)], 1),
        lambda: store.pull([Take(1, 1)], 1),
        lambda: store.settle([end]),
        lambda: store.get(new_id()),
        lambda: store.list(TaskFilter(), 10),
        lambda: store.cancel(new_id()),
        lambda: store.renew(1, 60),
        store.now,
    ]


# -- silent, gone, back ------------------------------------------------------------------------------


async def test_a_silent_server_is_unavailable_in_time_then_at_once_and_comes_back(pg_dsn: str) -> None:
    async with pg_proxy(pg_dsn) as proxy, PostgresStore.open(proxy.dsn, answer_s=ANSWER_S) as store:
        proxy.fall_silent()
        async with asyncio.timeout(ANSWER_S + SOON_S):
            answers = await asyncio.gather(*(call() for call in calls(store) * 5), return_exceptions=True)
        assert {type(answer) for answer in answers} <= {Unavailable}
        async with asyncio.timeout(SOON_S):  # now it is known
            answers = await asyncio.gather(*(call() for call in calls(store) * 5), return_exceptions=True)
        assert {type(answer) for answer in answers} <= {Unavailable}
        proxy.talk_again()
        await until_answered(store)
        assert await store.get(new_id()) is None


async def test_a_server_that_is_gone_is_unavailable_at_once_and_comes_back(pg_dsn: str) -> None:
    async with pg_proxy(pg_dsn) as proxy, PostgresStore.open(proxy.dsn, answer_s=30) as store:
        await proxy.refuse()
        async with asyncio.timeout(2):
            answers = await asyncio.gather(*(call() for call in calls(store) * 5), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        async with asyncio.timeout(1):
            for call in calls(store):
                with pytest.raises(Unavailable):
                    await call()
        await proxy.start()
        await until_answered(store)


async def test_lost_connections_are_not_noticed_by_those_who_may_repeat(pg_dsn: str) -> None:
    async with pg_proxy(pg_dsn) as proxy, PostgresStore.open(proxy.dsn, answer_s=20) as store:
        [band] = await store.intern([BandKey("echo", Lane.MEDIUM)])
        me = await store.join("me", 3600, {})
        for _ in range(3):
            task = new_task(band)
            proxy.break_all()
            await store.accept([[task]])
            [claim] = await store.claim([(task.id, 1)], me)
            proxy.break_all()
            await store.settle([Settlement(claim.id, 1, me, succeeded())])
            proxy.break_all()
            view = await store.get(task.id)
            assert view is not None
            assert view.state is State.SUCCEEDED


async def test_backends_that_an_operator_ends_are_replaced(pg_dsn: str) -> None:
    async with PostgresStore.open(pg_dsn, answer_s=20) as store:
        admin = await asyncpg.connect(pg_dsn)
        for _ in range(3):
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'noria %' AND datname = current_database()"
            )
            assert await store.get(new_id()) is None
            await store.accept([])
        await admin.close()


async def test_a_lock_that_somebody_holds_is_waited_for_and_no_longer_than_promised(pg_dsn: str) -> None:
    async with PostgresStore.open(pg_dsn, answer_s=ANSWER_S) as store:
        [band] = await store.intern([BandKey("echo", Lane.MEDIUM)])
        task = new_task(band)
        await store.accept([[task]])
        admin = await asyncpg.connect(pg_dsn)
        async with admin.transaction():
            await admin.execute("SELECT FROM noria.waiting WHERE id = $1 FOR UPDATE", task.id)
            with pytest.raises(Unavailable):
                await store.cancel(task.id)
        await admin.close()
        await until_answered(store)
        view = await store.get(task.id)
        assert view is not None
        assert view.state in {State.READY, State.CANCELLED}  # the server may have gone on after we had left


async def test_a_caller_that_gives_up_leaves_the_line_usable(pg_dsn: str) -> None:
    async with PostgresStore.open(pg_dsn, answer_s=20) as store:
        admin = await asyncpg.connect(pg_dsn)
        [band] = await store.intern([BandKey("echo", Lane.MEDIUM)])
        task = new_task(band)
        await store.accept([[task]])
        async with admin.transaction():
            await admin.execute("SELECT FROM noria.waiting WHERE id = $1 FOR UPDATE", task.id)
            for _ in range(6):  # more than there are connections
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await store.cancel(task.id)
            assert await store.get(task.id) is not None
        await admin.close()


async def test_too_many_callers_are_turned_away(pg_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_WAITING_MAX", 5)
    async with pg_proxy(pg_dsn) as proxy, PostgresStore.open(proxy.dsn, answer_s=ANSWER_S) as store:
        proxy.fall_silent()
        answers = await asyncio.gather(*(store.now() for _ in range(30)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Overloaded, Unavailable}
    assert sum(isinstance(answer, Overloaded) for answer in answers) >= 20


async def test_a_closed_store_answers_nobody(pg_dsn: str) -> None:
    async with PostgresStore.open(pg_dsn) as store:
        await store.now()
    with pytest.raises(Unavailable):
        await store.now()


async def test_closing_does_not_hang_on_a_silent_server(pg_dsn: str) -> None:
    async with asyncio.timeout(10), pg_proxy(pg_dsn) as proxy, PostgresStore.open(proxy.dsn):
        proxy.fall_silent()


# -- what is refused at the door ---------------------------------------------------------------------


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        async with PostgresStore.open("postgresql://postgres@127.0.0.1:1/noria?sslmode=disable"):
            pass
    with pytest.raises(Unavailable):
        async with open_lease("postgresql://postgres@127.0.0.1:1/noria?sslmode=disable"):
            pass


@pytest.mark.parametrize(
    "change",
    [
        lambda dsn: re.sub("//[^@]*@", "//nobody_of_that_name:s3cret@", dsn),
        lambda dsn: dsn.replace("?", "_not_there?"),
        lambda _: "mysql://root:s3cret@localhost/x",
        lambda _: "postgresql://root:s3cret@localhost:notaport/x",
    ],
    ids=["user", "database", "scheme", "port"],
)
async def test_a_wrong_dsn_is_a_setting_and_its_password_is_not_repeated(
    pg_dsn: str, change: Callable[[str], str]
) -> None:
    for opened in (PostgresStore.open(change(pg_dsn)), open_lease(change(pg_dsn))):
        with pytest.raises(SettingsError, match="POSTGRES_DSN") as refused:
            async with opened:
                pass
        assert "s3cret" not in str(refused.value)
    with pytest.raises(SettingsError, match="POSTGRES_DSN"):
        await migrate(change(pg_dsn))


async def test_an_old_server_is_refused(pg_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "VERSION_MIN", 99)
    with pytest.raises(SettingsError, match=r"PostgreSQL \d+ is too old; allowed: 99 or newer"):
        async with PostgresStore.open(pg_dsn):
            pass


@pytest.mark.parametrize("rotate", [False, True], ids=["last in, first out", "in turn"])
async def test_transaction_pooling_is_refused(pg_dsn: str, rotate: bool) -> None:
    async with pg_pooler(pg_dsn, by_transaction=True, rotate=rotate) as pooler:
        with pytest.raises(SettingsError, match="session mode"):
            async with PostgresStore.open(pooler.dsn):
                pass


async def test_session_pooling_is_fine(pg_dsn: str) -> None:
    async with pg_pooler(pg_dsn, by_transaction=False) as pooler, PostgresStore.open(pooler.dsn) as store:
        [band] = await store.intern([BandKey("echo", Lane.MEDIUM)])
        await store.accept([[new_task(band, key="a"), new_task(band, key="b")]])
        assert len((await store.list(TaskFilter(), 10)).tasks) == 2


# -- sessions ----------------------------------------------------------------------------------------


async def test_sessions_are_set_up_against_what_a_server_may_have_by_default(pg_dsn: str) -> None:
    admin = await asyncpg.connect(pg_dsn)
    database = await admin.fetchval("SELECT current_database()")
    for setting in (
        "synchronous_commit = off",
        "default_transaction_isolation = serializable",
        "statement_timeout = 1000",
        "enable_indexscan = on",
    ):
        await admin.execute(f'ALTER DATABASE "{database}" SET {setting}')
    await admin.close()
    made = Connections(pg_dsn)
    try:
        for line in (made.accept, made.claim, made.settle, made.read, made.sweep):
            async with line.session() as session:
                shown = {
                    name: await session.connection.fetchval(f"SHOW {name}")
                    for name in (
                        "synchronous_commit", "transaction_isolation", "idle_in_transaction_session_timeout",
                        "statement_timeout", "jit", "enable_seqscan",
                    )
                }  # fmt: skip
            assert shown == {
                "synchronous_commit": "on",
                "transaction_isolation": "read committed",
                "idle_in_transaction_session_timeout": "5s",
                "statement_timeout": "15s",
                "jit": "off",
                "enable_seqscan": "on" if line is made.sweep else "off",
            }
    finally:
        await made.close()


async def test_a_stronger_durability_than_ours_is_kept(pg_dsn: str) -> None:
    admin = await asyncpg.connect(pg_dsn)
    database = await admin.fetchval("SELECT current_database()")
    await admin.execute(f'ALTER DATABASE "{database}" SET synchronous_commit = remote_apply')
    await admin.close()
    made = Connections(pg_dsn)
    try:
        async with made.accept.session() as session:
            assert await session.connection.fetchval("SHOW synchronous_commit") == "remote_apply"
    finally:
        await made.close()


# -- content -----------------------------------------------------------------------------------------


async def test_no_message_repeats_values(pg_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cret-of-a-customer"  # noqa: S105 - that is the point
    async with PostgresStore.open(pg_dsn) as store:
        [band] = await store.intern([BandKey("echo", Lane.MEDIUM)])
        bad: list[dict[str, Any]] = [
            {"key": f"{secret}\0"},
            {"key": f"{secret}\ud800", "slot": 1},
            {"metadata": f'{{"a": "{secret}'.encode()},
            {"metadata": f'"{secret}"'.encode()},
            {"created_by": f"{secret}\udc80"},
            {"prefers": (f"{secret}\0",)},
            {"payload": secret},  # no bytes
        ]
        for fields in bad:
            [[answer]] = await store.accept([[new_task(band, **fields)]])
            assert isinstance(answer, Refused), fields
            assert "s3cret" not in answer.detail
            assert answer.detail
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "surrogate"])
async def test_a_filter_that_is_no_text_is_invalid_input(pg_dsn: str, text: str) -> None:
    async with PostgresStore.open(pg_dsn) as store:
        for which in (TaskFilter(handler=text), TaskFilter(idempotency_key=text), TaskFilter(actor_key=text)):
            await store.intern([BandKey("echo", Lane.MEDIUM)])
            with pytest.raises(InvalidInput):
                await store.list(which, 10)


async def test_progress_is_never_refused_for_its_message(pg_dsn: str) -> None:
    async with PostgresStore.open(pg_dsn) as store:
        [band] = await store.intern([BandKey("echo", Lane.MEDIUM)])
        me = await store.join("me", 3600, {})
        tasks = [new_task(band, born_on=me) for _ in range(3)]
        await store.accept([tasks])
        messages = dict(zip(tasks, ("a\0b", "a\ud800b", "ab"), strict=True))
        await store.report_progress(
            me, {(task.id, 1): Progress(done=1, message=text) for task, text in messages.items()}
        )
        seen = {view.id: view.progress for view in await store.get_many([task.id for task in tasks])}
        expected = [Progress(done=1, message=text) for text in ("a\ufffdb", "a?b", "ab")]
        assert [seen[task.id] for task in tasks] == expected


async def test_ids_leave_as_plain_uuids(pg_dsn: str) -> None:
    """asyncpg's own class is one that serializers do not know."""
    async with PostgresStore.open(pg_dsn) as store:
        [band] = await store.intern([BandKey("echo", Lane.MEDIUM)])
        me = await store.join("me", 3600, {})
        [[stored]] = await store.accept([[new_task(band, workflow_id=new_id())]])
        [claim] = await store.pull([Take(band.id, 1)], me)
        [held] = await store.held(me)
        view = await store.get(claim.id)
        assert view is not None
        await store.cancel(claim.id)
        [(asked, _)] = await store.cancel_requests(me)
        page = await store.list(TaskFilter(), 1)
        ids = [stored.id, claim.id, held.id, view.id, view.workflow_id, asked, page.tasks[0].id]  # type: ignore[union-attr]  # it is stored
        assert [type(one) for one in ids] == [UUID] * 7
        assert len(set(map(str, ids))) == 2
