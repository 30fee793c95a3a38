"""The play that both demos show: work for a cluster, one node killed, another asked to leave, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from rich.progress import Progress, TaskID

from actors import task
from examples.census.handlers import Count, archive, count_file, merge
from examples.census.report import report
from examples.census.screen import bars, console, doing
from examples.census.story import DRAINED, KILLED, TWICE, Expected, Place, Played
from examples.census.watch import Watch
from node.client import Client, TaskHandle

KILL_AT, DRAIN_AT = 20, 55  # percent of the archiving that is done by then
MERGE_SIZE = 50
AT_ONCE = 24  # results that are waited for at the same time, of each kind
RESULT_S = 90.0


async def play(place: Place, paths: list[str], directly: Callable[[], Awaitable[Expected]]) -> bool:
    """Whether everything is as it must be."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(url, retry_for_s=30)) for url in place.urls.values()
        ]
        played = Played(await stack.enter_async_context(Watch(place.urls)))
        began_s = time.monotonic()
        await _work(place, clients, paths, played)
        played.work_s = time.monotonic() - began_s
        async with doing("computing the same directly, in one process"):
            expected = await directly()
        return await report(clients[0], played, expected)


async def _work(place: Place, clients: Sequence[Client], paths: list[str], played: Played) -> None:
    console.print(
        f"{len(place.urls)} nodes run. Posting two tasks for each of {len(paths)} source files, a third through each"
        f" node.\nOn the way {KILLED} is killed, and {DRAINED} is asked to leave.",
        soft_wrap=True,
    )
    counts, digests = await _post(clients, paths, played)
    async with bars() as progress:
        counting, archiving = (
            progress.add_task(name, total=len(paths)) for name in ("counting", "archiving")
        )
        parts, played.digests, _ = await asyncio.gather(
            _results(counts, progress, counting),
            _results(digests, progress, archiving),
            _interfere(place, clients[0], lambda: progress.tasks[archiving].percentage, played),
        )
        played.total = await _merged(clients[0], parts, played)


async def _post(
    clients: Sequence[Client], paths: list[str], played: Played
) -> tuple[list[TaskHandle[Count]], list[TaskHandle[str]]]:
    """Handles in the order of the paths, all of the first client: its node stays."""
    counting = [task(count_file, path=path).options(idempotency_key=f"count:{path}") for path in paths]
    archiving = [task(archive, path=path).options(idempotency_key=f"archive:{path}") for path in paths]
    ids: dict[str, str] = {}
    for number, client in enumerate(clients):
        for work in (counting[number :: len(clients)], archiving[number :: len(clients)]):
            handles = await client.submit_many(work)
            ids |= {str(one.idempotency_key): handle.id for one, handle in zip(work, handles, strict=True)}
    again = await clients[-1].submit_many(counting[:TWICE])
    played.duplicates = sum(one.id == ids[f"count:{path}"] for one, path in zip(again, paths, strict=False))
    played.ids += ids.values()
    stays = clients[0]
    return (
        [stays.handle(ids[f"count:{path}"], like=one) for path, one in zip(paths, counting, strict=True)],
        [stays.handle(ids[f"archive:{path}"], like=one) for path, one in zip(paths, archiving, strict=True)],
    )


async def _results(handles: Sequence[TaskHandle[Any]], progress: Progress, row: TaskID) -> list[Any]:
    """All of them, in order."""
    room = asyncio.Semaphore(AT_ONCE)

    async def result(handle: TaskHandle[Any]) -> Any:
        async with room:
            found = await handle.result(timeout_s=RESULT_S)
        progress.advance(row)
        return found

    return await asyncio.gather(*map(result, handles))


async def _interfere(place: Place, client: Client, percentage: Callable[[], float], played: Played) -> None:
    """Kill a node, and then ask another to leave."""
    await _until(lambda: percentage() >= KILL_AT)
    await played.watch.look()
    played.killed_at = datetime.now(UTC)
    console.print(f"[red]{await place.kill(KILLED)}[/]")
    await _until(lambda: percentage() >= DRAIN_AT)
    await played.watch.look()
    played.drained_at = datetime.now(UTC)
    await client.drain(DRAINED)
    console.print(f"[yellow]asked {DRAINED} to leave, as `noria drain {DRAINED}` does[/]")


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - twenty looks a second are simpler than an event
        await asyncio.sleep(0.05)


async def _merged(client: Client, parts: list[Count], played: Played) -> Count:
    while len(parts) > 1:
        groups = [parts[start : start + MERGE_SIZE] for start in range(0, len(parts), MERGE_SIZE)]
        handles = await client.submit_many([task(merge, parts=group) for group in groups])
        played.ids += [handle.id for handle in handles]
        parts = [await handle.result(timeout_s=RESULT_S) for handle in handles]
    return parts[0]
