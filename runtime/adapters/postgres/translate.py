"""PostgreSQL's and the network's errors, translated once, at this adapter's edge.

Four kinds matter to those above: nothing is wrong with what was asked and it may be repeated at once
(TryAgain), it cannot be answered now (Unavailable; it may have happened), the content of a value is refused
(ContentRefused), and the database is not set up for this (SettingsError). Everything else is our bug and
passes through. No message repeats values: they may be somebody's payload.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from runtime.errors import InvalidInput, SettingsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")

_TRIES: Final = 6
_PAUSE_MAX_S: Final = 0.02

_CONTENT: Final = frozenset({"22", "23", "54"})  # data, integrity, limits of the server
_AGAIN: Final = frozenset({"08", "40"})  # connection, rollback
_AWAY: Final = frozenset(
    {"25", "53", "55", "57", "58", "XX"}
)  # read-only, resources, busy, operator, system, internal
_GOING_DOWN: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})
_POOLED: Final = frozenset({"26000", "42P05"})  # a prepared statement that is not there, or there already
_NO_SCHEMA: Final = frozenset({"3F000", "42P01", "42703", "42883"})
_REFUSALS: Final = {
    "22003": "a number is out of range",
    "22008": "an instant is out of range",
    "22P02": "a value is not of its type, or is not valid JSON",
    "22P05": "JSON holds a NUL character",
    "22021": "a text holds a NUL character or is not valid UTF-8",
    "22023": "a value is not allowed",
    "54000": "a value is too large for its index",
}

POOLED: Final = (
    "POSTGRES_DSN: a pooler in transaction mode stands before PostgreSQL; allowed: a direct connection, "
    "or a pooler in session mode"
)


class ContentRefused(InvalidInput):
    """PostgreSQL refuses a value for what it is. Batches are split until the guilty row stands alone."""


class TryAgain(Unavailable):
    """Rolled back, or the connection was lost. With ids that were chosen before, repeating is safe."""


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _of_postgres(error) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:  # mostly: it was closed
        raise TryAgain(f"PostgreSQL: {_first_line(error)}") from error
    except TimeoutError as error:
        raise Unavailable("PostgreSQL did not answer in time") from error
    except OSError as error:
        raise TryAgain(f"PostgreSQL cannot be reached: {_first_line(error)}") from error
    except UnicodeError as error:  # a lone surrogate, or bytes that are not UTF-8
        raise ContentRefused("a text is not valid UTF-8") from error


async def repeated(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` returns; repeated a few times, after short random pauses, while it may be repeated."""
    for attempt in range(_TRIES):
        try:
            return await work()
        except TryAgain:
            if attempt == _TRIES - 1:
                raise
        await asyncio.sleep(random.random() * _PAUSE_MAX_S * attempt)  # noqa: S311 - jitter
    raise AssertionError("unreachable")


def _of_postgres(error: asyncpg.PostgresError) -> Exception:
    state = getattr(error, "sqlstate", None) or ""
    if state in _POOLED:
        return SettingsError(POOLED)
    if state in _NO_SCHEMA:
        return SettingsError(
            f"POSTGRES_DSN: the schema is not up to date ({_first_line(error)}); run noria migrate"
        )
    if state[:2] in _CONTENT:
        return ContentRefused(_refusal(error, state))
    if state[:2] in _AGAIN or state in _GOING_DOWN or isinstance(error, asyncpg.InvalidCachedStatementError):
        return TryAgain(f"PostgreSQL: {_first_line(error)}")
    if state[:2] in _AWAY or not state:
        return Unavailable(f"PostgreSQL: {_first_line(error)}")
    return error


def _refusal(error: asyncpg.PostgresError, state: str) -> str:
    constraint = getattr(error, "constraint_name", None)
    what = f"it violates {constraint}" if constraint else _REFUSALS.get(state, type(error).__name__)
    return f"PostgreSQL refuses it: {what} (SQLSTATE {state})"


def _first_line(error: BaseException) -> str:
    """Without DETAIL and CONTEXT lines, where PostgreSQL puts values."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
