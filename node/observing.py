"""What a node knows without asking the record, gathered for `/v1/stats` (shape: node.http.stats).

Whoever watches, and however many: it is put together twice a second at most.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, cast

from actors.authoring.registry import Kind
from actors.executor.messages import ListRunning
from actors.load import RATES, load_of, read_load
from actors.supervisor.messages import Actors
from actors.world import World
from node.http.cluster import is_live, names_in
from node.http.stats import Stats, busiest, counted, tenant_rows, working

_READ_S: Final = 1.0
_KEPT_S: Final = 0.5  # less than anybody's pause between two looks
_VERSION: Final = version("noria")


class Observing:
    def __init__(self, world: World, actors: Actors) -> None:
        self._world = world
        self._actors = actors
        self._started_at = world.clock.wall()
        self._lock = asyncio.Lock()
        self._made: Stats = {}
        self._made_s = 0.0

    async def stats(self, *, draining: bool) -> Stats:
        async with self._lock:
            if not self._made or self._world.clock.now_s() - self._made_s > _KEPT_S:
                self._made = await self._make()
                self._made_s = self._world.clock.now_s()
        return {**self._made, "state": "draining" if draining else "active"}

    async def _make(self) -> Stats:
        world = self._world
        activity, capacity = world.activity, world.capacity
        found = await self._here()
        if (latency := activity.latency_percentiles()) is not None:
            found["latency_s"] = latency
        stats = cast("Stats", found)
        if (census := activity.census) is not None:
            bands = {band.id: band for band in world.bands}
            stats.update(counted(census, bands, capacity.paused.handlers, self._names()))
            stats["counts"]["age_s"] = round(activity.census_age_s, 1)
            stats["tenants"] = busiest(
                tenant_rows(census, bands.values(), capacity.weights, capacity.paused.tenants)
            )
        working(stats, world.cluster, read_load(load_of(world)), activity.handlers)
        return stats

    def _names(self) -> set[str]:
        """Of handlers that a living node has loaded."""
        leases = [lease for lease in self._world.cluster.leases if is_live(lease)]
        return {
            *self._world.registry.names,
            *(name for lease in leases for name in names_in(lease, "handlers")),
        }

    async def _here(self) -> dict[str, Any]:
        world, activity = self._world, self._world.activity
        running = await self._actors.executor.ask(ListRunning(), _READ_S)
        started_at: datetime = self._started_at
        return {
            "node": world.node,
            "incarnation": world.incarnation,
            "pid": os.getpid(),
            "version": _VERSION,
            "started_at": started_at,
            "at": world.clock.wall(),
            "rates": {
                name: {"per_s": activity.rates.per_s(name), "last": activity.rates.series(name)}
                for name in RATES
            },
            "capacity": {
                kind.value: {"limit": world.limits.of(kind), "taken": world.capacity.taken_of(kind)}
                for kind in Kind
            },
            "running": [
                {
                    "id": run.task_id,
                    "handler": run.handler,
                    "attempt": run.attempt,
                    "for_s": round(run.run_s, 3),
                }
                for run in running
            ],
            "failures": [asdict(failure) for failure in reversed(activity.failures)],
            "hot_keys": [asdict(key) for key in activity.hot_keys],
            "next_fires": [asdict(fire) for fire in activity.next_fires],
        }
