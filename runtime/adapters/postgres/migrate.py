"""Forward migrations, each in a transaction of its own, under one advisory lock.

Law: migrations are additive, so that old and new nodes run together while a deploy rolls; applied files are
pinned by their SHA-256; nothing waits long for a lock that running nodes hold (a waiting ALTER would stop
them all): it gives up and tries again. A migration that old nodes cannot live with says so in its first
line, `-- needs: N`: nodes that do not know migration N refuse to start.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from runtime.adapters.postgres.connections import VERSION_MIN, Session, connect
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.translate import translated
from runtime.errors import SettingsError, Unavailable

if TYPE_CHECKING:
    import asyncpg

log = logging.getLogger(__name__)

_SETTINGS: Final = {"lock_timeout": "2s", "statement_timeout": "0"}
_TRIES: Final = 15
_PAUSE_S: Final = 0.2  # times the number of tries so far
_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_NEEDS: Final = re.compile(r"-- needs: (\d+)")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    title: str
    sql: str

    @property
    def name(self) -> str:
        return f"{self.version:04d}_{self.title}"

    @property
    def needs(self) -> int:
        """The newest migration that a node must at least know to work with the schema after this one."""
        stated = _NEEDS.match(self.sql)
        return int(stated[1]) if stated else 1

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known() -> list[Migration]:
    """All migrations of this version, in order."""
    found = [
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in files("runtime.adapters.postgres").joinpath("migrations").iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


_KNOWN: Final = tuple(known())
OLDEST_SCHEMA: Final = 12  # the lowest version that this code can work with
NEWEST_SCHEMA: Final = _KNOWN[-1].version


async def migrate(dsn: str) -> list[str]:
    """Bring the schema up to date; returns the names of what was applied.

    Raises SettingsError (a file differs from what was applied, the server is too old), Unavailable.
    """
    return await apply(dsn, _KNOWN)


async def apply(dsn: str, migrations: tuple[Migration, ...]) -> list[str]:
    """As `migrate`, with the migrations given."""
    applied: list[str] = []
    for attempt in range(1, _TRIES + 1):
        try:
            await _apply_all(dsn, migrations, applied)
        except Unavailable as busy:
            if attempt == _TRIES:
                raise
            log.info("migrating: %s; trying again", busy)
            await asyncio.sleep(_PAUSE_S * attempt)
        else:
            break
    return applied


async def _apply_all(dsn: str, migrations: tuple[Migration, ...], applied: list[str]) -> None:
    connection = await connect(dsn, "noria migrate", _SETTINGS)
    session = Session(connection, "migrate")
    try:
        with translated():
            version = connection.get_server_version().major
            if version < VERSION_MIN:
                raise SettingsError(
                    f"POSTGRES_DSN: PostgreSQL {version} is too old; allowed: {VERSION_MIN} or newer"
                )
            if not await session.value(SQL.migration_lock):
                raise Unavailable("somebody else migrates this database")
            await session.run(SQL.migration_table)
            before = {row["version"]: row for row in await session.fetch(SQL.migrations)}
            for migration in migrations:
                if _is_new(migration, before.get(migration.version)):
                    await _apply_one(session, migration)
                    applied.append(migration.name)
    finally:
        connection.terminate()  # lets go of the lock


def _is_new(migration: Migration, before: asyncpg.Record | None) -> bool:
    """Raises SettingsError."""
    if before is not None and before["sha256"] != migration.sha256:
        raise SettingsError(
            f"POSTGRES_DSN: migration {migration.name} was applied to this database with other content "
            f"(SHA-256 {before['sha256'][:12]}…, here {migration.sha256[:12]}…): it belongs to another build"
        )
    return before is None


async def _apply_one(session: Session, migration: Migration) -> None:
    async with session.transaction():
        await session.connection.execute(migration.sql)
        await session.fetch(
            SQL.migration_applied, migration.version, migration.needs, migration.title, migration.sha256
        )
