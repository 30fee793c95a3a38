"""noria_api.enqueue: one task in the caller's own transaction, the same row as any other door makes, and nothing else."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.authoring.markers import handler
from actors.authoring.registry import Registry
from actors.authoring.task import Task
from actors.bands import Bands
from actors.intake.intake import Intake
from actors.intake.requests import spec_of
from node.client import InvalidTask, enqueue, enqueue_sql
from node.client.enqueue import _TYPES, _placed
from runtime.adapters.postgres import PostgresStore
from runtime.core.canonical import canonical
from runtime.core.slots import slot_of
from runtime.core.task import BandKey, Duplicate, Lane, State, Stored, Take, Verdict
from tests.support.factories import new_task, settlement, succeeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from actors.authoring.context import Context

    Connection = asyncpg.Connection[Any]


@handler("mail.send", priority="low", timeout_s=40, max_attempts=7)
async def send(ctx: Context, to: str = "", parts: object = None) -> None: ...


@handler("call", rate_limit="1/s", limit_per="key")
async def call(ctx: Context, to: str = "", parts: object = None) -> None: ...


REGISTRY: Final = Registry(send, call)
SEND: Final = BandKey("mail.send", Lane.LOW)


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[tuple[PostgresStore, Connection]]:
    """A record whose nodes have published `mail.send`, and an application's connection."""
    app = await asyncpg.connect(dsn)
    try:
        async with PostgresStore.open(dsn) as store:
            await store.publish(REGISTRY.entries())
            yield store, app
    finally:
        await app.close()


@pytest.fixture
async def both(pg_dsn: str) -> AsyncIterator[tuple[PostgresStore, Connection]]:
    async with opened(pg_dsn) as made:
        yield made


@pytest.fixture
async def each(pg_each_dsn: str) -> AsyncIterator[tuple[PostgresStore, Connection]]:
    async with opened(pg_each_dsn) as made:
        yield made


def by_hand(task: Task[Any]) -> tuple[str, list[Any]]:
    """As a program in any other language would call it, which knows of no digest."""
    _, values = enqueue_sql(task)
    values.pop("request_digest", None)
    given_ = ", ".join(f"{name} => {_placed(_TYPES[name], f'${n}')}" for n, name in enumerate(values, 1))
    return f"SELECT noria_api.enqueue({given_})", list(values.values())


# -- the same row ------------------------------------------------------------------------------------

TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBERS: Final = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON: Final = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
KEYS: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60
)
INSTANTS: Final = st.datetimes(
    datetime(2030, 1, 1),  # noqa: DTZ001 - bounds are naive
    datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@st.composite
def tasks(draw: st.DrawFn) -> Task[Any]:
    options: dict[str, Any] = {
        "idempotency_key": draw(KEYS),
        "priority": draw(st.sampled_from([None, "high", "medium", "low"])),
        "requires": tuple(draw(st.lists(st.sampled_from(["gpu", "eu", "é", "a b"]), max_size=3))),
        "prefers": tuple(draw(st.lists(st.sampled_from(["gpu", "eu"]), max_size=2))),
        "timeout_s": draw(st.sampled_from([None, 1, 0.5, 604800])),
        "max_attempts": draw(st.none() | st.integers(1, 1000)),
        "expires_at": draw(st.none() | INSTANTS),
        "metadata": draw(st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2)),
    }
    options[draw(st.sampled_from(["run_at", "delay_s"]))] = None
    if "run_at" in options:
        options["delay_s"] = draw(st.sampled_from([None, 0, 5, 0.25]))
    else:
        options["run_at"] = draw(INSTANTS)
    name = draw(st.sampled_from(["mail.send", "call"]))
    options["limit_key" if name == "call" else "actor_key"] = draw(
        KEYS if name == "call" else st.none() | KEYS
    )
    payload = {"to": draw(TEXTS), "parts": draw(JSON)}
    return Task(handler=name, payload=payload, **options)


