"""What the real statements cost on a record with a history, in pages per row, whatever the statistics say.

The statements are planned while the record is empty, as those of a node that was there first. Then it is filled, and
nobody tells the planner (never analysed), or somebody did while it was empty (the worst: statistics that are wrong with
certainty), or the statistics are right. Autovacuum is off, so that none of this changes during the test.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import pytest

from runtime.adapters.postgres import PostgresStore
from runtime.core.limits import Limit, LimitedTake, Per, Rate, limiter_id
from runtime.core.task import (
    AttemptKind,
    BandKey,
    Claim,
    Finish,
    Lane,
    NewTask,
    Progress,
    Reason,
    Requeue,
    Settlement,
    State,
    Status,
    Take,
    TaskFilter,
)
from runtime.core.unique import Sole, Unique
from tests.support.factories import new_id, new_task
from tests.support.measured_session import Cost, MeasuredSession

if TYPE_CHECKING:
    from collections import defaultdict
    from collections.abc import AsyncIterator, Sequence

    from runtime.core.task import Band

pytestmark = pytest.mark.timeout(180)

TABLES: Final = (
    "lease",
    "band",
    "task",
    "waiting",
    "running",
    "outcome",
    "attempt",
    "handler",
    "unique_task",
    "handler_limit",
    "limiter",
)
ENDED: Final = 120_000
PAUSED: Final = 60_000
LATER: Final = 20_000
READY: Final = 20_000
BATCH: Final = 500
LEASE_S: Final = 3_600.0

# What one row may cost: the pages of each index on the way down, the table's, and those of what is written (at most 20
# where this was measured). A plan that has gone wrong costs thousands, or scans a table.
PAGES_PER_ROW: Final = 30
PAGES_PER_STATEMENT: Final = 100
SCANNED_MAX: Final = 5_000  # `running`, `lease` and `band` are small and may be read as a whole

FILL: Final = """
CREATE FUNCTION pg_temp.id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid
$$;
INSERT INTO noria.task (id, seq, created_at, run_at, timeout_s, band, max_attempts, slot, tenant, idempotency_key, digest,
                        actor_key, workflow_id, payload)
SELECT pg_temp.id(n), nextval('noria.task_seq'), now() - interval '1 hour', now() - interval '1 hour', 300,
       CASE WHEN n > {ended} AND n <= {ended} + {paused} THEN {paused_band} ELSE {band} END, 3, n % 4096, 'default',
       CASE WHEN n % 2 = 0 THEN 'k' || n END, CASE WHEN n % 2 = 0 THEN sha256('a') END,
       CASE WHEN n % 3 = 0 THEN 'actor' || n % 1000 END, CASE WHEN n % 5 = 0 THEN pg_temp.id(n % 1000) END, '{{}}'
  FROM generate_series(1, {ended} + {paused} + {later} + {ready}) n;
INSERT INTO noria.outcome (id, incarnation, started_at, finished_at, attempt, status, error)
SELECT pg_temp.id(n), 1, now() - interval '50 minutes', now() - interval '40 minutes', 1, (n % 100 = 0)::int,
       CASE WHEN n % 100 = 0 THEN '{{"type": "ValueError", "message": "", "traceback": ""}}'::jsonb END
  FROM generate_series(1, {ended}) n;
INSERT INTO noria.waiting (id, due, seq, band, attempt, slot)
SELECT pg_temp.id(n),
       CASE WHEN n <= {ended} + {paused} THEN now() - interval '30 minutes'
            WHEN n <= {ended} + {paused} + {later} THEN now() + interval '1 day'
            ELSE now() - interval '1 second' END, n,
       CASE WHEN n <= {ended} + {paused} THEN {paused_band} ELSE {band} END, 1, n % 4096
  FROM generate_series({ended} + 1, {ended} + {paused} + {later} + {ready}) n;
