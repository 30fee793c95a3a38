"""Handlers with large results; each start is a line in the file that NORIA_TEST_STARTS names."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from actors import Context, handler


def content(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@handler
def blob(ctx: Context, size: int, seed: int = 1, gate: str = "") -> bytes:
    """`gate` names a file that the body waits for."""
    with Path(os.environ["NORIA_TEST_STARTS"]).open("a", encoding="ascii") as file:
        file.write(f"{ctx.task_id} {ctx.attempt}\n")
    while gate and not Path(gate).exists():
        ctx.raise_if_cancelled()
        time.sleep(0.02)
    return content(size, seed)


@handler(cpu=True)
def numbers(ctx: Context, count: int) -> list[int]:
    return list(range(count))