class Doors:
    """A task through SQL, and the same through the door of a node."""

    def __init__(self, store: PostgresStore, app: Connection) -> None:
        self._store = store
        self._app = app
        self._bands = Bands(store)
        self._intake = Intake(REGISTRY, self._bands, lambda: 1_900_000_000_000)

    async def compare(self, task: Task[Any]) -> None:
        transaction = self._app.transaction()
        await transaction.start()
        try:
            sql, values = by_hand(task)
            task_id = await self._app.fetchval(sql, *values)
            assert await enqueue(self._app, task) == task_id, "another digest: the key would be refused"
            row = await self._app.fetchrow("SELECT * FROM noria.task WHERE id = $1", task_id)
            band = await self._app.fetchrow("SELECT * FROM noria.unbanded WHERE id = $1", task_id)
        finally:
            await transaction.rollback()
        [prepared] = await self._intake.prepare([spec_of(task)])
        new = prepared.task
        assert row is not None
        for name in (
            "slot",
            "digest",
            "tenant",
            "actor_type",
            "actor_key",
            "limit_key",
            "limiter",
            "max_attempts",
            "timeout_s",
            "expires_at",
        ):
            assert row[name] == getattr(new, name), name
        assert orjson.loads(row["payload"]) == orjson.loads(new.payload)
        assert (row["metadata"] is None) == (task.metadata is None)
        assert tuple(row["prefers"] or ()) == new.prefers
        if task.run_at is not None:
            assert row["run_at"] == new.run_at
        else:
            assert row["run_at"] - row["created_at"] == timedelta(seconds=new.delay_s)
        if band is not None:
            found = BandKey(
                band["handler"], Lane(band["lane"]), band["tenant"], tuple(band["requires"]), band["keyed"]
            )
            assert found == self._bands[new.band].key
        else:
            assert row["band"] == new.band
        assert row["id"].version == 7


def test_both_doors_make_the_same_row(pg_dsn: str) -> None:
    with asyncio.Runner() as runner:
        context = opened(pg_dsn)
        store, app = runner.run(context.__aenter__())
        doors = Doors(store, app)

        def run(work: Coroutine[Any, Any, Any]) -> Any:
            return runner.run(work)

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(tasks())
        def same_row(task: Task[Any]) -> None:
            run(doors.compare(task))

        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
        @given(JSON)
        def same_text(value: Any) -> None:
            for written in (orjson.dumps(value).decode(), canonical(value).decode()):
                found = run(app.fetchval("SELECT noria.canonical($1::text::json)", written))
                assert found == canonical(orjson.loads(written)).decode()

        try:
            same_text()
            same_row()
            for raw in (
                '{"b": 1, "a" : [ ], "b":2.50}',
                "-0",
                "-0.0",
                "1e23",
                "-1e23",
                "70396649515466100.0",
                "1E2",
                "1e15",
                "123456789012345.6e1",
                " true ",
            ):
                found = run(app.fetchval("SELECT noria.canonical($1::text::json)", raw))
                assert found == canonical(orjson.loads(raw)).decode()
        finally:
            runner.run(context.__aexit__(None, None, None))


# -- transactions and keys ---------------------------------------------------------------------------


async def test_it_is_there_with_the_commit_and_gone_with_the_rollback(
    both: tuple[PostgresStore, Connection],
) -> None:
    store, app = both
    [band] = await store.intern([SEND])
    me = await store.join("me", 60, {})
    transaction = app.transaction()
    await transaction.start()
    kept = await enqueue(app, "mail.send", {"to": "a"})
    savepoint = app.transaction()
    await savepoint.start()
    taken_back = await enqueue(app, "mail.send", {"to": "b"}, idempotency_key="b")
    await savepoint.rollback()
    assert await store.get(kept) is None
    assert await store.pull([Take(band.id, 10)], me) == []
    await transaction.commit()
    view = await store.get(kept)
    assert view is not None
    assert (view.state, view.handler, view.lane, view.timeout_s, view.max_attempts) == (
        State.READY, "mail.send", Lane.LOW, 40.0, 7,
    )  # fmt: skip
    assert await store.get(taken_back) is None
    [claim] = await store.pull([Take(band.id, 10)], me)
    assert (claim.id, claim.attempt, claim.payload) == (kept, 1, b'{"to":"a"}')


