"""Where a body runs: `async def` in the event loop, `def` in a thread, `cpu=True` in a process of its own.

    noria dev examples/04_threads_and_processes.py

    noria submit tally path=README.md --wait
    noria submit count_primes below:=2000000 --wait

A thread cannot be stopped from outside, so a long one looks at `ctx.cancelled`. A process can: at its deadline, or
when somebody cancels the task, it is killed, whatever it does.
"""

from __future__ import annotations

from pathlib import Path

from actors import Context, handler


@handler(timeout_s=60)
def tally(ctx: Context, path: str) -> dict[str, int]:
    """Lines, words and bytes of a file. Blocking calls are fine here."""
    lines = words = size = 0
    with Path(path).open("rb") as file:
        for line in file:
            ctx.raise_if_cancelled()
            lines, words, size = lines + 1, words + len(line.split()), size + len(line)
    return {"lines": lines, "words": words, "bytes": size}


@handler(cpu=True, timeout_s=60)
def count_primes(ctx: Context, below: int) -> int:
    """Keeps one processor busy, and nobody else waiting."""
    sieve = bytearray([1]) * below
    sieve[:2] = bytes(len(sieve[:2]))
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
    return sum(sieve)
