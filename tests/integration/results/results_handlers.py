"""Handlers with large results; each start is a line in the file that NORIA_TEST_STARTS names."""

from __future__ import annotations

import os
import random
from pathlib import Path

from actors import Context, handler


def content(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@handler
def blob(ctx: Context, size: int, seed: int = 1) -> bytes:
    with Path(os.environ["NORIA_TEST_STARTS"]).open("a", encoding="ascii") as file:
        file.write(f"{ctx.task_id} {ctx.attempt}\n")
    return content(size, seed)


@handler(cpu=True)
def numbers(ctx: Context, count: int) -> list[int]:
    return list(range(count))