async def test_what_has_no_band_waits_for_a_node_that_makes_one(
    each: tuple[PostgresStore, Connection],
) -> None:
    store, app = each
    made = [
        await enqueue(app, "mail.send", {"n": n}, priority="high", requires=["b", "a", "b"]) for n in range(2)
    ]
    keyed = await enqueue(app, "mail.send", actor_key="k", tenant="t")
    [other] = await store.intern([BandKey("other", Lane.LOW)])
    [[child]] = await store.accept([[new_task(other, parents=(made[0],))]])
    assert isinstance(child, Stored)
    placed = [await store.place_unbanded(2), await store.place_unbanded(2), await store.place_unbanded(2)]
    bands = {band.key: band.id for band in await store.bands()}
    plain, of_key = (
        BandKey("mail.send", Lane.HIGH, requires=("a", "b")),
        BandKey("mail.send", Lane.LOW, "t", keyed=True),
    )
    assert placed == [[bands[plain]], [bands[of_key]], []]
    me = await store.join("me", 60, {})
    claims = await store.pull([Take(bands[plain], 10)], me)
    assert [claim.id for claim in claims] == made
    assert await store.settle([settlement(one, me, succeeded()) for one in claims]) == [
        Verdict.AWAITED, Verdict.COMMITTED,
    ], "the child is told"  # fmt: skip
    assert [mail.band for mail in await store.mail(UUID(int=0), 10)] == [bands[of_key]]
    view = await store.get(keyed)
    assert view is not None
    assert (view.actor_key, view.tenant, view.lane) == ("k", "t", Lane.LOW)
    seen = await enqueue(app, "mail.send", priority="medium")
    assert await store.get(seen) is not None, "who has its id may ask at once"
    later = await enqueue(app, "mail.send", {}, priority="high", requires=["a", "b"])  # it has one now
    assert [claim.id for claim in await store.pull([Take(bands[plain], 10)], me)] == [later]


async def test_two_nodes_place_each_once(pg_dsn: str) -> None:
    async with opened(pg_dsn) as (store, app), PostgresStore.open(pg_dsn) as other:
        for n in range(40):
            await enqueue(app, "mail.send", {"n": n}, priority="high" if n % 2 else "low")
        found = await asyncio.gather(*(one.place_unbanded(40) for one in (store, other) * 2))
        assert await app.fetchval("SELECT count(*) FROM noria.waiting") == 40
        assert await app.fetchval("SELECT count(*) FROM noria.unbanded") == 0
        assert sorted({band for bands in found for band in bands}) == [
            band.id for band in await store.bands()
        ]


async def test_one_key_one_task_whoever_commits_first(
    both: tuple[PostgresStore, Connection], pg_dsn: str
) -> None:
    store, app = both
    [band] = await store.intern([SEND])
    other = await asyncpg.connect(pg_dsn)
    try:
        for ends in ("rollback", "commit"):
            mine = app.transaction()
            await mine.start()
            first = await enqueue(app, "mail.send", {"to": ends}, idempotency_key=ends)
            second = asyncio.create_task(enqueue(other, "mail.send", {"to": ends}, idempotency_key=ends))
            await waits_for_a_lock(app)
            await getattr(mine, ends)()
            assert (await second == first) is (ends == "commit")
        with pytest.raises(
            asyncpg.PostgresError, match="idempotency_key: 'commit' belongs to task"
        ) as refused:
            await enqueue(other, "mail.send", {"to": "somebody else"}, idempotency_key="commit")
        assert refused.value.sqlstate == "NO001"
        task = Task(handler="mail.send", payload={"to": "commit"}, idempotency_key="commit")
        new = new_task(band, key="commit", digest=spec_of(task).digest)
        [[answer]] = await store.accept([[new]])
        assert answer == Duplicate(first), "the door of a node knows it too"
    finally:
        await other.close()


