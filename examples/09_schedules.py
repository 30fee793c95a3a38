"""A report at three in the morning on the wall clock of Berlin, once each night, whatever nodes there are.

    noria dev examples/09_schedules.py

    noria schedule set nightly --cron "0 3 * * *" --tz Europe/Berlin report kind=full
    noria schedule set ping --every 30s --overlap skip report kind=short
    noria schedules                     # when they fire, when they did last, and what became of that task
    noria schedule next nightly -n 3    # 3:00 in winter is 02:00Z, in summer 01:00Z
    noria schedule run nightly          # a task now
    noria schedule pause nightly        # what falls into a pause is not made up for

Nobody leads: any node may fire a schedule, in one transaction that stores the task and moves the schedule on. What
nobody was there for is made up for as `catch_up` says: skip, last (the newest, the default) or all.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from actors import Context, handler, task
from node.client import ScheduleInfo, SyncClient


@handler
async def report(ctx: Context, kind: Literal["full", "short"]) -> str:
    """`fire_at` is the time that it was to fire at, however late it runs."""
    fire_at = datetime.fromisoformat(ctx.metadata["fire_at"])
    return f"{kind} report of {ctx.metadata['schedule']} for {fire_at:%Y-%m-%d}"


def set_up(url: str) -> ScheduleInfo:
    """The same from a program, as often as it starts: what is there already stays as it is."""
    with SyncClient(url) as client:
        return client.put_schedule(
            "nightly",
            task(report, kind="full").options(priority="low"),
            cron="0 3 * * *",
            time_zone="Europe/Berlin",
            catch_up="last",
            overlap="skip",
        )


if __name__ == "__main__":
    for at in set_up("http://127.0.0.1:8080").next:
        print(at)
