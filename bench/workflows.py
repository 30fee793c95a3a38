"""How fast one node is with fan-outs and joins, over HTTP: `python -m bench workflows[=FAN_OUTS]`.

Each task makes 100 parts and a join that waits for them, committed with its own outcome; the rate counts all 102. At the
end every join must be there once and have met the results of all its parts.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import orjson

from bench.node import JSON, measured
from bench.rig import Rig, rig

HANDLERS: Final = str(Path(__file__).with_name("workflow_handlers.py"))
PARTS: Final = 100
FAN_OUTS: Final = 100
_CHECK: Final = """
SELECT (SELECT count(*) FROM noria.task t JOIN noria.band b ON b.id = t.band JOIN noria.outcome o ON o.id = t.id
         WHERE b.handler = 'join' AND o.status = 0 AND convert_from(o.result, 'UTF8') = $1) AS joined,
       (SELECT count(*) FROM noria.task t JOIN noria.band b ON b.id = t.band WHERE b.handler = 'part') AS parts
"""


async def post(session: aiohttp.ClientSession, url: str, count: int) -> None:
    tasks = [{"handler": "fan_out", "payload": {"parts": PARTS}}] * count
    async with session.post(
        f"{url}/v1/tasks/batch", data=orjson.dumps({"tasks": tasks}), headers=JSON
    ) as answer:
        if answer.status != 202:
            raise SystemExit(await answer.text())


async def check(place: Rig, fan_outs: int) -> None:
    connection = await asyncpg.connect(place.dsn)
    joined, parts = await connection.fetchrow(_CHECK, str(PARTS))
    await connection.close()
    if (joined, parts) != (fan_outs, fan_outs * PARTS):
        raise SystemExit(f"{joined} joins and {parts} parts, not {fan_outs} and {fan_outs * PARTS}")


async def workflows(fan_outs: int = FAN_OUTS) -> None:
    warm = max(1, fan_outs // 10)
    async with rig(NORIA_HANDLERS=HANDLERS) as place:
        each = PARTS + 2
        await measured(place, "warm-up", warm * each, lambda s: post(s, place.url, warm))
        name = f"{fan_outs:,} fan-outs of {PARTS} with a join"
        await measured(place, name, fan_outs * each, lambda s: post(s, place.url, fan_outs))
        await check(place, warm + fan_outs)


if __name__ == "__main__":
    asyncio.run(workflows(*map(int, sys.argv[1:])))
