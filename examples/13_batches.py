"""Many tasks in one call: letters that are sent a hundred at a time, each with an outcome of its own.

    noria dev examples/13_batches.py

    noria submit send_letters letter='{"to": "ada@example.org", "text": "hello"}' --wait 5
    noria submit send_letters letter='{"to": "nobody", "text": "hello"}' --wait 5       # fails, and only this one
    noria submit embed_texts text="a task carries one element of the list" --wait 5

A call begins with `max` tasks, or when the first of them has waited `wait_s`. What stands in a task's place in the list
is what it came to: a result, or an exception, which is tried again or not as if the task had raised it by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from actors import Batch, BatchContext, Context, Fail, Retry, handler


@dataclass
class Letter:
    to: str
    text: str


class Busy(Exception):
    """The server takes no more now."""


async def post_all(letters: list[Letter]) -> list[str]:
    """A service's bulk call: one answer for each."""
    await asyncio.sleep(0.01)
    if len(letters) > 100:
        raise Busy  # the whole call: each of its tasks is tried again
    return ["sent" if "@" in letter.to else "unknown" for letter in letters]


@handler(batch=Batch(max=100, wait_s=0.05), max_attempts=5)
async def send_letters(ctx: BatchContext, letter: list[Letter]) -> list[str | Exception]:
    answers = await post_all(letter)
    return [Fail("no such address") if answer == "unknown" else answer for answer in answers]


@handler(batch=Batch(max=10, wait_s=0.05))
async def embed_texts(ctx: BatchContext, text: list[str]) -> list[float | BaseException]:
    """`ctx.each` are the contexts of the tasks, in the order of the list."""

    async def one(own: Context, words: str) -> float:
        own.progress(1, 1, f"attempt {own.attempt}")
        if not words:
            raise Retry("no words yet", after_s=60)
        return len(words) / len(words.split())

    return await asyncio.gather(*map(one, ctx.each, text), return_exceptions=True)
