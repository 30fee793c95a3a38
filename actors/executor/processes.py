"""`cpu=True` handlers, in child processes that are killed at the deadline or on cancel.

A child is started when it is first needed, runs one body at a time and is kept for the next. When it dies by itself
(`os._exit`, a segmentation fault, the kernel's memory killer) only the task it ran has crashed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Any, Final

from actors.authoring.limits import RESULT_BYTES_MAX
from actors.authoring.task import Task
from actors.authoring.workflow import Workflow
from actors.executor import frames
from actors.executor.bodies import Crashed, Ended, Raised, Returned, Run, Snooze, Unbound
from runtime.core.task import Codec, ErrorInfo

_STREAM_LIMIT: Final = 1 << 16


class Processes:
    """`sources` names the modules or files that a child loads its handlers from."""

    def __init__(self, sources: Sequence[str], result_max: int = RESULT_BYTES_MAX) -> None:
        self._sources = list(sources)
        self._result_max = result_max
        self._idle: list[Process] = []
        self._busy: set[Process] = set()

    async def run(self, run: Run) -> Ended:
        """Run one body in a child. On cancellation the child is killed."""
        child = self._take_idle() or await self._start()
        self._busy.add(child)
        try:
            ended = await self._converse(child, run)
        except BaseException:
            await _kill(child)
            raise
        finally:
            self._busy.discard(child)
        if child.returncode is None:
            self._idle.append(child)
        return ended

    def _take_idle(self) -> Process | None:
        """One that has not died meanwhile: that would be no crash of the task that it gets."""
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None and not _is_gone(child):
                return child
        return None

    async def close(self) -> None:
        children, self._idle = [*self._idle, *self._busy], []
        await asyncio.gather(*(_kill(child) for child in children))

    async def _start(self) -> Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "actors.executor.child",
            stdin=PIPE,
            stdout=PIPE,
            stderr=None,
            limit=_STREAM_LIMIT,
        )
        await _send(child, {"sources": self._sources})
        return child

    async def _converse(self, child: Process, run: Run) -> Ended:
        claim = run.claim
        try:
            await _send(
                child,
                {
                    "handler": run.handler.name,
                    "payload": claim.payload,
                    "task_id": claim.id.bytes,
                    "attempt": claim.attempt,
                    "failures": claim.failures,
                    "idempotency_key": claim.idempotency_key,
                    "actor_key": claim.actor_key,
                    "metadata": claim.metadata,
                    "trace_context": claim.trace_context,
                    "parents": [frames.of_parent(parent.view) for parent in run.context.parents],
                    "result_max": self._result_max if run.turn is None else RESULT_BYTES_MAX,
                },
            )
            while True:
                frame = await _receive(child)
                if frame["type"] != "progress":
                    return _ended(run, frame)
                run.context.progress(*frame["progress"])
        except (BrokenPipeError, ConnectionResetError, asyncio.IncompleteReadError):
            return Crashed(
                ErrorInfo("ProcessCrashed", f"the process of {run.handler.name} {await _obituary(child)}")
            )


def _ended(run: Run, frame: dict[str, Any]) -> Ended:
    match frame["type"]:
        case "returned":
            run.context.adopt([_child(request) for request in frame["children"]])
            return Returned(frame["result"], Codec(frame["codec"]))
        case "raised":
            return Raised(ErrorInfo(*frame["error"]), final=frame["final"], after_s=frame["after_s"])
        case "snoozed":
            return Snooze(frame["after_s"])
        case "unbound":
            return Unbound(ErrorInfo(*frame["error"]))
    raise AssertionError(f"unknown frame {frame['type']!r} from a child process")


def _child(request: dict[str, Any]) -> Task[Any] | Workflow:
    return Workflow.from_request(request) if "tasks" in request else Task.from_request(request)


def _is_gone(child: Process) -> bool:
    """Its end of the pipe is closed, which shows before its return code does."""
    return child.stdin is None or child.stdin.is_closing()


async def _send(child: Process, frame: dict[str, Any]) -> None:
    assert child.stdin is not None
    if _is_gone(child):
        raise BrokenPipeError("it does not read any more")  # uvloop would raise a RuntimeError
    child.stdin.write(frames.pack(frame))
    await child.stdin.drain()


async def _receive(child: Process) -> dict[str, Any]:
    assert child.stdout is not None
    size = frames.length(await child.stdout.readexactly(frames.LENGTH_BYTES))
    return frames.unpack(await child.stdout.readexactly(size))


async def _obituary(child: Process) -> str:
    code = await child.wait()
    if code >= 0:
        return f"exited with code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


async def _kill(child: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    if child.stdin is not None:
        child.stdin.close()
    await child.wait()
