"""Waiting for tasks to end by long polls: few requests, none of them busy.

A node answers a long poll early when it drains, so an early answer is followed by a pause. Many tasks are waited
for with a bounded number of polls at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from node.client.errors import ServerFault, WaitTimeout
from node.client.models import FINAL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence

    from node.client.transport import Transport

LONG_POLL_S = 20.0
GRACE_S = 3.0  # on top of what a caller waits, for the last answer to arrive
POLLS_AT_ONCE = 32
TURN_MIN_S = 0.25
TURN_MAX_S = 4.0

S = TypeVar("S")
T = TypeVar("T")


def task_path(task_id: str, rest: str = "") -> str:
    return f"/v1/tasks/{quote(task_id, safe='')}{rest}"


def seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


async def poll(
    transport: Transport, task_id: str, wait_s: float, within_s: float | None = None
) -> Mapping[str, Any]:
    """The task as it is when it has ended or `wait_s` is over."""
    params = {"wait": seconds(wait_s)} if wait_s > 0 else None
    answer = await transport.call(
        "GET", task_path(task_id), params=params, wait_s=max(wait_s, 0), within_s=within_s
    )
    raw = answer.json()
    if not (isinstance(raw, dict) and "state" in raw):
        raise ServerFault(f"expected a task, got {answer.body[:80]!r}", status=answer.status)
    return raw


async def wait_final(transport: Transport, task_id: str, timeout_s: float | None) -> Mapping[str, Any]:
    """The task once it is final. Raises WaitTimeout after `timeout_s`, with at least one look at the task."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    early = 0
    while True:
        asked_s = time.monotonic()
        left_s = LONG_POLL_S if deadline_s is None else max(deadline_s - asked_s, 0.0)
        wait_s = min(left_s, LONG_POLL_S)
        within_s = None if deadline_s is None else left_s + GRACE_S
        raw = await poll(transport, task_id, wait_s, within_s)
        if raw["state"] in FINAL:
            return raw
        now_s = time.monotonic()
        if deadline_s is not None and now_s >= deadline_s - 0.001:
            raise WaitTimeout(task_id, timeout_s or 0.0, raw["state"])
        if now_s - asked_s >= wait_s * 0.9:
            early = 0
            continue
        early += 1
        pause_s = min(0.05 * 2 ** min(early, 5), 1.0)
        await asyncio.sleep(pause_s if deadline_s is None else min(pause_s, max(deadline_s - now_s, 0.0)))


async def bounded(items: Iterable[S], do: Callable[[S], Coroutine[Any, Any, T]], at_once: int) -> list[T]:
    """`do` for all items with at most `at_once` at a time; results in order. The first exception ends the others."""
    results: dict[int, T] = {}
    queue = enumerate(items)

    async def worker() -> None:
        for index, item in queue:
            results[index] = await do(item)

    workers = [asyncio.ensure_future(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for w in workers:
            w.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(results))]


async def as_ended(
    transport: Transport, ids: Sequence[str], timeout_s: float | None
) -> AsyncGenerator[tuple[int, Mapping[str, Any]]]:
    """(index, final task) in the order in which they are seen to end.

    With more tasks than polls, tasks take turns: a turn is short, and longer after each round in which none
    ended. Raises WaitTimeout for the first task that is not final in time.
    """
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    pending = deque(enumerate(ids))
    polls: dict[asyncio.Task[Mapping[str, Any]], tuple[int, str]] = {}
    turn_s, fruitless = TURN_MIN_S, 0
    try:
        while pending or polls:
            waiting = len(pending) + len(polls)
            while pending and len(polls) < POLLS_AT_ONCE:
                entry = pending.popleft()
                wait_s = turn_s if waiting > POLLS_AT_ONCE else LONG_POLL_S
                polls[asyncio.ensure_future(_turn(transport, entry[1], wait_s, deadline_s))] = entry
            done, _ = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                index, task_id = polls.pop(future)
                raw = future.result()
                if raw["state"] in FINAL:
                    turn_s, fruitless = TURN_MIN_S, 0
                    yield index, raw
                    continue
                if deadline_s is not None and time.monotonic() >= deadline_s:
                    raise WaitTimeout(task_id, timeout_s or 0.0, raw["state"])
                pending.append((index, task_id))
                fruitless += 1
                if fruitless >= waiting:
                    turn_s, fruitless = min(turn_s * 2, TURN_MAX_S), 0
    finally:
        for future in polls:
            future.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


async def _turn(
    transport: Transport, task_id: str, wait_s: float, deadline_s: float | None
) -> Mapping[str, Any]:
    """A poll that takes `wait_s` unless the task ends or the time is over: nodes that drain answer early."""
    asked_s = time.monotonic()
    within_s = None
    if deadline_s is not None:
        wait_s = min(wait_s, max(deadline_s - asked_s, 0.0))
        within_s = max(deadline_s - asked_s, 0.0) + GRACE_S
    raw = await poll(transport, task_id, wait_s, within_s)
    if raw["state"] not in FINAL:
        await asyncio.sleep(max(asked_s + min(wait_s, TURN_MAX_S) - time.monotonic(), 0.0))
    return raw
