"""Stands in for a node in the tests of `noria dev`: what the launcher sees of one, and nothing else.

It counts its starts in PostgreSQL, answers /readyz, and at SIGTERM drains by asking PostgreSQL once more.
    GET /exit/N        ends with code N, at once
    STUB_HOLD=FILE     not ready while this file is there
    STUB_DEAF=1        does not hear SIGTERM
    STUB_REFUSES=1     ends with code 2, as a node with wrong settings
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncpg


def say(text: str) -> None:
    print(f"stub {os.environ['NORIA_NODE_NAME']} {text}", flush=True)  # noqa: T201 - tests read it


def held() -> bool:
    return Path(os.environ.get("STUB_HOLD", "/nowhere")).exists()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = (await reader.readline()).split()[1].decode()
    if path.startswith("/exit/"):
        os._exit(int(path.removeprefix("/exit/")))
    status = "503 Not yet" if held() else "200 OK"
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    writer.close()


async def main() -> None:
    if os.environ.get("STUB_REFUSES"):
        sys.exit(2)
    dsn = os.environ["NORIA_POSTGRES_DSN"]
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "SELECT pg_advisory_lock(1)"
    )  # IF NOT EXISTS is no guard against another node's CREATE
    await connection.execute("CREATE TABLE IF NOT EXISTS starts (n int)")
    await connection.execute("INSERT INTO starts VALUES (1)")
    starts = await connection.fetchval("SELECT count(*) FROM starts")
    await connection.close()
    asked = asyncio.Event()
    hear = (lambda: None) if os.environ.get("STUB_DEAF") else asked.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, hear)
    await asyncio.start_server(answer, "127.0.0.1", int(os.environ["NORIA_HTTP_PORT"]))
    say(f"start {starts} pid {os.getpid()} handlers {os.environ['NORIA_HANDLERS']}")
    await asked.wait()
    connection = await asyncpg.connect(dsn)
    say(f"drained, PostgreSQL answers {await connection.fetchval('SELECT 1')}")
    await connection.close()


asyncio.run(main())
