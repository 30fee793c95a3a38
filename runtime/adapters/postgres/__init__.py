"""The record on PostgreSQL 15 and newer, through asyncpg.

queries/*.sql   all SQL, by table            queries.py      loads it, checked at import
migrations/     the schema, forward only     migrate.py      applies it
connections.py  who speaks over which        translate.py    whose fault an error is
accepting, claiming, settling, control, reading, members: the ports, one idea each; store.py is their sum
"""

from runtime.adapters.postgres.migrate import migrate
from runtime.adapters.postgres.store import PostgresStore

__all__ = ["PostgresStore", "migrate"]
