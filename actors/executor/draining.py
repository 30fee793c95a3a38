"""A node on its way out: until when, how attempts ended meanwhile, and who wants to hear of it."""

from __future__ import annotations

from actors.executor.bodies import Move
from actors.executor.messages import Drained
from runtime.core.task import Finish
from runtime.kernel.actor import Reply


class Draining:
    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self._replies: list[Reply[Drained]] = []
        self._finished = 0
        self._released = 0

    def join(self, reply: Reply[Drained], until_s: float) -> None:
        """One more wants it, and perhaps sooner."""
        self._replies.append(reply)
        self.until_s = min(self.until_s, until_s)

    def count(self, move: Move) -> None:
        if isinstance(move, Finish):
            self._finished += 1
        else:
            self._released += 1

    def finish(self) -> None:
        for reply in self._replies:
            reply.send(Drained(self._finished, self._released))
        self._replies.clear()
