"""Work that is repeated until a service that is away takes it. What is repeated must be safe to repeat."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from runtime.core.task import Verdict
from runtime.errors import Unavailable
from runtime.kernel.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_S: Final = 0.1
_MAX_S: Final = 2.0
_TRIES_ALONE: Final = 3


async def until_taken(
    work: Callable[[], Awaitable[T]],
    clock: Clock,
    say: Callable[[Unavailable], object],
    *,
    first_s: float = _FIRST_S,
    max_s: float = _MAX_S,
) -> T:
    """The answer of `work`, tried later and later while it raises Unavailable; `say` hears why each time."""
    delay_s = first_s
    while True:
        try:
            return await work()
        except Unavailable as away:
            say(away)
        await clock.sleep(delay_s)
        delay_s = min(max_s, delay_s * 2)


class Committing(Generic[T]):
    """Commits batches with `commit`, which answers one verdict for each. For the log: `what` they are, and the `name`
    of one."""

    def __init__(
        self,
        commit: Callable[[Sequence[T]], Awaitable[Sequence[Verdict]]],
        clock: Clock,
        what: str,
        name: Callable[[T], object],
    ) -> None:
        self._commit = commit
        self._clock = clock
        self._what = what
        self._name = name

    async def all(self, items: Sequence[T]) -> Sequence[Verdict]:
        """Together; where that fails in a way that nobody has foreseen, each alone, and in the end REFUSED: its
        neighbours must not wait for ever for one that nothing is known of but that it fails."""
        try:
            return await self._insist(items)
        except Exception:
            log.exception("committing %d %s failed in a way that nobody has foreseen", len(items), self._what)
        return [await self._alone(item) for item in items]

    async def _insist(self, items: Sequence[T]) -> Sequence[Verdict]:
        return await until_taken(
            lambda: self._commit(items),
            self._clock,
            lambda away: log.warning("%d %s wait for the record: %s", len(items), self._what, away),
        )

    async def _alone(self, item: T) -> Verdict:
        for _ in range(_TRIES_ALONE):
            try:
                return (await self._insist([item]))[0]
            except Exception:
                log.exception("committing %s alone failed", self._name(item))
            await self._clock.sleep(_MAX_S)
        return Verdict.REFUSED
