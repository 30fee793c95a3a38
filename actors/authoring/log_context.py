"""Task id, attempt and trace on every log record that is made anywhere inside a handler.

Law: one context variable is set once per attempt; records read it when they are made. So it works in the
handler's thread too (the executor runs it in a copy of the context), and costs nothing where nothing is
logged.

    handler.addFilter(AttemptFilter())    one logging.Handler; %(task_id)s … may stand in its format
    install()                             every record of the process
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    from actors.authoring.context import Context

current_attempt: ContextVar[Context | None] = ContextVar("noria_current_attempt", default=None)

FIELDS = ("task_id", "attempt", "handler", "trace_id")


@contextmanager
def attempt_logged(context: Context) -> Generator[None, None, None]:
    """Records made inside belong to this attempt. (On the hot path: `current_attempt.set` and `reset`.)"""
    token = current_attempt.set(context)
    try:
        yield
    finally:
        current_attempt.reset(token)


class AttemptFilter(logging.Filter):
    """Adds `task_id`, `attempt`, `handler` and `trace_id` (each "" outside a handler) to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        _stamp(record)
        return True


def install() -> None:
    """Let every record of this process carry the fields, whichever logging.Handler writes it. Repeatable."""
    make = logging.getLogRecordFactory()
    if isinstance(make, _StampingFactory):
        return
    logging.setLogRecordFactory(_StampingFactory(make))


def uninstall() -> None:
    make = logging.getLogRecordFactory()
    if isinstance(make, _StampingFactory):
        logging.setLogRecordFactory(make.make)


class _StampingFactory:
    def __init__(self, make: Any) -> None:
        self.make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self.make(*args, **kwargs)
        _stamp(record)
        return record


def _stamp(record: logging.LogRecord) -> None:
    if hasattr(record, "task_id"):  # stamped already, or the author's own `extra`
        return
    context = current_attempt.get()
    if context is None:
        record.task_id = record.attempt = record.handler = record.trace_id = ""
    else:
        record.task_id = str(context.task_id)
        record.attempt = context.attempt
        record.handler = context.handler
        record.trace_id = context.trace_id
