"""Resources of a node process: opened in order before the first handler runs, closed in reverse at drain.

Law: every resource that was opened is closed, whatever happens to the others; an error names its lifespan.
"""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from actors.authoring.exceptions import LifespanFailed
from actors.authoring.resources import Resource, Resources
from actors.authoring.source import source_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LifespanDef:
    """One `@lifespan` function. `declared` is the class it says to yield, where its annotation is one."""

    name: str
    fn: Callable[[], AsyncIterator[Any]]
    declared: type | None
    source: str

    @classmethod
    def of(cls, fn: Callable[[], AsyncIterator[Any]]) -> LifespanDef:
        return cls(fn.__name__, fn, _yielded(fn), source_of(fn))

    def __str__(self) -> str:
        return f"lifespan {self.name} ({self.source})"


@asynccontextmanager
async def open_lifespans(lifespans: Sequence[LifespanDef]) -> AsyncGenerator[Resources, None]:
    """Open all, in order. Raises LifespanFailed where one cannot be opened or, after all were closed,
    closed.
    """
    opened: list[tuple[LifespanDef, AsyncIterator[Any]]] = []
    resources: list[Resource] = []
    try:
        for each in lifespans:
            resource, running = await _open(each)
            opened.append((each, running))
            if resource.value is not None:
                resources.append(resource)
        yield Resources(resources)
    except BaseException:  # the first error is the one to raise
        for failure in await _close(opened):
            logger.error("%s", failure, exc_info=failure)  # noqa: TRY400 - not the exception being handled
        raise
    failures = await _close(opened)
    if len(failures) > 1:
        raise LifespanFailed("; ".join(map(str, failures))) from ExceptionGroup("lifespans", failures)
    if failures:
        raise failures[0]


async def _open(each: LifespanDef) -> tuple[Resource, AsyncIterator[Any]]:
    try:
        running = each.fn()
        value = await anext(running)
    except StopAsyncIteration:
        raise LifespanFailed(f"{each} ended without yielding its resource") from None
    except Exception as error:
        raise LifespanFailed(f"{each} could not be opened: {type(error).__name__}: {error}") from error
    return Resource(each.name, value, each.declared), running


async def _close(opened: list[tuple[LifespanDef, AsyncIterator[Any]]]) -> list[LifespanFailed]:
    """Close in reverse. Neither a failure nor a cancellation keeps the others from being closed."""
    failures: list[LifespanFailed] = []
    interrupt: BaseException | None = None
    while opened:
        each, running = opened.pop()
        try:
            await anext(running)
        except StopAsyncIteration:
            continue
        except Exception as error:  # noqa: BLE001 - reported by the caller, after all were closed
            failure = LifespanFailed(f"{each} could not be closed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            failures.append(failure)
        except BaseException as error:  # noqa: BLE001 - raised again after all were closed
            interrupt = interrupt or error
        else:
            failures.append(LifespanFailed(f"{each} yields more than once"))
            if isinstance(running, AsyncGenerator):
                await running.aclose()
    if interrupt is not None:
        raise interrupt
    return failures


def _yielded(fn: Callable[..., Any]) -> type | None:
    try:
        returns = typing.get_type_hints(fn).get("return")
    except Exception:  # noqa: BLE001 - the annotation only helps; the value's own type is enough
        return None
    args = typing.get_args(returns)
    if inspect.isclass(typing.get_origin(returns)) and args:
        kind = typing.get_origin(args[0]) or args[0]
        return kind if isinstance(kind, type) and kind is not type(None) else None
    return None
