"""Task id, attempt and trace on every log record that is made anywhere inside a handler.

Law: one context variable is set once per attempt; records read it when they are made. So it works in the
handler's thread too (the executor runs it in a copy of the context), and costs nothing where nothing is
logged.

    install()           all logging.Handlers of the root logger; %(task_id)s … may stand in their formats
    install(handler)    one of the author's own
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from actors.authoring.batching import BatchContext

if TYPE_CHECKING:
    from collections.abc import Generator

    from actors.authoring.context import Context

current_attempt: ContextVar[Context | BatchContext | None] = ContextVar("noria_current_attempt", default=None)

FIELDS: Final = ("task_id", "attempt", "handler", "trace_id")


@contextmanager
def attempt_logged(context: Context) -> Generator[None, None, None]:
    """Records made inside belong to this attempt. (On the hot path: `current_attempt.set` and `reset`.)"""
    token = current_attempt.set(context)
    try:
        yield
    finally:
        current_attempt.reset(token)


class AttemptFilter(logging.Filter):
    """Adds `task_id`, `attempt`, `handler` and `trace_id` (each "" outside a handler) to every record.

    What the author gave as `extra` under one of these names stays. That is why this is a filter and no record
    factory: with fields of the factory's, such an `extra` would be a KeyError in the author's code.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        context = current_attempt.get()
        fields = record.__dict__
        if context is None:
            for name in FIELDS:
                fields.setdefault(name, "")
        elif isinstance(
            context, BatchContext
        ):  # many tasks: which of them a record is about, only the author knows
            for name in FIELDS:
                fields.setdefault(name, context.handler if name == "handler" else "")
        else:
            fields.setdefault("task_id", str(context.task_id))
            fields.setdefault("attempt", context.attempt)
            fields.setdefault("handler", context.handler)
            fields.setdefault("trace_id", context.trace_id)
        return True


def install(*handlers: logging.Handler) -> None:
    """Let these logging.Handlers, or those that the root logger has now, carry the fields. Repeatable."""
    for each in handlers or logging.getLogger().handlers:
        if not any(isinstance(known, AttemptFilter) for known in each.filters):
            each.addFilter(AttemptFilter())
