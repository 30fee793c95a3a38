"""Waiting without holding a slot, and saying how far the work is.

    noria dev examples/05_snooze_and_progress.py

    noria submit await_delivery parcel=4711 --wait
    noria submit import_rows rows:=50000     # then look at it in the console, or with noria status ID

`ctx.snooze` ends the attempt and runs the handler again later: no slot is held and no failure is counted, so a task
may snooze for months. `ctx.progress` may be called as often as you like; the newest is written once a second.
"""

from __future__ import annotations

import asyncio

from actors import Context, handler


class Carrier:
    """Stands for a service that knows where parcels are."""

    async def delivered(self, parcel: str, asked: int) -> bool:
        return asked > 3


CARRIER = Carrier()


@handler(max_attempts=3)
async def await_delivery(ctx: Context, parcel: str, every_s: float = 5) -> str:
    if not await CARRIER.delivered(parcel, ctx.attempt):
        ctx.snooze(every_s)
    return f"{parcel} was delivered; asked {ctx.attempt} times, failed {ctx.failures}"


@handler(timeout_s=600)
async def import_rows(ctx: Context, rows: int, chunk: int = 1000) -> int:
    for done in range(0, rows, chunk):
        await asyncio.sleep(0.02)  # a chunk is written
        ctx.progress(min(done + chunk, rows), rows, f"row {done}")
    return rows