"""


class Scene:
    """A store whose statements are measured, and what is in it."""

    def __init__(
        self, store: PostgresStore, costs: defaultdict[str, list[Cost]], me: int, band: Band
    ) -> None:
        self.store = store
        self.costs = costs
        self.me = me
        self.band = band

    def batch(self, count: int, **fields: Any) -> list[list[NewTask]]:
        return [[new_task(self.band, **fields)] for _ in range(count)]

    def ends(self, claims: Sequence[Claim], move: Finish | Requeue) -> list[Settlement]:
        return [Settlement(claim.id, claim.attempt, self.me, move) for claim in claims]


@pytest.fixture(params=["never analysed", "analysed when empty", "analysed when full"])
async def scene(request: pytest.FixtureRequest, pg_each_dsn: str) -> AsyncIterator[Scene]:
    async with connected(pg_each_dsn) as admin, prepared(admin, request.param, pg_each_dsn) as made:
        yield made


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    admin = await asyncpg.connect(dsn)
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def prepared(admin: asyncpg.Connection[Any], statistics: str, dsn: str) -> AsyncIterator[Scene]:
    for table in TABLES:
        await admin.execute(f"ALTER TABLE noria.{table} SET (autovacuum_enabled = off)")
    if statistics == "analysed when empty":
        await admin.execute("ANALYZE")
    session = MeasuredSession.fresh()
    async with PostgresStore.open(dsn, answer_s=60, session=session) as store:
        me = await store.join("me", LEASE_S, {})
        band, paused = await store.intern([BandKey("echo", Lane.MEDIUM), BandKey("paused", Lane.MEDIUM)])
        made = Scene(store, session.costs, me, band)
        for _ in range(3):  # both connections of a line plan every statement now
            await everything(made, rows=4, known="warm")
        numbers = {"ended": ENDED, "paused": PAUSED, "later": LATER, "ready": READY}
        await admin.execute(FILL.format(band=band.id, paused_band=paused.id, **numbers))
        if statistics == "analysed when full":
            await admin.execute("ANALYZE")
        session.costs.clear()
        yield made


async def everything(scene: Scene, rows: int, known: str = "k") -> None:
    """Every batch and every look that a node takes, with this many rows."""
    store, me, band = scene.store, scene.me, scene.band
    await store.accept(scene.batch(rows))
    keyed = [new_task(band, key=f"new{n}-{rows}", request="a") for n in range(rows)]
    await store.accept([[task] for task in keyed])
    await store.accept([[new_task(band, key=task.idempotency_key)] for task in keyed])  # all are there
    await store.accept([[new_task(band, key=f"{known}{2 * n}")] for n in range(1, rows)])
    for rule in (Unique(mode="replace"), Unique(mode="replace"), Unique(mode="existing")):
        await store.accept([[new_task(band, unique=Sole(UUID(int=n), rule))] for n in range(rows)])
    await store.accept(scene.batch(rows, born_on=me))
    pulled = await store.pull([Take(band.id, rows)], me)
    assert len(pulled) == rows
    waiting = [task for [task] in scene.batch(rows)]
    await store.accept([waiting])
    claims = await store.claim([(task.id, 1) for task in waiting], me)
    assert len(claims) == rows
    await store.report_progress(me, {(claim.id, claim.attempt): Progress(done=1) for claim in pulled})
    for _ in range(2):  # the second time all are looked up
        assert not any(await store.settle(scene.ends(pulled, SUCCESS)))
    half = rows // 2
    assert not any(
        await store.settle([*scene.ends(claims[:half], FAILURE), *scene.ends(claims[half:], RETRY)])
    )
    failed, retried = ([claim.id for claim in some] for some in (claims[:half], claims[half:]))
    lane = Lane.LOW if rows == BATCH else Lane.HIGH
    await store.prioritize_matching(TaskFilter(ids=tuple(retried)), rows, lane=lane)
    await store.prioritize_matching(TaskFilter(ids=tuple(retried)), rows, lane=Lane.MEDIUM)
    await store.cancel(retried[-1])
    await store.cancel_matching(TaskFilter(ids=tuple(retried)), rows)
    await store.replay_matching(TaskFilter(ids=tuple(failed), states=(State.FAILED,)), rows)
    await store.purge_matching(TaskFilter(ids=tuple(retried), states=(State.CANCELLED,)), rows)
    ids = [claim.id for claim in pulled]
    await store.get_many([*ids, *failed])
    await store.finished(ids)
    await store.cancel_requests(me)
    await store.held(me)
    await store.orphans(rows)
    await store.forget(finished_before_s=0, keys_before_s=0, limit=rows)
    await store.expire(100)
    await store.bury(me, LEASE_S)
    await store.renew(me, LEASE_S, {"running": rows})
    await store.nodes()
    await store.tenant_weights()
    await store.due_schedules(86_400, rows)
    await family(scene, rows)
    await limited(scene, rows)
    for which in FILTERS:
        page = await store.list(which, 50)
        await store.list(which, 50, before=page.next_cursor)


async def family(scene: Scene, rows: int) -> None:
    """Parents and a join, one late child of all that, and what becomes of them."""
    store, band, workflow = scene.store, scene.band, new_id()
    parents = [new_task(band, awaited=True, workflow_id=workflow) for _ in range(rows)]
    ids = tuple(parent.id for parent in parents)
    await store.accept([[*parents, new_task(band, parents=ids, workflow_id=workflow)]])
    await store.accept([[new_task(band, parents=ids)]])
    claims = await store.claim([(parent, 1) for parent in ids], scene.me)
    await store.accept([[new_task(band, parents=ids)]])
    assert all(await store.settle(scene.ends(claims, SUCCESS)))
    await store.accept([[new_task(band, parents=ids)]])
    while (await store.pass_on(rows)).more:
        pass
    await store.parents(ids, 1 << 20)
    await store.workflow(workflow, rows)
    await store.workflows("default", 50)
    await store.tidy_dependences()


async def limited(scene: Scene, rows: int) -> None:
    """What begins under a limit for each of many keys, and under one for all."""
    store = scene.store
    by_key, whole = await store.intern([BandKey("by_key", Lane.MEDIUM), BandKey("whole", Lane.MEDIUM)])
    rate = Rate(1_000_000, 1.0, 1_000_000)
    await store.declare_limits(
        {by_key.handler: Limit(rate, rows, Per.KEY), whole.handler: Limit(rate, rows, Per.HANDLER)}
    )
    keys = [f"key{n % max(1, rows // 10)}" for n in range(rows)]
    ids = [limiter_id(by_key.handler, Per.KEY, "default", key) for key in keys]
    of_keys = [new_task(by_key, limit_key=k, limiter=i) for k, i in zip(keys, ids, strict=True)]
    await store.accept([[task] for task in [*of_keys, *(new_task(whole) for _ in range(rows))]])
    for band in (by_key, whole):
        pull = await store.pull_limited([LimitedTake(band.id)], rows, scene.me)
        assert len(pull.claims) == rows
        assert not any(await store.settle(scene.ends(pull.claims, SUCCESS)))
    await store.forget_limiters(0.0, rows)


SUCCESS: Final = Finish(status=Status.SUCCEEDED, result=b"1")
FAILURE: Final = Finish(status=Status.FAILED)
RETRY: Final = Requeue(kind=AttemptKind.FAILED, delay_s=0, reason=Reason.RETRY_BACKOFF, failures=1, crashes=0)
FILTERS: Final = (
    TaskFilter(),
    TaskFilter(tenant="default"),
    TaskFilter(handler="echo"),
    TaskFilter(handler="nothing"),
    TaskFilter(states=(State.READY,)),
    TaskFilter(states=(State.SCHEDULED,)),
    TaskFilter(states=(State.RUNNING,)),
    TaskFilter(states=(State.SUCCEEDED,)),
    TaskFilter(states=(State.FAILED,)),
    TaskFilter(states=(State.FAILED, State.CANCELLED), handler="echo"),
    TaskFilter(states=(State.FAILED,), error_type="ValueError"),
    TaskFilter(idempotency_key="k2000"),
    TaskFilter(tenant="default", idempotency_key="k2000"),
    TaskFilter(actor_key="actor3"),
    TaskFilter(actor_key="nobody"),
)


async def test_the_cost_of_a_row_does_not_depend_on_what_else_is_there(scene: Scene) -> None:
    await everything(scene, rows=BATCH)
    seen = scene.costs.keys()
    assert seen >= {
        "accept",
        "existing",
        "claim",
        "pull",
        "settle",
        "on_record",
        "cancel_waiting",
        "replay",
        "purge",
        "waiting_bands",
        "prioritize",
        "unique_lock",
        "unique_hold",
        "unique_holders",
        "unique_replace",
        "unique_bind",
        "link",
        "count_dependence",
        "count_down",
        "tidy_dependence",
        "limited",
        "lock_limiters",
        "make_limiters",
        "claim_limited",
        "forget_limiters",
    }
    expensive = {
        (name, cost)
        for name, costs in scene.costs.items()
        for cost in costs
        if name != "workflow_counts"  # one row of a whole workflow
        if cost.pages > PAGES_PER_ROW * cost.rows + PAGES_PER_STATEMENT or cost.scanned > SCANNED_MAX
    }
    assert expensive == set()
