"""What a child process of a `cpu=True` handler runs: `python -m actors.executor.child`.

Frames come on standard input and go out on what was standard output; what a handler prints goes to standard error.
A reader thread waits for frames beside the body, so that a child ends at once when its node is gone.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any, BinaryIO
from uuid import UUID

import orjson

from actors.authoring.context import Context
from actors.authoring.parents import Parent, Parents
from actors.authoring.registry import HandlerDef, Registry
from actors.executor import frames
from actors.executor.bodies import Crashed, Ended, Raised, Returned, Snooze, Unbound, end_of


def main() -> None:
    source = sys.stdin.buffer
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    hello = frames.read(source)
    if hello is None:
        return
    registry = Registry.load(hello["sources"])
    todo: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=1)
    threading.Thread(target=_read, args=(source, todo), daemon=True).start()
    while True:
        _serve(registry, todo.get(), sink)


def _read(source: BinaryIO, todo: queue.Queue[dict[str, Any]]) -> None:
    while True:
        frame = frames.read(source)
        if frame is None:
            os._exit(0)  # the node is gone; nobody waits for the body any more
        todo.put(frame)


def _serve(registry: Registry, job: dict[str, Any], sink: BinaryIO) -> None:
    handler = registry.get(job["handler"])
    assert handler is not None, f"the child's handlers do not include {job['handler']!r}"
    context = Context(
        task_id=UUID(bytes=job["task_id"]),
        attempt=job["attempt"],
        handler=job["handler"],
        failures=job["failures"],
        idempotency_key=job["idempotency_key"],
        actor_key=job["actor_key"],
        metadata=None if job["metadata"] is None else orjson.loads(job["metadata"]),
        trace_context=job["trace_context"],
        parents=Parents([Parent(frames.parent_of(row)) for row in job["parents"]]),
        on_progress=lambda _id, _attempt, p: _write(
            sink, {"type": "progress", "progress": [p.done, p.total, p.message]}
        ),
    )
    ended = _drive(end_of(handler, job["payload"], None, _calling(handler, context), job["result_max"]))
    _write(sink, _frame(ended, context))


def _calling(handler: HandlerDef, context: Context) -> Any:
    async def call(**args: Any) -> Any:
        return handler.fn(context, **args)

    return call


def _drive(body: Coroutine[Any, Any, Ended]) -> Ended:
    """A plain function never waits, so its coroutine ends at the first step and needs no event loop."""
    try:
        body.send(None)
    except StopIteration as stop:
        ended: Ended = stop.value
        return ended
    raise AssertionError("a cpu=True handler waited")


def _frame(ended: Ended, context: Context) -> dict[str, Any]:
    match ended:
        case Returned(result, codec):
            children = [child.to_request() for child in context.children]
            return {"type": "returned", "result": result, "codec": int(codec), "children": children}
        case Raised(error, final, after_s):
            return {
                "type": "raised",
                "error": list(asdict(error).values()),
                "final": final,
                "after_s": after_s,
            }
        case Snooze(after_s):
            return {"type": "snoozed", "after_s": after_s}
        case Unbound(error):
            return {"type": "unbound", "error": list(asdict(error).values())}
        case Crashed():
            raise AssertionError("a child cannot report its own crash")


def _write(sink: BinaryIO, frame: dict[str, Any]) -> None:
    sink.write(frames.pack(frame))


if __name__ == "__main__":
    main()
