"""Bodies in child processes: real ones, started and killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from actors.authoring.context import Context
from actors.authoring.registry import Registry
from actors.executor.bodies import Crashed, Ended, Raised, Returned, Run, Snooze, Unbound
from actors.executor.processes import Processes
from runtime.core.task import Claim, Codec, Progress
from tests.support import cpu_handlers
from tests.support.factories import new_id

SOURCE = "tests.support.cpu_handlers"
REGISTRY = Registry.load([SOURCE])


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    some = Processes([SOURCE])
    yield some
    await some.close()


def a_run(name: str, payload: bytes = b"{}", on_progress: Any = None, **fields: Any) -> Run:
    handler = REGISTRY.get(name)
    assert handler is not None
    now = datetime.now(UTC)
    claim = Claim(
        id=new_id(), attempt=2, band=1, slot=0, seq=1, failures=0, crashes=0, payload=payload,
        payload_codec=Codec.JSON, max_attempts=3, timeout_s=5, started_at=now, waited_s=0, created_at=now, **fields,
    )  # fmt: skip
    context = Context(task_id=claim.id, attempt=2, handler=name, on_progress=on_progress)
    return Run(claim, handler, context)


async def end(processes: Processes, name: str, payload: bytes = b"{}") -> Ended:
    return await processes.run(a_run(name, payload))


async def test_a_result_comes_back_and_the_process_is_kept(processes: Processes) -> None:
    assert await end(processes, "cpu_add", b'{"a": 2, "b": 40}') == Returned(b"42", Codec.JSON)
    assert await end(processes, "cpu_pid") == await end(processes, "cpu_pid")


async def test_a_process_that_is_about_to_end_gets_no_body(processes: Processes) -> None:
    first = await end(processes, "cpu_pid")
    [idle] = processes._idle  # to end it at a moment of our choice
    assert idle.stdin is not None
    idle.stdin.close()
    assert idle.returncode is None
    other = await end(processes, "cpu_pid")
    assert isinstance(other, Returned)
    assert other != first
    await idle.wait()


async def test_the_context_crosses_and_so_do_children(processes: Processes) -> None:
    run = a_run("cpu_parent", b'{"n": 3}', idempotency_key="mine", metadata=b'{"by": "me"}')
    ended = await processes.run(run)
    assert ended == Returned(b'{"attempt":2,"metadata":{"by":"me"},"key":"mine"}', Codec.JSON)
    [child] = run.context.children
    assert (child.handler, child.payload, child.idempotency_key, child.delay_s) == (
        "cpu_add", {"a": 3, "b": 1}, "k3", 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "kind", "message", "final", "after_s"),
    [
        ("fail", "Fail", "final", True, None),
        ("retry", "Retry", "busy", False, 7),
        ("exit", "SystemExit", "2", False, None),
        ("anything", "ValueError", "anything", False, None),
    ],
)
async def test_what_it_raises_comes_back(
    processes: Processes, what: str, kind: str, message: str, *, final: bool, after_s: float | None
) -> None:
    ended = await end(processes, "cpu_raises", b'{"what": "%b"}' % what.encode())
    assert isinstance(ended, Raised)
    assert (ended.error.type, ended.error.message, ended.final, ended.after_s) == (
        kind,
        message,
        final,
        after_s,
    )


async def test_snoozed_unbound_and_too_large(processes: Processes) -> None:
    assert await end(processes, "cpu_raises", b'{"what": "snooze"}') == Snooze(9)
    assert isinstance(await end(processes, "cpu_add", b'{"a": "x"}'), Unbound)
    large = await end(processes, "cpu_large")
    assert isinstance(large, Raised)
    assert (large.error.type, large.final) == ("ResultTooLarge", True)


@pytest.mark.parametrize(
    ("how", "obituary"), [("exit", "exited with code 3"), ("abort", "was killed by SIGABRT")]
)
async def test_a_process_that_dies_is_a_crash_of_its_task_only(
    processes: Processes, how: str, obituary: str
) -> None:
    beside = asyncio.create_task(end(processes, "cpu_pid"))
    ended = await end(processes, "cpu_dies", b'{"how": "%b"}' % how.encode())
    assert isinstance(ended, Crashed)
    assert ended.error.message == f"the process of cpu_dies {obituary}"
    assert isinstance(await beside, Returned)
    assert await end(processes, "cpu_add", b'{"a": 1, "b": 1}') == Returned(b"2", Codec.JSON)


async def test_a_body_that_is_cancelled_is_killed(processes: Processes) -> None:
    reported: asyncio.Queue[Progress] = asyncio.Queue()
    body = a_run("cpu_sleeps", on_progress=lambda _id, _attempt, told: reported.put_nowait(told))
    running = asyncio.create_task(processes.run(body))
    assert (await reported.get()).message == "asleep"
    [child] = processes._busy
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert child.returncode == -signal.SIGKILL


async def test_a_process_that_died_while_it_was_idle_is_nobodys_crash(processes: Processes) -> None:
    first = await end(processes, "cpu_pid")
    assert isinstance(first, Returned)
    [idle] = processes._idle
    os.kill(int(first.result), signal.SIGKILL)
    await idle.wait()
    second = await end(processes, "cpu_pid")
    assert isinstance(second, Returned)
    assert second.result != first.result


async def test_closing_leaves_no_process_behind() -> None:
    some = Processes([SOURCE])
    await end(some, "cpu_pid")
    [idle] = some._idle
    await some.close()
    assert idle.returncode == -signal.SIGKILL


def test_the_module_that_children_load_is_the_one_that_is_tested() -> None:
    assert REGISTRY.get("cpu_add") is not None
    assert REGISTRY.get("cpu_add").fn is cpu_handlers.cpu_add  # type: ignore[union-attr] # asserted above
