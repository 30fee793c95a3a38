"""How fast one node is, over HTTP, with PostgreSQL's synchronous_commit on: `python -m bench [WORKLOAD…]`.

batch     no-op tasks posted in batches of 500             single   no-op tasks posted one by one, 64 at a time
io        tasks that wait 50 ms                            latency  posted → result visible, at 100 tasks/s
together  handlers that take a hundred tasks in one call, against the same that take one
backlog   drain with a million waiting, against an empty queue

Rates are end to end: from the first byte posted to the last outcome committed. CPU counts every process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import aiohttp
import asyncpg
import orjson

from bench.rig import Rig, percentile, rig, until_idle

PAYLOAD = {
    "user_id": 123456,
    "email": "someone.with.a.name@example.org",
    "tags": ["alpha", "beta"],
    "note": "x" * 80,
}
JSON = {"Content-Type": "application/json"}
BATCH = 500
BATCHED = {"noop_batch", "insert", "insert_batch"}


def body_of(handler: str, first: int, count: int) -> bytes:
    tasks = [{"handler": handler, "payload": {"i": first + n, "data": PAYLOAD}} for n in range(count)]
    if handler in BATCHED:  # they take one argument
        tasks = [{"handler": handler, "payload": {"data": PAYLOAD}} for _ in range(count)]
    return orjson.dumps({"tasks": tasks})


async def post_batches(session: aiohttp.ClientSession, url: str, handler: str, count: int) -> None:
    room = asyncio.Semaphore(8)

    async def one(first: int) -> None:
        async with room:
            while True:
                body = body_of(handler, first, min(BATCH, count - first))
                async with session.post(f"{url}/v1/tasks/batch", data=body, headers=JSON) as answer:
                    if answer.status == 202:
                        return
                    if answer.status not in {429, 503}:
                        raise SystemExit(await answer.text())
                    await asyncio.sleep(float(answer.headers["Retry-After"]))

    await asyncio.gather(*(one(first) for first in range(0, count, BATCH)))


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one burst."""

    rate: float  # tasks/s, to the last outcome
    posted: float  # tasks/s
    cpu_s: dict[str, float]  # by process, per 10,000 tasks


Work = Callable[[aiohttp.ClientSession], Awaitable[None]]


async def measure(place: Rig, count: int, work: Work) -> Figures:
    """What `work` costs, which posts `count` tasks."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=128)) as session:
        before, began_s = place.cpu_s(), time.monotonic()
        await work(session)
        posted_s = time.monotonic() - began_s
        ended_s = await until_idle(place.dsn) - began_s
        after = place.cpu_s()
    used = {who: (after[who] - before[who]) * 1e4 / count for who in after}
    return Figures(count / ended_s, count / posted_s, used)


async def measured(place: Rig, name: str, count: int, work: Work) -> float:
    """Printed; returns the rate."""
    figures = await measure(place, count, work)
    print(
        f"{name:<22} {figures.rate:>9,.0f}/s end to end  {figures.posted:>9,.0f}/s posted   CPU s per 10,000: "
        f"{sum(figures.cpu_s.values()):.2f} ("
        + ", ".join(f"{who} {s:.2f}" for who, s in figures.cpu_s.items())
        + ")",
        flush=True,
    )
    return figures.rate


async def batch(place: Rig) -> None:
    await measured(place, "warm-up", 5_000, lambda s: post_batches(s, place.url, "noop", 5_000))
    for _ in range(3):
        await measured(place, "no-op by batch", 50_000, lambda s: post_batches(s, place.url, "noop", 50_000))
    print(f"{'':<22} node's memory {place.memory_mib():.0f} MiB")


async def single(place: Rig) -> None:
    body = orjson.dumps({"handler": "noop", "payload": {"i": 1, "data": PAYLOAD}})

    async def post(session: aiohttp.ClientSession) -> None:
        async def worker(count: int) -> None:
            for _ in range(count):
                async with session.post(f"{place.url}/v1/tasks", data=body, headers=JSON) as answer:
                    assert answer.status == 202, await answer.text()
                    await answer.read()

        await asyncio.gather(*(worker(200) for _ in range(64)))

    for _ in range(2):
        await measured(place, "no-op by single POST", 64 * 200, post)


async def io(place: Rig) -> None:
    for _ in range(2):
        await measured(
            place, "50 ms of I/O, 500 wide", 20_000, lambda s: post_batches(s, place.url, "io", 20_000)
        )


async def together(place: Rig) -> None:
    for handler in ("noop", "noop_batch", "insert", "insert_batch"):
        work = partial(post_batches, url=place.url, handler=handler, count=20_000)
        await measured(place, "warm-up", 20_000, work)
        await measured(place, handler, 20_000, work)


async def latency(place: Rig) -> None:
    body = orjson.dumps({"handler": "noop", "payload": {"i": 1, "data": PAYLOAD}})
    seen: list[float] = []

    async def one(session: aiohttp.ClientSession) -> None:
        began_s = time.monotonic()
        async with session.post(f"{place.url}/v1/tasks?wait=10", data=body, headers=JSON) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
        seen.append(time.monotonic() - began_s)

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        began_s = time.monotonic()
        for number in range(1_000):
            await asyncio.sleep(max(0.0, began_s + number / 100 - time.monotonic()))
            group.create_task(one(session))
    print(
        f"latency at 100/s       posted → result p50 {percentile(seen, 50) * 1e3:.1f} ms, p99 {percentile(seen, 99) * 1e3:.1f} ms"
    )


async def backlog(place: Rig) -> None:
    empty = await measured(place, "empty", 50_000, lambda s: post_batches(s, place.url, "noop", 50_000))
    await load_waiting(place.dsn, 1_000_000)
    connection = await asyncpg.connect(place.dsn)
    first, began_s = await connection.fetchval("SELECT count(*) FROM noria.waiting"), time.monotonic()
    await asyncio.sleep(15)
    left, took_s = await connection.fetchval("SELECT count(*) FROM noria.waiting"), time.monotonic() - began_s
    await connection.close()
    rate = (first - left) / took_s
    print(
        f"drain, 1 M waiting     {rate:>9,.0f}/s, {rate / empty:.2f} of the rate of the empty queue; memory {place.memory_mib():.0f} MiB"
    )


async def load_waiting(dsn: str, count: int) -> None:
    """Straight into the record and never analysed: statistics know nothing of it."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            """
            WITH rows AS (
                SELECT gen_random_uuid() AS id, nextval('noria.task_seq') AS seq, b.id AS band, now() AS at
                FROM generate_series(1, $1::int), (SELECT id FROM noria.band WHERE handler = 'noop' LIMIT 1) b
            ), made AS (
                INSERT INTO noria.task (id, seq, created_at, run_at, timeout_s, band, max_attempts, slot, tenant, payload)
                SELECT id, seq, at, at, 300, band, 3, 0, 'default', '{"i": 1}' FROM rows RETURNING id, seq, band, run_at
            )
            INSERT INTO noria.waiting (id, due, seq, band, attempt, slot) SELECT id, run_at, seq, band, 1, 0 FROM made
            """,
            count,
            timeout=300,
        )
    finally:
        await connection.close()


WORKLOADS = {
    "batch": batch,
    "single": single,
    "io": io,
    "together": together,
    "latency": latency,
    "backlog": backlog,
}


async def main(names: list[str]) -> None:
    for name in names or list(WORKLOADS):
        async with rig() as place:
            await WORKLOADS[name](place)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
