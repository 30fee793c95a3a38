"""The port Coordinator in memory: for tests, the Harness and simulation.

Law: the same answers as the real ones (tests/contract runs on all). No method but `newer` waits for anything, and
that one only for another proposal or the loop's own clock; so on a virtual clock every run is the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

from runtime.core.view import NO_VIEW, VIEWS_KEPT, View
from runtime.errors import Unavailable


class MemoryViews:
    """What the coordinators of one cluster share: the log, whose last entry is the present view."""

    def __init__(self, *, kept: int = VIEWS_KEPT) -> None:
        self.log: deque[View] = deque(maxlen=kept)  # oldest first
        self.changed = asyncio.Event()  # another one after each change

    @property
    def present(self) -> View:
        return self.log[-1] if self.log else NO_VIEW

    def add(self, view: View) -> None:
        self.log.append(view)
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryCoordinator:
    """Implements runtime.ports.Coordinator for one member. While it is not `reachable`, it is Unavailable."""

    def __init__(self, views: MemoryViews) -> None:
        self._shared = views
        self.reachable = True

    async def view(self) -> View:
        return self._views().present

    async def propose(self, view: View) -> bool:
        """As the port says; the same proposal again is accepted again."""
        views = self._views()
        if view.number == views.present.number + 1:
            views.add(view)
            return True
        return view in views.log

    async def newer(self, number: int, timeout_s: float) -> View | None:
        try:
            async with asyncio.timeout(timeout_s):
                while (view := self._views().present).number <= number:
                    await self._shared.changed.wait()
        except TimeoutError:
            return None
        return view

    async def history(self, limit: int) -> list[View]:
        return list(islice(reversed(self._views().log), limit))

    def _views(self) -> MemoryViews:
        if not self.reachable:
            raise Unavailable("the views cannot be reached")
        return self._shared
