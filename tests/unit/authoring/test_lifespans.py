"""Resources: opened in order, found by type, closed in reverse, whatever fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import pytest

from actors import LifespanFailed, ResourceNotFound
from actors.authoring.lifespans import LifespanDef, open_lifespans
from actors.authoring.resources import Resource, Resources

T = TypeVar("T")


class Pool(Generic[T]): ...


class Base: ...


class First(Base): ...


class Second(Base): ...


class Closable(Protocol):
    def close(self) -> None: ...


@runtime_checkable
class Named(Protocol):
    name: str


class File:
    name = "file"

    def close(self) -> None: ...


events: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    events.clear()


async def first() -> AsyncIterator[First]:
    events.append("open first")
    yield First()
    events.append("close first")


async def second() -> AsyncGenerator[Second, None]:
    events.append("open second")
    try:
        yield Second()
    finally:
        events.append("close second")


async def pool() -> AsyncIterator[Pool[int]]:
    yield Pool[int]()


async def nothing() -> AsyncIterator[None]:
    events.append("open nothing")
    yield
    events.append("close nothing")


async def broken() -> AsyncIterator[int]:
    if not events:
        yield 1
    raise OSError("no route")


async def empty() -> AsyncIterator[int]:
    if events == ["never"]:
        yield 1


async def leaks() -> AsyncIterator[int]:
    yield 1
    raise OSError("cannot close")


async def twice() -> AsyncIterator[int]:
    yield 1
    yield 2


def defs(*fns: Callable[[], AsyncIterator[Any]]) -> list[LifespanDef]:
    return [LifespanDef.of(fn) for fn in fns]


async def test_opened_in_order_and_closed_in_reverse() -> None:
    async with open_lifespans(defs(first, second, nothing)) as resources:
        assert events == ["open first", "open second", "open nothing"]
        assert isinstance(resources.find(First), First)
        assert resources.find(Second) is resources.find(Second)
        assert len(resources) == 2  # what yields None is no resource
    assert events[3:] == ["close nothing", "close second", "close first"]


async def test_found_by_annotation_or_by_what_it_is() -> None:
    async with open_lifespans(defs(pool, first)) as resources:
        assert isinstance(resources.find(Pool[int]), Pool)
        assert isinstance(resources.find(Pool), Pool)
        assert isinstance(resources.find(Base), First)
    file = File()
    found = Resources([Resource("file", file, Closable)])
    assert found.find(File) is file
    assert found.find(Closable) is file  # type: ignore[type-abstract]  # by the annotation, though not checkable
    assert found.find(Named) is file  # type: ignore[type-abstract]  # by its shape
    assert found.find(object) is file


async def test_what_is_not_there_or_not_clear() -> None:
    async with open_lifespans(defs(first, second)) as resources:
        with pytest.raises(
            ResourceNotFound, match=r"no resource is a Pool; there are first \(First\), second \(Second\)"
        ):
            resources.find(Pool)
        with pytest.raises(
            ResourceNotFound, match=r"several resources are a Base: first \(First\), second \(Second\)"
        ):
            resources.find(Base)
    with pytest.raises(ResourceNotFound, match="there are none .*; a process has none"):
        Resources(missing="a process has none").find(First)


async def test_one_that_cannot_be_opened_names_itself_and_the_others_are_closed() -> None:
    with pytest.raises(LifespanFailed) as failed:
        async with open_lifespans(defs(first, broken, second)):
            raise AssertionError("not reached")
    assert "lifespan broken (" in str(failed.value)
    assert f"{__file__}:" in str(failed.value)
    assert "could not be opened: OSError: no route" in str(failed.value)
    assert isinstance(failed.value.__cause__, OSError)
    assert events == ["open first", "close first"]

    with pytest.raises(LifespanFailed, match="ended without yielding"):
        async with open_lifespans(defs(empty)):
            raise AssertionError("not reached")


async def test_failures_to_close_are_told_after_all_were_closed() -> None:
    with pytest.raises(
        LifespanFailed, match="lifespan leaks .* could not be closed: OSError: cannot close"
    ) as failed:
        async with open_lifespans(defs(first, leaks, second)):
            pass
    assert isinstance(failed.value.__cause__, OSError)
    assert events[2:] == ["close second", "close first"]

    with pytest.raises(
        LifespanFailed, match="lifespan twice .* yields more than once; lifespan leaks .* could not"
    ):
        async with open_lifespans(defs(first, leaks, twice)):
            pass
    assert events[-1] == "close first"


async def test_an_error_of_the_node_wins_over_those_of_closing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(RuntimeError, match="the node's own"):
        async with open_lifespans(defs(first, leaks)):
            raise RuntimeError("the node's own")
    assert events == ["open first", "close first"]
    assert "lifespan leaks" in caplog.text


async def test_a_cancellation_while_closing_does_not_leave_others_open() -> None:
    closing = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        yield 1
        closing.set()
        await asyncio.Event().wait()

    async def node() -> None:
        async with open_lifespans(defs(first, slow)):
            pass

    running = asyncio.create_task(node())
    await closing.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert events == ["open first", "close first"]
