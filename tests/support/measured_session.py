"""A session that knows what its statements cost, in pages and rows that they touched.

PostgreSQL counts per transaction what a session does to each table and index; nothing is timed, so a busy machine
changes nothing. The plan is the one that the session really uses, also where it was made long ago.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from runtime.adapters.postgres.connections import Session
from runtime.adapters.postgres.queries import SQL, Query

if TYPE_CHECKING:
    import asyncpg

_LOOK_AT_MAX: Final = 100_000
_COUNT: Final = """
SELECT coalesce(sum(pg_stat_get_xact_blocks_fetched(oid)), 0)::bigint AS pages,
       coalesce(sum(pg_stat_get_xact_tuples_returned(oid)) FILTER (WHERE relkind = 'r'), 0)::bigint AS scanned
  FROM pg_class
 WHERE relnamespace = 'noria'::regnamespace AND relkind IN ('r', 'i')
"""


@dataclass(frozen=True)
class Cost:
    """Pages: buffers looked at in tables and indexes. Scanned: rows that sequential scans went through. Rows: how
    many the statement was asked for, or returned."""

    pages: int
    scanned: int
    rows: int


class MeasuredSession(Session):
    """Make a subclass per test: `costs` are by the statement's name."""

    costs: ClassVar[defaultdict[str, list[Cost]]]

    @classmethod
    def fresh(cls) -> type[MeasuredSession]:
        return type("Fresh", (cls,), {"costs": defaultdict(list)})

    async def fetch(self, query: Query, *values: Any) -> list[asyncpg.Record]:
        if self.connection.is_in_transaction():
            return await self._measured(query, values)
        async with self.transaction():
            return await self._measured(query, values)

    async def _measured(self, query: Query, values: tuple[Any, ...]) -> list[asyncpg.Record]:
        before = await self.connection.fetchrow(_COUNT)
        rows = await super().fetch(query, *values)
        after = await self.connection.fetchrow(_COUNT)
        assert before is not None
        assert after is not None
        if query is not SQL.now:
            asked = max((_size(value) for value in values), default=0)
            pages, scanned = (after[name] - before[name] for name in ("pages", "scanned"))
            self.costs[query.name].append(Cost(pages, scanned, max(asked, len(rows))))
        return rows


def _size(value: object) -> int:
    """Of an array its length, of the rows that a scan is to look at their number."""
    if isinstance(value, list):
        return len(value)
    return value if isinstance(value, int) and value <= _LOOK_AT_MAX else 0
