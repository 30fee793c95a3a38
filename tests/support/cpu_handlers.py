"""Bodies for child processes; also a module that a child can load."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from actors import Context, Fail, Retry, handler, task


@handler(cpu=True)
def cpu_add(ctx: Context, a: int, b: int) -> int:
    return a + b


@handler(cpu=True)
def cpu_pid(ctx: Context) -> int:
    return os.getpid()


@handler(cpu=True)
def cpu_dies(ctx: Context, how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "abort":
        os.kill(os.getpid(), signal.SIGABRT)


@handler(cpu=True)
def cpu_raises(ctx: Context, what: str) -> None:
    match what:
        case "fail":
            raise Fail("final")
        case "retry":
            raise Retry("busy", after_s=7)
        case "exit":
            raise SystemExit(2)
        case "snooze":
            ctx.snooze(9)
    raise ValueError(what)


@handler(cpu=True)
def cpu_sleeps(ctx: Context) -> None:
    ctx.progress(1, 2, "asleep")
    time.sleep(600)


@handler(cpu=True)
def cpu_parent(ctx: Context, n: int) -> dict[str, Any]:
    print("standard output is not the line to the node")  # noqa: T201 - that is the point
    ctx.submit(task(cpu_add, a=n, b=1).options(idempotency_key=f"k{n}", delay_s=5))
    return {"attempt": ctx.attempt, "metadata": dict(ctx.metadata), "key": ctx.idempotency_key}


@handler(cpu=True)
def cpu_large(ctx: Context) -> bytes:
    return b"x" * (1 << 20)
