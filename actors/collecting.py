"""Collects objects that nobody refers to: of attempts that were fenced or died before their outcome committed, and of
tasks whose retention is over (their rows go first, so no outcome ever refers to what is gone).

Law: an object is deleted only if it is old, and the record says, after it was listed, that its attempt neither runs nor
committed an outcome that refers to it. Such an attempt can never refer to it any more.

One member does it, the oldest, in pages: a walk over all keys every ten minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from actors.world import World
from runtime.core.objects import attempt_of
from runtime.errors import Unavailable
from runtime.ports import ObjectEntry, Objects

log = logging.getLogger(__name__)

_EVERY_S: Final = 600.0
_AGAIN_S: Final = 30.0  # after the store or the record was away
_PAGE: Final = 1_000


class Collecting:
    """`once` is called about once a second, and does one page at most."""

    def __init__(self, world: World, objects: Objects) -> None:
        self._world = world
        self._objects = objects
        self._busy = False
        self._after = ""  # where the walk goes on
        self._next_s = world.clock.now_s() + _EVERY_S * world.jitter()

    async def once(self) -> None:
        now_s = self._world.clock.now_s()
        if self._busy or now_s < self._next_s or not self._is_oldest():
            return
        self._busy = True
        try:
            self._next_s = now_s + (0.0 if await self._page() else _EVERY_S)
        except Unavailable as away:
            log.debug("collecting: %s", away)
            self._next_s = now_s + _AGAIN_S
        finally:
            self._busy = False

    def _is_oldest(self) -> bool:
        active = self._world.cluster.view.active
        return not active or self._world.incarnation <= min(member.incarnation for member in active)

    async def _page(self) -> bool:
        """Whether more follow."""
        age_s = self._world.keeping.orphans_s
        if not self._after:
            await self._objects.tidy(age_s)
        entries = await self._objects.list(self._after, _PAGE)
        await self._collect([entry for entry in entries if entry.age_s >= age_s])
        more = len(entries) == _PAGE
        self._after = entries[-1].key if more else ""
        return more

    async def _collect(self, old: Sequence[ObjectEntry]) -> None:
        owners = {entry.key: owner for entry in old if (owner := attempt_of(entry.key)) is not None}
        if not owners:
            return
        used = set(await self._world.store.results_in_use(list(owners.values())))
        orphans = [key for key, owner in owners.items() if owner not in used]
        if orphans:
            await self._objects.delete(orphans)
            log.info("%d large results that nobody refers to any more were deleted", len(orphans))
            self._world.telemetry.count("results_collected_total", len(orphans))
