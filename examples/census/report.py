"""What the record shows when the play is over: tables for people, and checks that decide the exit code."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from examples.census.screen import console
from examples.census.story import DRAINED, KILLED, TWICE, Expected, Played
from node.client import AttemptInfo, Client, TaskInfo
from runtime.core.ring import build_table, moved

WAYS = {"born": "born", "pulled": "pull", "stolen": "steal", "offered": "offer"}

BURNS = ("failed", "timed_out")
HOW = """
  born     started by the node that it was posted to, which had room
  pulled   found waiting in PostgreSQL by the node that owns its slot
  stolen   found by another node that had room
  offered  told to the owner by a message over RabbitMQ
"""


@dataclass(frozen=True, slots=True)
class Moved:
    """An attempt that ended without an outcome, and the one that came after it."""

    ended: AttemptInfo
    next: AttemptInfo


@dataclass(frozen=True, slots=True)
class Record:
    """All tasks, and the attempts of those that had more than one."""

    tasks: dict[str, TaskInfo]
    attempts: dict[str, list[AttemptInfo]]

    @classmethod
    async def read(cls, client: Client) -> Record:
        tasks = {info.id: info async for info in client.tasks()}
        repeated = [task_id for task_id, info in tasks.items() if info.attempt > 1]
        attempts = await asyncio.gather(*map(client.attempts, repeated))
        return cls(tasks, dict(zip(repeated, attempts, strict=True)))

    def moved(self, kind: str) -> list[Moved]:
        """Attempts of this kind ("crashed", "released") that another one followed."""
        return [
            Moved(one, other)
            for attempts in self.attempts.values()
            for one, other in pairwise(attempts)
            if one.kind == kind
        ]

    def failures(self) -> list[str]:
        """What attempts met that failed and were repeated."""
        return [
            f"{self.tasks[task_id].handler} on {one.node}: {one.error.type}: {one.error.message}"
            for task_id, attempts in self.attempts.items()
            for one in attempts
            if one.kind in BURNS and one.error is not None
        ]

    def exact(self, task_id: str) -> bool:
        """Its budgets count what failed and what crashed, and nothing else."""
        info, kinds = self.tasks[task_id], Counter(one.kind for one in self.attempts.get(task_id, []))
        return (info.failures, info.crashes) == (sum(kinds[kind] for kind in BURNS), kinds["crashed"])

    def sound(self, task_id: str) -> bool:
        """One outcome, of its newest attempt; those before it committed nothing."""
        info = self.tasks.get(task_id)
        if info is None or info.state != "succeeded":
            return False
        kinds = [one.kind for one in self.attempts.get(task_id, [])] or ["succeeded"]
        return len(kinds) == info.attempt and kinds.index("succeeded") == info.attempt - 1


async def report(client: Client, played: Played, expected: Expected) -> bool:
    """Print it; whether all checks hold."""
    record = await Record.read(client)
    console.print(_ring(await client.views(limit=100), list(played.watch.claims)))
    console.print(_work(record, played))
    console.print(HOW, soft_wrap=True)
    _events(record, played)
    checks = _checks(record, played, expected)
    for text, holds in checks.items():
        console.print(f"  {'[green]yes[/]' if holds else '[red]NO [/]'}  {text}", soft_wrap=True)
    return all(checks.values())


def _ring(views: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """`views` newest first. Every node makes the same table of the same view, and so does this."""
    table = _table("Who owned how many of the 4096 slots, view by view", "view", "what changed")
    for column in (*names, "slots that moved"):
        table.add_column(column, justify="right")
    before = build_table({})
    for view in reversed(views):
        active = {each["node"]: each["weight"] for each in view["members"] if each["standing"] == "active"}
        owners = build_table(active)
        slots = Counter(owners)
        cells = [f"{slots[name]:,}" if slots[name] else "-" for name in names]
        change = f"{len(moved(before, owners)):,}" if before and owners else "-"
        table.add_row(str(view["number"]), view["reason"], *cells, change)
        before = owners
    return table


def _work(record: Record, played: Played) -> Table:
    done = Counter(info.node for info in record.tasks.values())
    table = _table("Who did the work, and how it came to them", "node")
    for column in ("tasks ended", *WAYS):
        table.add_column(column, justify="right")
    for name, claims in played.watch.claims.items():
        counts = (claims[way] for way in WAYS.values())
        table.add_row(name, f"{done[name]:,}", *(f"{count:,}" if count else "-" for count in counts))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _events(record: Record, played: Played) -> None:
    crashed, released = record.moved("crashed"), record.moved("released")
    ordered = sorted(_took(record))
    console.print(
        f"  kill -9 of {KILLED:<9} cut off {len(crashed)} attempts; {_again(crashed, played.killed_at)}\n"
        f"  drain of {DRAINED:<11} handed back {len(released)} attempts; {_again(released, played.drained_at)}\n"
        f"  throughput           {len(ordered) / played.work_s:,.0f} tasks/s over {played.work_s:.1f} s, "
        f"kill and drain included\n"
        f"  accepted to outcome  p50 {ordered[len(ordered) // 2]:.1f} s, p99 {ordered[len(ordered) * 99 // 100]:.1f} s"
        " (all were posted at once)\n",
        soft_wrap=True,
    )


def _again(moved: Sequence[Moved], since: datetime | None) -> str:
    delays = [(one.next.started_at - since).total_seconds() for one in moved if one.next.started_at and since]
    if not delays:
        return "nothing had to run again"
    where = ", ".join(
        f"{name} {count}" for name, count in sorted(Counter(one.next.node or "?" for one in moved).items())
    )
    return f"in their turn they ran again {min(delays):.1f} to {max(delays):.1f} s later ({where})"


def _took(record: Record) -> list[float]:
    return [
        (info.finished_at - info.created_at).total_seconds()
        for info in record.tasks.values()
        if info.finished_at is not None
    ]


def _checks(record: Record, played: Played, expected: Expected) -> dict[str, bool]:
    crashed, released = record.moved("crashed"), record.moved("released")
    failures = record.failures()
    return {
        f"{expected.total['files']} files, {expected.total['lines']:,} lines, {expected.total['tokens']:,} tokens: the tasks "
        "counted what a single process counts": played.total == expected.total,
        f"{len(expected.digests)} digests are those of the files": played.digests == expected.digests,
        f"{TWICE} tasks were posted twice and accepted once": played.duplicates == TWICE,
        f"nothing was lost: all {len(played.ids):,} accepted tasks are on record, and there are no others": set(
            played.ids
        )
        == record.tasks.keys(),
        "nothing was committed twice: each has one outcome, that of its newest attempt": all(
            map(record.sound, played.ids)
        ),
        f"only the killed node lost attempts, {len(crashed)} of them": {one.ended.node for one in crashed}
        <= {KILLED},
        f"the drain burnt no attempt of a budget: {len(released)} handed back, none of them counted": all(
            map(record.exact, record.tasks)
        ),
        f"no attempt failed{''.join(f'{chr(10)}       {failure}' for failure in failures)}": not failures,
    }
