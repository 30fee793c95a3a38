"""The ports Members and Catalog on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

from runtime.adapters.postgres.connections import Connections
from runtime.adapters.postgres.lease import not_living, renew
from runtime.adapters.postgres.queries import SQL
from runtime.core.task import Band, BandKey, HandlerEntry, Lane, NodeView
from runtime.errors import InvalidInput

_STATES: Final = {"joining": 0, "active": 1, "draining": 2, "left": 8, "dead": 9}
_STATE_NAMES: Final = {number: name for name, number in _STATES.items()}
_SETTABLE: Final = ("joining", "active", "draining", "left")


class Members:
    _connections: Connections

    async def join(self, node: str, lease_s: float, about: Mapping[str, object]) -> int:
        async with self._connections.read.connection() as connection:
            return int(await connection.fetchval(SQL.join, node, lease_s, orjson.dumps(dict(about)).decode()))

    async def renew(self, incarnation: int, lease_s: float) -> float:
        async with self._connections.read.connection() as connection:
            return await renew(connection, incarnation, lease_s)

    async def set_state(self, incarnation: int, state: str) -> None:
        if state not in _SETTABLE:
            raise InvalidInput(f"state {state!r} is none of {', '.join(_SETTABLE)}")
        async with self._connections.read.connection() as connection:
            if await connection.fetchval(SQL.set_state, incarnation, _STATES[state]) is None:
                row = await connection.fetchrow(SQL.lease_of, incarnation)
                if state != "left" or row is None or row["state"] != _STATES["left"]:
                    raise await not_living(connection, incarnation)

    async def bury(self, by: int, lease_s: float) -> list[int]:
        async with self._connections.read.connection() as connection:
            return [row["incarnation"] for row in await connection.fetch(SQL.bury, by, lease_s)]

    async def nodes(self) -> list[NodeView]:
        async with self._connections.read.connection() as connection:
            return [
                NodeView(
                    node=row["node"],
                    incarnation=row["incarnation"],
                    state=_STATE_NAMES[row["state"]],
                    started_at=row["started_at"],
                    alive_for_s=row["alive_for_s"],
                    about=orjson.loads(row["about"]),
                )
                for row in await connection.fetch(SQL.nodes)
            ]


class Catalog:
    _connections: Connections

    async def intern(self, keys: Iterable[BandKey]) -> list[Band]:
        bands = []
        async with self._connections.read.connection() as connection:
            for key in keys:
                values = (key.handler, int(key.lane), key.tenant, list(key.requires), key.keyed)
                number = await connection.fetchval(SQL.intern, *values)
                if number is None:  # made by somebody else between the statement's two halves
                    number = await connection.fetchval(SQL.intern, *values)
                bands.append(_band(number, *values))
        return bands

    async def bands(self, after: int = 0) -> list[Band]:
        async with self._connections.read.connection() as connection:
            return [_band(*row) for row in await connection.fetch(SQL.bands, after)]

    async def publish(self, entries: Sequence[HandlerEntry]) -> None:
        async with self._connections.read.connection() as connection:
            for entry in sorted(entries, key=lambda entry: entry.name):
                schema, defaults = orjson.dumps(entry.schema).decode(), orjson.dumps(entry.defaults).decode()
                await connection.execute(
                    SQL.publish, entry.name, entry.digest, schema, defaults, entry.source, entry.doc
                )

    async def handlers(self) -> list[HandlerEntry]:
        async with self._connections.read.connection() as connection:
            return [
                HandlerEntry(
                    name=row["name"],
                    digest=row["digest"],
                    schema=orjson.loads(row["schema"]),
                    defaults=orjson.loads(row["defaults"]),
                    source=row["source"],
                    doc=row["doc"],
                    paused=row["paused"],
                )
                for row in await connection.fetch(SQL.handlers)
            ]

    async def paused(self) -> list[str]:
        async with self._connections.read.connection() as connection:
            return [row["name"] for row in await connection.fetch(SQL.paused)]

    async def set_paused(self, handler: str, *, paused: bool) -> bool:
        async with self._connections.read.connection() as connection:
            return await connection.fetchval(SQL.set_paused, handler, paused) is not None


def _band(number: int, handler: str, lane: int, tenant: str, requires: Sequence[str], keyed: bool) -> Band:
    return Band(
        id=number, handler=handler, lane=Lane(lane), tenant=tenant, requires=tuple(requires), keyed=keyed
    )
