"""Server-sent events: changes of tasks, as they happen on this node.

Law: a reader costs one position in the node's log and one small buffer. Writing waits for the reader, the log
does not: who is too slow finds `event: gap`. What happens within 20 ms goes out in one write. Event ids are
`<start>-<sequence>`, so that an id of an earlier start of the node is never taken for one of this.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from actors.activity import Gap, TaskEvent
from node.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from node.http.route import Call

COMMENT_S: Final = 15.0
_PACE_S: Final = 0.02
_BUFFER_MAX: Final = 500  # events that are encoded and not written yet
_RETRY_MS: Final = 1000
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}


async def serve(call: Call) -> web.StreamResponse:
    """Answers until the reader leaves or the node stops. Raises Problem('overloaded')."""
    api, query = call.api, call.query
    if len(api.streams) >= api.options.event_streams_max:
        raise Problem("overloaded", f"{len(api.streams)} streams of events are open", retry_after_s=5)
    after, lost = _position(call.request.headers.get("Last-Event-ID"), api.start)
    stream = Stream(api.start, frozenset(query.get("state", ())), frozenset(query.get("handler", ())))
    if lost:
        stream.put(Gap(-1))
    response = web.StreamResponse(headers=_HEADERS)
    api.streams.add(stream)
    try:
        await response.prepare(call.request)
        with call.service.subscribe(after) as events:
            await stream.run(events, response)
    except* ConnectionResetError:
        pass  # the reader left
    finally:
        api.streams.discard(stream)
    return response


def _position(last_id: str | None, start: str) -> tuple[int | None, bool]:
    """(sequence to go on after, whether events were lost for good); None: from now on."""
    if not last_id:
        return None, False
    found = re.fullmatch(r"([0-9a-f]{1,32})-([0-9]{1,18})", last_id, re.ASCII)
    if found is None or found[1] != start:
        return 0, True  # of another start: all that this one has, after a gap of unknown size
    return int(found[2]), False


class Stream:
    """One reader: events in, frames out."""

    def __init__(self, start: str, states: frozenset[str], handlers: frozenset[str]) -> None:
        self._start = start
        self._states = states
        self._handlers = handlers
        self._frames: list[bytes] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._stopped = False

    def stop(self) -> None:
        """End the answer in good order."""
        self._stopped = True
        self._news.set()

    def put(self, event: TaskEvent | Gap) -> None:
        if isinstance(event, TaskEvent) and not self._wanted(event):
            return
        self._frames.append(_frame(event, self._start))
        self._news.set()
        if len(self._frames) >= _BUFFER_MAX:
            self._room.clear()

    def _wanted(self, event: TaskEvent) -> bool:
        return (not self._states or event.state in self._states) and (
            not self._handlers or event.handler in self._handlers
        )

    async def run(self, events: AsyncIterator[TaskEvent | Gap], response: web.StreamResponse) -> None:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(events))
            try:
                await self._write(response)
            finally:
                reader.cancel()

    async def _read(self, events: AsyncIterator[TaskEvent | Gap]) -> None:
        async for event in events:
            self.put(event)
            if not self._room.is_set():
                await self._room.wait()
        self.stop()

    async def _write(self, response: web.StreamResponse) -> None:
        await response.write(f"retry: {_RETRY_MS}\n: hello\n\n".encode())
        while not self._stopped:
            try:
                async with asyncio.timeout(COMMENT_S):
                    await self._news.wait()
            except TimeoutError:
                await response.write(b": alive\n\n")
                continue
            self._news.clear()
            frames, self._frames = self._frames, []
            self._room.set()
            if frames:
                await response.write(b"".join(frames))
                await asyncio.sleep(_PACE_S)


def _frame(event: TaskEvent | Gap, start: str) -> bytes:
    if isinstance(event, Gap):
        return b"event: gap\ndata: " + orjson.dumps({"missed": event.missed}) + b"\n\n"
    data: Mapping[str, object] = {
        "id": event.id,
        "handler": event.handler,
        "state": event.state,
        "attempt": event.attempt,
        "at": event.at,
        "error_type": event.error_type,
        "run_s": event.run_s,
    }
    line = orjson.dumps(data, option=orjson.OPT_UTC_Z)
    return b"id: %s-%d\nevent: task\ndata: %s\n\n" % (start.encode(), event.sequence, line)
