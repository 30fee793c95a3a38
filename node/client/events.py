"""Server-sent events: parse the stream, and keep it going over broken connections.

A node sends a comment at least every 15 s; a stream that is silent for longer is dead, whatever TCP believes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from node.client.errors import Overloaded, Unreachable
from node.client.models import TaskEvent

if TYPE_CHECKING:
    from node.client.transport import Transport

SILENCE_S = 40.0
RECONNECT_MAX_S = 10.0


@dataclass(slots=True)
class Parser:
    """Feed lines (without their end), get an event at each empty line that closes one."""

    last_id: str = ""
    _kind: str = ""
    _data: list[str] = field(default_factory=list)

    def line(self, line: str) -> TaskEvent | None:
        if not line:
            return self._close()
        name, _, value = line.partition(":")  # a comment has an empty name
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self.last_id = value
        return None

    def _close(self) -> TaskEvent | None:
        kind, text = self._kind or "message", "\n".join(self._data)
        had_data, self._kind, self._data = bool(self._data), "", []
        if not had_data:
            return None
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:
            data = {"text": text}
        return TaskEvent(kind, self.last_id, data if isinstance(data, Mapping) else {"value": data})


async def follow(
    transport: Transport, params: Mapping[str, str], last_event_id: str | None
) -> AsyncGenerator[TaskEvent]:
    """Events without end; connects again (with Last-Event-ID) whenever the stream breaks or falls silent.

    Raises what the node refuses with, and Unreachable or Overloaded after `transport.policy.total_s` without a stream.
    """
    last_id = last_event_id or ""
    breaks = 0
    lost_s: float | None = time.monotonic()
    while True:
        parser = Parser(last_id)
        pause_s = 0.0
        try:
            async with transport.stream(
                "/v1/events", params=params, headers=_headers(last_id), silence_s=SILENCE_S
            ) as lines:
                async for raw in lines:
                    breaks, lost_s = 0, None
                    event = parser.line(raw.decode("utf-8", "replace").rstrip("\r\n"))
                    last_id = parser.last_id
                    if event is not None:
                        yield event
        except (Unreachable, Overloaded) as exc:
            lost_s = time.monotonic() if lost_s is None else lost_s
            if time.monotonic() - lost_s > transport.policy.total_s:
                raise
            pause_s = exc.retry_after_s if isinstance(exc, Overloaded) else 0.0
        breaks += 1
        await asyncio.sleep(pause_s + _pause_s(breaks))


def _pause_s(breaks: int) -> float:
    limit_s = min(RECONNECT_MAX_S, 0.2 * 2.0 ** min(breaks, 10))
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
    return limit_s * jitter


def _headers(last_id: str) -> dict[str, str]:
    headers = {"Accept": "text/event-stream"}
    return {**headers, "Last-Event-ID": last_id} if last_id else headers
