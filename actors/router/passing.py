"""Passes the ends of tasks on to those that wait for them.

Law: an end that is on record is passed on by whoever comes first; what this node does not do now, some node does within
a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from actors.world import World
from runtime.core.workflow import Freed
from runtime.errors import Unavailable

log = logging.getLogger(__name__)

_CHILDREN_MAX: Final = 1_000  # per transaction


class Passing:
    """`freed` gets the children that wait for nobody any more, of bands that this node knows."""

    def __init__(
        self,
        world: World,
        detach: Callable[[Coroutine[Any, Any, None]], None],
        freed: Callable[[Sequence[Freed]], None],
    ) -> None:
        self._world = world
        self._detach = detach
        self._freed = freed
        self._busy = False
        self._again = False

    def soon(self) -> None:
        """Somebody may have ended for whom others wait. One look at a time, and one more after it."""
        self._again = True
        if not self._busy:
            self._busy = True
            self._detach(self._pass_on())

    async def _pass_on(self) -> None:
        world = self._world
        try:
            while self._again:
                self._again = False
                passed = await world.store.pass_on(_CHILDREN_MAX)
                if any(world.bands.get(abs(each.band)) is None for each in passed.freed):
                    await world.bands.refresh()
                if passed.freed:
                    self._freed(passed.freed)
                self._again = self._again or passed.more
        except Unavailable as away:
            log.debug("passing on ends: the record is away: %s", away)
        finally:
            self._busy = False
