"""Who waits on other nodes for the end of tasks here: `watch` messages in, `finished` messages out.

Law: a watch is a wish, bounded and forgotten after a while; the waiting node looks into the record once a second.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from uuid import UUID

_WATCHED_MAX: Final = 50_000
_RECENT_MAX: Final = 20_000  # ended lately: a watch may come after the end


class Watching:
    def __init__(self) -> None:
        self._watchers: OrderedDict[UUID, set[int]] = OrderedDict()
        self._recent: OrderedDict[UUID, None] = OrderedDict()

    def watch(self, incarnation: int, ids: Iterable[UUID]) -> list[UUID]:
        """Somebody waits for these; returns those that have ended already."""
        ended = []
        for task_id in ids:
            if task_id in self._recent:
                ended.append(task_id)
            else:
                self._watchers.setdefault(task_id, set()).add(incarnation)
        while len(self._watchers) > _WATCHED_MAX:
            self._watchers.popitem(last=False)
        return ended

    def ended(self, ids: Iterable[UUID]) -> dict[int, list[UUID]]:
        """Which of these to tell to whom."""
        told: dict[int, list[UUID]] = {}
        for task_id in ids:
            self._recent[task_id] = None
            for incarnation in self._watchers.pop(task_id, ()) if self._watchers else ():
                told.setdefault(incarnation, []).append(task_id)
        while len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)
        return told
