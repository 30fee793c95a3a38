"""The Harness, opened up for tests of the actors in it: faults in the record, and a look inside."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from actors.harness import Harness, HarnessTask
from actors.intake.requests import spec_of
from actors.router.submitting import submit
from actors.supervisor.messages import DrainNode
from actors.world import Keeping, Limits

if TYPE_CHECKING:
    from actors.authoring.resources import Resources
    from actors.authoring.task import Task
    from actors.executor.messages import Drained
    from actors.supervisor.messages import Actors
    from actors.world import World
    from runtime.core.task import Acceptance

LEASE_S: Final = 2.0  # of other nodes; that of the rig does not run out


class Gates:
    """Holds bodies back: they say that they have started, and wait until they are let through."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self._opened = asyncio.Event()

    async def pass_through(self, who: Any) -> None:
        self.started.append(who)
        await self._opened.wait()

    def open(self) -> None:
        self._opened.set()

    @property
    def opened(self) -> bool:
        return self._opened.is_set()


class Rig(Harness):
    """A Harness that does not wait for bodies, lives through all of time, and has a resource that holds bodies back."""

    _skipped_s = float("inf")

    def __init__(self, *members: Callable[..., Any], **options: Any) -> None:
        self.gates = Gates()
        limits = Limits(**{name: options.pop(name) for name in Limits.__slots__ if name in options})
        resources = [self.gates, *options.pop("resources", ())]
        self._keeping = options.pop("keeping", Keeping())
        super().__init__(*members, resources=resources, limits=limits, patience_s=0.01, **options)

    def _make_world(self, resources: Resources, incarnation: int) -> World:
        world = super()._make_world(resources, incarnation)
        return replace(world, keeping=self._keeping, lease_s=LEASE_S)

    @property
    def world(self) -> World:
        return self._world

    @property
    def actors(self) -> Actors:
        return self._actors

    async def settle(self) -> None:
        """Let happen what needs no time, and look at no task."""
        await self._settle()

    def at(self, in_s: float) -> datetime:
        return self.now + timedelta(seconds=in_s)

    def counted(self, *name_and_labels: str) -> int:
        return self._tally.totals[name_and_labels]

    def band_of(self, task: HarnessTask[Any]) -> int:
        return next(band.id for band in self._world.bands if band.handler == task.handler)

    def asking(self, *tasks: Task[Any]) -> asyncio.Task[list[Acceptance]]:
        """A request on its way to the router."""

        async def ask() -> list[Acceptance]:
            return (await submit(self._world, self._actors.router, [spec_of(each) for each in tasks], 3))[1]

        return asyncio.create_task(ask())

    def draining(self, within_s: float) -> asyncio.Task[Drained]:
        """The node on its way out."""
        return asyncio.create_task(self._supervisor.ask(DrainNode(within_s), within_s + 60))

    def fault(
        self, method: str, error: Exception, *, after: bool = False, times: int = sys.maxsize
    ) -> Callable[[], None]:
        """From now on this method of the record raises `error`, before it does anything or after; the returned
        function ends that, or having done so some `times`.
        """
        real: Callable[..., Awaitable[Any]] = getattr(self.store, method)
        left = times

        async def faulty(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                return await real(*args, **kwargs)
            left -= 1
            if after:
                await real(*args, **kwargs)
            raise error

        setattr(self.store, method, faulty)
        return lambda: delattr(self.store, method)
