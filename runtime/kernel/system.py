"""The top of the tree: starts actors, counts what they drop, and says when they cannot be kept alive.

Law: leaving the `async with` stops every actor, the last started first. When the top supervisor gives up, all
actors are stopped and `failed` gets the error, so that the process can exit.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from runtime.kernel.cell import Cell
from runtime.kernel.clock import SystemClock
from runtime.kernel.dead_letters import DeadLetters
from runtime.kernel.supervision import Supervision, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from runtime.kernel.actor import Ref
    from runtime.kernel.clock import Clock
    from runtime.kernel.supervision import ChildSpec

M = TypeVar("M")

_log = logging.getLogger(__name__)


class ActorSystem:
    """`async with ActorSystem() as system: ref = await system.spawn(spec)`."""

    failed: asyncio.Future[Exception]  # done when the top supervisor has given up; its result is why

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        on_dead_letter: Callable[[str, str, str], None] | None = None,
        supervision: Supervision | None = None,
        random: Random | None = None,
    ) -> None:
        """`on_dead_letter(reason, actor, message_type)` sees every drop; `random` jitters back-offs."""
        self.clock: Clock = clock or SystemClock()
        self.dead_letters = DeadLetters(self.clock, on_dead_letter)
        self._random = random or Random()  # noqa: S311 - jitter, not a secret
        self._top = Supervisor(
            supervision or Supervision(), self.clock, self._random, self._make_cell, self._give_up
        )
        self._stopping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.failed = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()

    async def spawn(self, spec: ChildSpec[M]) -> Ref[M]:
        """Start an actor at the top and wait for its `started`, whose exception is raised here.

        Raises ValueError for a name that is taken, ActorStopped when the system is stopping.
        """
        return await self._top.spawn(spec)

    async def stop(self, ref: Ref[Any]) -> None:
        """Stop a top actor for good and wait until it is."""
        await self._top.stop(ref.name)

    async def shutdown(self) -> None:
        """Stop all actors, the last started first; repeatable."""
        await self._top.stop_all()

    def depths(self) -> dict[str, int]:
        """Messages that wait, by actor."""
        return {cell.name: cell.depth for cell in _walk(self._top)}

    def _make_cell(self, spec: ChildSpec[Any], parent: Supervisor) -> Cell[Any]:
        return Cell(
            spec, parent, path="", clock=self.clock, dead_letters=self.dead_letters, random=self._random
        )

    def _give_up(self, error: Exception) -> None:
        _log.critical("the actor system gives up: %s", error, exc_info=error)
        self._stopping = asyncio.get_running_loop().create_task(self.shutdown(), name="actor system shutdown")
        if not self.failed.done():
            self.failed.set_result(error)


def _walk(supervisor: Supervisor) -> Iterator[Cell[Any]]:
    for cell in supervisor:
        yield cell
        if cell.children is not None:
            yield from _walk(cell.children)
