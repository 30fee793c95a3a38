"""Handlers of the fault tests, as a node loads them. Those with a name say on the stage that they run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time

from actors import Actor, Backoff, Context, chord, handler, task

QUICK = Backoff(first_s=0.05, max_s=0.1)


def _hello(ctx: Context, name: str) -> bytes:
    said = {"id": str(ctx.task_id), "attempt": ctx.attempt, "pid": os.getpid(), "name": name}
    return json.dumps({**said, "started_s": time.monotonic()}).encode() + b"\n"


def _bye(word: str) -> bytes:
    """`end` of a body that returns, `cut` of one that is stopped; and when, for whoever reads it may be late."""
    return f"{word} {time.monotonic()}\n".encode()


def _obey(word: str) -> None:
    match word.strip():
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "fail":
            raise ValueError("told to fail")


async def _act(ctx: Context, name: str, lasts_s: float = 0.0) -> int:
    reader, writer = await asyncio.open_unix_connection(os.environ["NORIA_TEST_STAGE"])
    word = "cut"
    try:
        writer.write(_hello(ctx, name))
        _obey((await reader.readline()).decode())
        await asyncio.sleep(lasts_s)
        word = "end"
    finally:
        writer.write(_bye(word))
        writer.close()
    return ctx.attempt


def _act_in_thread(ctx: Context, name: str) -> int:
    with socket.socket(socket.AF_UNIX) as stage:
        stage.connect(os.environ["NORIA_TEST_STAGE"])
        stage.sendall(_hello(ctx, name))
        _obey(stage.recv(100).decode())
        stage.sendall(_bye("end"))
    return ctx.attempt


@handler("act", backoff=QUICK)
async def act(ctx: Context, name: str = "") -> int:
    return await _act(ctx, name)


@handler("lasts", backoff=QUICK)
async def lasts(ctx: Context, name: str = "") -> int:
    """Long enough that a fault may meet it."""
    return await _act(ctx, name, 1.0)


@handler("act_in_thread", backoff=QUICK)
def act_in_thread(ctx: Context, name: str = "") -> int:
    return _act_in_thread(ctx, name)


@handler("act_in_process", cpu=True, backoff=QUICK)
def act_in_process(ctx: Context, name: str = "") -> int:
    return _act_in_thread(ctx, name)


@handler("fails", max_attempts=2, backoff=QUICK)
async def fails(ctx: Context, name: str = "") -> int:
    await _act(ctx, name)
    raise ValueError("always")


class Counter(Actor, name="counter"):
    """Counts its messages that succeed. Some fail at first, and leave the state half done."""

    count: int = 0

    @handler(backoff=QUICK)
    async def add(self, ctx: Context, name: str = "") -> int:
        self.count += 1
        await _act(ctx, name, 0.3 if name.endswith("5") else 0.0)
        if ctx.attempt == 1 and name.endswith("7"):
            raise ValueError("the first time")
        return ctx.attempt


@handler("quick")
async def quick(ctx: Context) -> int:
    return ctx.attempt


@handler("writes", backoff=QUICK)
async def writes(ctx: Context, name: str = "") -> int:
    """In the record's own database, with a child; goes to the stage when it has written."""
    async with ctx.transaction() as connection:
        await connection.execute("INSERT INTO effect VALUES ($1, $2)", ctx.task_id, ctx.attempt)
        ctx.submit(task(quick))
        return await _act(ctx, name)


@handler("blocks_the_loop")
async def blocks_the_loop(ctx: Context, seconds: float) -> int:
    time.sleep(seconds)  # noqa: ASYNC251 - the fault
    return ctx.attempt


@handler("spins", cpu=True, timeout_s=1, max_attempts=1)
def spins(ctx: Context) -> int:
    while True:
        pass


@handler("huge", max_attempts=3)
async def huge(ctx: Context, megabytes: int) -> str:
    return "x" * (megabytes << 20)


@handler("huge_in_process", cpu=True)
def huge_in_process(ctx: Context, megabytes: int) -> str:
    return "x" * (megabytes << 20)


@handler("fan", backoff=QUICK)
async def fan(ctx: Context, name: str, count: int) -> int:
    """Parts and a join, committed with the outcome of this one."""
    parts = [task(act, name=f"{name}-{n}") for n in range(count)]
    ctx.submit(chord(parts, then=task(gather, name=name, count=count)))
    return await _act(ctx, name)


@handler("gather", backoff=QUICK)
async def gather(ctx: Context, name: str, count: int) -> int:
    """Runs when all parts have ended, with the result of each."""
    found = ctx.parents.results(int)
    if len(found) != count or not all(found):
        raise RuntimeError(f"the results of the parts are {found}")
    return await _act(ctx, f"{name}-join")
