"""The ports Members and Catalog on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runtime.adapters.postgres.connections import unzipped
from runtime.adapters.postgres.queries import SQL
from runtime.adapters.postgres.rows import (
    STATE_NUMBERS,
    band_of,
    handler_of,
    json_of,
    node_of,
    state_name,
    text_array,
)
from runtime.adapters.postgres.translate import repeated
from runtime.core.lanes import USUAL_WEIGHT, check_weight
from runtime.core.task import Paused
from runtime.errors import IncarnationDead, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import asyncpg

    from runtime.adapters.postgres.connections import Connections, Session
    from runtime.core.task import Band, BandKey, HandlerEntry, NodeView

_SETTABLE: Final = ("joining", "active", "draining", "left")


class Members:
    _connections: Connections

    async def join(self, node: str, lease_s: float, about: Mapping[str, object]) -> int:
        async with self._connections.read.session() as session:
            return await join(session, node, lease_s, about)

    async def renew(
        self, incarnation: int, lease_s: float, load: Mapping[str, object] | None = None
    ) -> float:
        async with self._connections.read.session() as session:
            return await renew(session, incarnation, lease_s, load)

    async def set_state(self, incarnation: int, state: str) -> None:
        """Raises InvalidInput, IncarnationDead."""
        if state not in _SETTABLE:
            raise InvalidInput(f"state {state!r} is none of {', '.join(_SETTABLE)}")
        async with self._connections.read.session() as session:
            if await session.row(SQL.set_state, incarnation, STATE_NUMBERS[state]) is None:
                row = await session.row(SQL.member, incarnation)
                if state != "left" or row is None or state_name(row["state"]) != "left":
                    raise not_living(incarnation, row)

    async def bury(self, by: int, lease_s: float) -> list[int]:
        rows = await self._connections.sweep.fetch(SQL.bury, by, lease_s)
        return sorted(row["incarnation"] for row in rows)

    async def request_drain(self, node: str) -> bool:
        return bool(await self._connections.read.fetch(SQL.request_drain, node))

    async def nodes(self) -> list[NodeView]:
        return [node_of(row) for row in await self._connections.read.fetch(SQL.nodes)]


class Catalog:
    _connections: Connections

    async def intern(self, keys: Iterable[BandKey]) -> list[Band]:
        return await intern(self._connections, keys)

    async def bands(self, after: int = 0) -> list[Band]:
        return [band_of(row) for row in await self._connections.read.fetch(SQL.bands, after)]

    async def place_unbanded(self, most: int) -> list[int]:
        rows = await self._connections.read.fetch(SQL.unbanded, most)
        if not rows:
            return []
        bands = await self.intern([band_of((0, *row[1:])).key for row in rows])
        ids = [row[0] for row in rows]
        placed = await self._connections.read.fetch(SQL.place_unbanded, ids, [band.id for band in bands])
        return sorted({row[0] for row in placed})

    async def publish(self, entries: Sequence[HandlerEntry]) -> None:
        rows = [
            (e.name, e.digest, json_of(e.schema), json_of(e.defaults), e.source, e.doc)
            for e in {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.name)}.values()
        ]

        await self._connections.read.fetch(SQL.publish, *unzipped(rows, 6))

    async def handlers(self) -> list[HandlerEntry]:
        return [handler_of(row) for row in await self._connections.read.fetch(SQL.handlers)]

    async def paused(self) -> Paused:
        rows = await self._connections.read.fetch(SQL.paused)
        handlers = frozenset(row["name"] for row in rows if not row["is_tenant"])
        return Paused(handlers, frozenset(row["name"] for row in rows if row["is_tenant"]))

    async def set_paused(self, handler: str, *, paused: bool) -> bool:
        return bool(await self._connections.read.fetch(SQL.set_paused, handler, paused))

    async def set_tenant_paused(self, tenant: str, *, paused: bool) -> None:
        await self._connections.read.fetch(SQL.pause_tenant if paused else SQL.resume_tenant, tenant)

    async def tenant_weights(self) -> dict[str, int]:
        return {row["name"]: row["weight"] for row in await self._connections.read.fetch(SQL.tenant_weights)}

    async def set_tenant_weight(self, tenant: str, weight: int) -> None:
        check_weight(weight)
        if weight == USUAL_WEIGHT:
            await self._connections.read.fetch(SQL.weigh_tenant_as_usual, tenant)
        else:
            await self._connections.read.fetch(SQL.weigh_tenant, tenant, weight)


async def intern(connections: Connections, keys: Iterable[BandKey]) -> list[Band]:
    """The bands of these keys, made where they did not exist."""
    wanted = list(keys)
    values = unzipped([_columns(key) for key in sorted(set(wanted), key=_columns)], 5)
    if not wanted:
        return []

    async def once() -> dict[BandKey, Band]:
        async with connections.read.session() as session:
            found = await _find_bands(session, values)
            if len(found) < len(values[0]):
                async with session.transaction():
                    await session.run(SQL.lock_bands)
                    await session.fetch(SQL.insert_bands, *values)
                found = await _find_bands(session, values)
            return found

    bands = await repeated(once)
    return [bands[key] for key in wanted]


async def join(session: Session, node: str, lease_s: float, about: Mapping[str, object]) -> int:
    return int(await session.value(SQL.join, node, lease_s, json_of(dict(about))))


async def renew(
    session: Session, incarnation: int, lease_s: float, load: Mapping[str, object] | None
) -> float:
    """Seconds granted. Raises IncarnationDead."""
    told = None if load is None else json_of(dict(load))
    granted_s = await session.value(SQL.renew, incarnation, lease_s, told)
    if granted_s is None:
        raise not_living(incarnation, await session.row(SQL.member, incarnation))
    return float(granted_s)


def not_living(incarnation: int, row: asyncpg.Record | None) -> IncarnationDead:
    if row is None:
        return IncarnationDead(f"incarnation {incarnation} is not on record")
    return IncarnationDead(f"incarnation {incarnation} of {row['node']} is {state_name(row['state'])}")


async def _find_bands(session: Session, values: list[list[object]]) -> dict[BandKey, Band]:
    return {band.key: band for band in map(band_of, await session.fetch(SQL.find_bands, *values))}


def _columns(key: BandKey) -> tuple[str, int, str, str, bool]:
    return key.handler, int(key.lane), key.tenant, text_array(key.requires), key.keyed
