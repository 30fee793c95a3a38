"""How fast one node is with keyed actors, over HTTP: `python -m bench.keyed [KEYS] [MESSAGES]`, both once if not given.

Every message changes the state of its key, which commits with the outcome. Rates are end to end: from the first byte
posted to the last outcome committed. At the end each state must be the sum of what was sent to its key.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import asyncpg
import orjson

from bench.node import BATCH, JSON, measured
from bench.rig import Rig, rig

HANDLERS = str(Path(__file__).with_name("keyed_handlers.py"))
RUNS = 3


async def post(session: aiohttp.ClientSession, url: str, keys: int, count: int) -> None:
    """Batches of 500 with 8 on their way; message n goes to key n modulo `keys`."""
    room = asyncio.Semaphore(8)

    async def one(first: int) -> None:
        async with room:
            tasks = [
                {"handler": "counter.add", "actor_key": str(n % keys), "payload": {"amount": 1}}
                for n in range(first, min(first + BATCH, count))
            ]
            body = orjson.dumps({"tasks": tasks})
            while True:
                async with session.post(f"{url}/v1/tasks/batch", data=body, headers=JSON) as answer:
                    if answer.status == 202:
                        return
                    if answer.status not in {429, 503}:
                        raise SystemExit(await answer.text())
                    await asyncio.sleep(float(answer.headers["Retry-After"]))

    await asyncio.gather(*(one(first) for first in range(0, count, BATCH)))


async def check(place: Rig, keys: int, count: int) -> None:
    connection = await asyncpg.connect(place.dsn)
    states = [
        orjson.loads(row[0])
        for row in await connection.fetch("SELECT state FROM noria.actor WHERE state IS NOT NULL")
    ]
    await connection.close()
    total = sum(state["total"] for state in states)
    if len(states) != keys or total != count:
        raise SystemExit(f"{len(states)} keys hold {total}, not {keys} and {count}")


async def bench(keys: int, count: int) -> None:
    async with rig(NORIA_HANDLERS=HANDLERS) as place:
        await measured(place, "warm-up", count // 10, lambda s: post(s, place.url, keys, count // 10))
        for _ in range(RUNS):
            name = f"{keys:,} key{'s' if keys > 1 else ''}"
            await measured(place, name, count, lambda s: post(s, place.url, keys, count))
        await check(place, keys, count // 10 + RUNS * count)


async def main(arguments: list[str]) -> None:
    sizes = [(1_000, 30_000), (1, 4_000)] if not arguments else [(int(arguments[0]), int(arguments[1]))]
    for keys, count in sizes:
        await bench(keys, count)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
