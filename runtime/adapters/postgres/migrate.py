"""Forward migrations, each in a transaction of its own, under one advisory lock.

Migrations are additive, so that old and new nodes run together while a deploy rolls. Applied files are pinned by their
SHA-256. A node works with every schema from `OLDEST_SCHEMA` up; a newer one than it knows is fine (additive).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import asyncpg

from runtime.adapters.postgres.connections import SLOW_S, Connection, connect
from runtime.adapters.postgres.translate import translated
from runtime.errors import SettingsError, Unavailable

log = logging.getLogger(__name__)

OLDEST_SCHEMA: Final = 1  # the lowest version this code can work with
_LOCK: Final = 0x6E6F726961  # "noria"
_LOCK_TIMEOUT: Final = "5s"
_TRIES: Final = 12
_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known() -> list[Migration]:
    """All migrations of this version, in order."""
    found = []
    for file in files(__package__).joinpath("migrations").iterdir():
        if match := _NAME.fullmatch(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


async def migrate(dsn: str) -> list[str]:
    """Bring the schema up to date; returns the names of what was applied.

    Raises SettingsError (a file differs from what was applied; the schema is too old to work with), Unavailable.
    """
    connection = await connect(dsn, "migrate", {"lock_timeout": _LOCK_TIMEOUT}, SLOW_S)
    try:
        return await _with_retries(connection)
    finally:
        connection.terminate()


async def _with_retries(connection: Connection) -> list[str]:
    for attempt in range(1, _TRIES + 1):
        try:
            with translated():
                return await _apply_all(connection)
        except Unavailable as busy:
            if attempt == _TRIES or connection.is_closed():
                raise
            log.info("migrating: %s; trying again", busy)
            await asyncio.sleep(0.1 * attempt)
    raise AssertionError("unreachable")


async def _apply_all(connection: Connection) -> list[str]:
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute("CREATE SCHEMA IF NOT EXISTS noria")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS noria.migration (version int PRIMARY KEY, name text NOT NULL, "
            "sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        rows = await connection.fetch("SELECT version, name, sha256 FROM noria.migration")
        applied = {row["version"]: row for row in rows}
        return [
            f"{m.version:04d}_{m.name}"
            for m in known()
            if await _apply(connection, m, applied.get(m.version))
        ]
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _apply(connection: Connection, migration: Migration, before: asyncpg.Record | None) -> bool:
    if before is not None:
        if before["sha256"] != migration.sha256:
            raise SettingsError(
                f"migration {migration.version:04d}_{migration.name} was applied from a file with other content "
                f"(SHA-256 {before['sha256'][:12]}…, here {migration.sha256[:12]}…); this database belongs to another build"
            )
        return False
    async with connection.transaction():
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO noria.migration (version, name, sha256) VALUES ($1, $2, $3)",
            migration.version, migration.name, migration.sha256,
        )  # fmt: skip
    return True
