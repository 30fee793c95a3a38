"""The record on PostgreSQL 15 and newer, through asyncpg.

queries/*.sql   all SQL, by what it is for   queries.py      loads it, checked at import
migrations/     the schema, forward only     migrate.py      applies it
connections.py  who speaks over which        translate.py    whose fault an error is
rows.py         records to values            scanning.py     which index a filter may walk
accepting, claiming, settling, repairing, control, reading, members: one idea each; store.py is their sum
views.py        the port Coordinator        lease.py        renewal, apart from all of it
"""

from runtime.adapters.postgres.migrate import migrate
from runtime.adapters.postgres.store import PostgresStore

__all__ = ["PostgresStore", "migrate"]