async def waits_for_a_lock(app: Connection) -> None:
    while not await app.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass


# -- what is not allowed -----------------------------------------------------------------------------

BAD: Final[dict[str, tuple[str, str]]] = {
    "handler => 'mail.sned'": ("NO002", "no handler is named 'mail.sned'"),
    "handler => NULL": ("NO002", "no handler is named NULL"),
    "payload => '[1]'": ("22023", "payload: must be an object; got array"),
    "payload => '{'": ("22P02", "invalid input syntax for type json"),
    "payload => json_build_object('to', repeat('x', 1 << 20))": ("22023", "payload: 1048"),
    "idempotency_key => ''": ("22023", "idempotency_key: 0 characters; 1 to 255"),
    "actor_key => repeat('é', 255) || 'x'": ("22023", "actor_key: 256 characters"),
    "actor_key => repeat('日', 200)": ("22023", "actor_key: 600 bytes as UTF-8; at most 512"),
    "limit_key => 'k'": ("22023", "limit_key: mail.send has no limit for each key"),
    "handler => 'call'": ("22023", "limit_key: is required"),
    "handler => 'call', actor_key => 'k'": ("22023", "actor_key: call has a limit"),
    "priority => 'urgent'": ("22023", "priority: 'urgent' is not one of high, medium, low"),
    "requires => array_fill('a'::text, ARRAY[17])": ("22023", "requires: 17 tags; at most 16"),
    "requires => ARRAY['noria:not:x:1']": ("22023", "requires: tag 'noria:not:x:1'"),
    "prefers => ARRAY[NULL]::text[]": ("22023", "prefers: tag null"),
    "delay_s => -1": ("22023", "delay_s: -1 is not a number of seconds within"),
    "delay_s => 'NaN'": ("22023", "delay_s: NaN"),
    "delay_s => 1, run_at => '2030-01-01Z'": ("22023", "run_at: give delay_s or run_at"),
    "run_at => 'infinity'": ("22023", "run_at: infinity is not within the years"),
    "expires_at => '1066-10-14Z'": ("22023", "expires_at: 1066"),
    "timeout_s => 0": ("22023", "timeout_s: 0 is not"),
    "max_attempts => 0": ("22023", "max_attempts: 0 is not"),
    "metadata => '3'": ("22023", "metadata: must be an object"),
    "tenant => ''": ("22023", "tenant: 0 characters"),
    """idempotency_key => 'k', payload => '{"to": "\\u0000"}'""": ("22P05", "Unicode"),
    "request_digest => 'x'": ("22023", "request_digest: 1 bytes"),
}


async def test_what_is_wrong_is_named(each: tuple[PostgresStore, Connection]) -> None:
    _, app = each
    found: dict[str, tuple[str | None, str]] = {}
    for arguments in BAD:
        handler_ = "" if arguments.startswith("handler") else "handler => 'mail.send', "
        with pytest.raises(asyncpg.PostgresError) as refused:
            await app.fetchval(f"SELECT noria_api.enqueue({handler_}{arguments})")
        found[arguments] = (refused.value.sqlstate, str(refused.value))
    wrong = {
        arguments: found[arguments]
        for arguments, (state, text) in BAD.items()
        if found[arguments][0] != state or text not in found[arguments][1]
    }
    assert wrong == {}
    assert await app.fetchval("SELECT count(*) FROM noria.task") == 0


async def test_python_refuses_what_json_cannot_say(both: tuple[PostgresStore, Connection]) -> None:
    _, app = both
    with pytest.raises(InvalidTask, match="#/payload/x"):
        await enqueue(app, "mail.send", {"x": float("nan")})
    with pytest.raises(InvalidTask, match="#/colour"):
        await enqueue(app, "mail.send", {}, colour="red")  # type: ignore[call-arg]


