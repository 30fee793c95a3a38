"""Task events as other services read them: JSON arrays, many events in a message, one routing key in each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runtime.ports import Event

_KEY_MAX = 255  # bytes, by AMQP; handler names are ASCII and may be as long alone


class EventMessage(NamedTuple):
    routing_key: str
    message_id: str  # of the first event
    body: bytes


def event_messages(events: Sequence[Event]) -> Iterator[EventMessage]:
    """`task.<state>.<handler>`, cut where it is too long; in the order of each key's first event."""
    by_key: dict[str, list[Event]] = {}
    for event in events:
        by_key.setdefault(f"task.{event.state}.{event.handler}"[:_KEY_MAX], []).append(event)
    for key, of_key in by_key.items():
        body = orjson.dumps([{**event.body, "event_id": event.id} for event in of_key])
        yield EventMessage(key, of_key[0].id, body)
