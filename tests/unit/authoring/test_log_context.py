"""The standard logging carries task id, attempt and trace anywhere inside a handler."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import threading
from collections.abc import Iterator
from uuid import UUID

import pytest

from actors import Context
from actors.authoring.log_context import AttemptFilter, attempt_logged, current_attempt, install

TASK = UUID("01900000-0000-7000-8000-000000000001")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FORMAT = "%(task_id)s %(attempt)s %(handler)s %(trace_id)s %(message)s"
INSIDE = f"{TASK} 2 scrape 0af7651916cd43dd8448eb211c80319c"

logger = logging.getLogger("author.module.deep")


def context() -> Context:
    return Context(task_id=TASK, attempt=2, handler="scrape", trace_context=TRACE)


@pytest.fixture(params=["one handler", "root"])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What a logging.Handler writes whose format needs the fields."""
    stream = io.StringIO()
    sink = logging.StreamHandler(stream)
    sink.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger("author" if request.param == "one handler" else None)
    root.addHandler(sink)
    logger.setLevel(logging.INFO)
    for _ in range(2):  # repeatable
        install(*([sink] if request.param == "one handler" else []))
    assert len(sink.filters) == 1
    yield stream
    root.removeHandler(sink)
    for other in logging.getLogger().handlers:  # pytest's own
        other.filters[:] = [each for each in other.filters if not isinstance(each, AttemptFilter)]


def test_inside_and_outside(written: io.StringIO) -> None:
    logger.info("before")
    with attempt_logged(context()):
        logger.info("within")
    logger.info("after")
    assert written.getvalue().splitlines() == ["    before", f"{INSIDE} within", "    after"]


async def test_in_tasks_of_a_handler_and_not_in_those_of_others(written: io.StringIO) -> None:
    async def helper(text: str) -> None:
        logger.info(text)

    async def body() -> None:
        with attempt_logged(context()):
            async with asyncio.TaskGroup() as group:
                group.create_task(helper("child"))

    await asyncio.gather(body(), helper("neighbour"))
    assert sorted(written.getvalue().splitlines()) == sorted([f"{INSIDE} child", "    neighbour"])


def test_in_the_thread_of_a_handler(written: io.StringIO) -> None:
    with attempt_logged(context()):
        copied = contextvars.copy_context()
    thread = threading.Thread(target=copied.run, args=(logger.info, "thread"))
    thread.start()
    thread.join()
    assert written.getvalue().splitlines() == [f"{INSIDE} thread"]
    assert current_attempt.get() is None


def test_the_authors_own_extra_wins(written: io.StringIO) -> None:
    with attempt_logged(context()):
        logger.info("own", extra={"attempt": "first", "handler": "h"})
    logger.info("outside", extra={"task_id": "mine"})
    assert written.getvalue().splitlines() == [
        f"{TASK} first h 0af7651916cd43dd8448eb211c80319c own",
        "mine    outside",
    ]