async def test_a_role_that_may_call_it_may_do_nothing_else(both: tuple[PostgresStore, Connection]) -> None:
    _, app = both
    role = f"app_{uuid4().hex}"
    await app.execute(f"CREATE ROLE {role}")
    try:
        await app.execute(f"SET SESSION AUTHORIZATION {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="noria_api"):
            await enqueue(app, "mail.send")
        await app.execute("RESET SESSION AUTHORIZATION")
        await app.execute(f"GRANT USAGE ON SCHEMA noria_api TO {role}")
        await app.execute(f"SET SESSION AUTHORIZATION {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="function enqueue"):
            await enqueue(app, "mail.send")
        await app.execute("RESET SESSION AUTHORIZATION")
        await app.execute(f"GRANT EXECUTE ON FUNCTION noria_api.enqueue TO {role}")
        await app.execute(f"SET SESSION AUTHORIZATION {role}")
        task_id = await enqueue(app, "mail.send", {"to": "a"})
        await may_do_nothing_else(app)
        await app.execute("RESET SESSION AUTHORIZATION")
        by = await app.fetchval("SELECT created_by FROM noria.task WHERE id = $1", task_id)
        assert by == f"sql:{role}"
    finally:
        await app.execute("RESET SESSION AUTHORIZATION")
        await app.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def may_do_nothing_else(app: Connection) -> None:
    """Nor can it be led astray by what the role puts in its own way."""
    for forbidden in (
        "SELECT * FROM noria.task",
        "DELETE FROM noria.waiting",
        "INSERT INTO noria.band (lane, keyed, handler, tenant) VALUES (0, false, 'x', 'x')",
        "SELECT nextval('noria.task_seq')",
        "SELECT noria.new_task_id()",
        "CREATE TABLE noria_api.mine ()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetch(forbidden)
    await app.execute(
        "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT 1 / 0, $1 $$".replace(
            "SELECT 1 / 0, $1", "SELECT convert_to((1 / 0)::text, 'UTF8')"
        )
    )
    await app.execute("SET search_path = pg_temp, pg_catalog")
    await app.fetchval("SELECT noria_api.enqueue('mail.send', idempotency_key => 'led astray')")
    await app.execute("RESET search_path")


@pytest.mark.parametrize("statistics", ["never analysed", "analysed when empty"])
async def test_rows_are_found_by_key_whatever_the_statistics_say(pg_dsn: str, statistics: str) -> None:
    async with opened(pg_dsn) as (_, app):
        if statistics == "analysed when empty":
            await app.execute("ANALYZE")
        for n in range(8):
            await enqueue(app, "mail.send", {"n": n}, idempotency_key=f"k{n}")
        async with app.transaction():
            ask = "SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE schemaname = 'noria' AND seq_scan > 0"
            before = await app.fetch(ask)
            for n in range(8):
                await enqueue(app, "mail.send", {"n": n}, idempotency_key=f"k{n}")
            assert await app.fetch(ask) == before == []


# -- other libraries ---------------------------------------------------------------------------------


def test_statements_for_other_libraries() -> None:
    task = Task(
        handler="mail.send", payload={"to": "é"}, idempotency_key="k", run_at=datetime(2031, 1, 1, tzinfo=UTC)
    )
    sql, parameters = enqueue_sql(task)
    assert sql.startswith(
        "SELECT noria_api.enqueue(handler => CAST(%(handler)s AS text), "
        "payload => CAST(CAST(%(payload)s AS text) AS json), idempotency_key => CAST(%(idempotency_key)s AS text)"
    )
    assert set(parameters) == {"handler", "payload", "idempotency_key", "run_at", "request_digest"}
    assert parameters["run_at"] == datetime(2031, 1, 1, tzinfo=UTC)
    assert ":payload AS text" in enqueue_sql(task, style="named")[0]
    assert slot_of("k") == slot_of(parameters["idempotency_key"])


async def test_a_connection_with_a_codec_for_json(both: tuple[PostgresStore, Connection]) -> None:
    store, app = both
    await store.intern([SEND])
    await app.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    task_id = await enqueue(app, "mail.send", {"to": "a"}, metadata={"m": 1})
    view = await store.get(task_id)
    assert view is not None
    assert orjson.loads(view.metadata or b"") == {"m": 1}
