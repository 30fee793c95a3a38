"""PgQueuer as it comes, its fastest way: enqueued by the thousand, dequeued by the hundred, its default durable tables.

python pgqueuer_peer.py work          python pgqueuer_peer.py COUNT
"""

import asyncio
import json
import os
import sys
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

MARKS = os.open(os.environ["PEER_MARKS"], os.O_WRONLY | os.O_APPEND)
DATA = {"user_id": 123456, "email": "someone.with.a.name@example.org", "tags": ["a", "b"], "note": "x" * 80}
DSN = os.environ["PEER_POSTGRES_DSN"]
DEQUEUED = 100
ENQUEUED = 1_000


async def work() -> None:
    connection = await asyncpg.connect(DSN)
    await Queries(AsyncpgDriver(connection)).install()
    queuer = PgQueuer.from_asyncpg_connection(connection)

    @queuer.entrypoint("noop")
    async def noop(job: Job) -> None:
        json.loads(job.payload or b"")
        os.write(MARKS, b".")

    await queuer.run(batch_size=DEQUEUED, dequeue_timeout=timedelta(seconds=5))


async def produce(count: int) -> None:
    connection = await asyncpg.connect(DSN)
    queries = Queries(AsyncpgDriver(connection))
    while not await queries.has_table("pgqueuer"):  # noqa: ASYNC110 - the worker, another process, makes it
        await asyncio.sleep(0.05)
    print("begin", flush=True)
    for first in range(0, count, ENQUEUED):
        payloads = [
            json.dumps({"i": n, "data": DATA}).encode() for n in range(first, min(count, first + ENQUEUED))
        ]
        await queries.enqueue(["noop"] * len(payloads), list(payloads), [0] * len(payloads))
    await connection.close()


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[1] == "work" else produce(int(sys.argv[1])))
