"""PostgreSQL's and the network's errors, translated once, at this adapter's edge.

Three kinds matter to those above: it cannot answer now (Unavailable; what was asked may have happened), the content of
a row is refused (ContentRefused; stays inside the adapter), and everything else, which is our bug.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from runtime.errors import NoriaError, Unavailable

_CONTENT_CLASSES: Final = frozenset({"22", "23", "54"})
_AGAIN_CLASSES: Final = frozenset({"08", "40", "53", "55", "57", "58"})


class ContentRefused(NoriaError):  # noqa: N818 - what happened to the row
    """PostgreSQL refuses a row for its content."""


class TryAgain(Unavailable):
    """Nothing is wrong with the statement: it was rolled back (deadlock) and may be repeated."""


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _of_postgres(error) from error
    except asyncpg.DataError as error:  # the client could not encode a value: our content, never sent
        raise ContentRefused(_first_line(error)) from error
    except asyncpg.InterfaceError as error:
        raise Unavailable(f"PostgreSQL: {_first_line(error)}") from error
    except TimeoutError as error:
        raise Unavailable("PostgreSQL did not answer in time") from error
    except OSError as error:
        raise Unavailable(f"PostgreSQL cannot be reached: {_first_line(error)}") from error


def _of_postgres(error: asyncpg.PostgresError) -> Exception:
    state = getattr(error, "sqlstate", None) or ""
    if state[:2] in _CONTENT_CLASSES:
        return ContentRefused(f"{_first_line(error)} (SQLSTATE {state})")
    if state[:2] == "40":
        return TryAgain(f"PostgreSQL: {_first_line(error)}")
    if state[:2] in _AGAIN_CLASSES or not state:
        return Unavailable(f"PostgreSQL: {_first_line(error)}")
    return error


def _first_line(error: BaseException) -> str:
    """Without the row's values, which PostgreSQL puts into DETAIL lines."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
