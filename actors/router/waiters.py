"""Who waits for the end of which task. Bounded; nobody costs the record a poll of their own."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from runtime.core.task import TaskView
from runtime.errors import Overloaded
from runtime.kernel.actor import Reply


class Waiters:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._replies: dict[UUID, list[Reply[TaskView | None]]] = {}
        self._count = 0

    def add(self, task_id: UUID, reply: Reply[TaskView | None]) -> None:
        """Raises Overloaded."""
        if self._count >= self._limit:
            self.forget_answered()
        if self._count >= self._limit:
            raise Overloaded(f"{self._limit} requests already wait for a task's end", retry_after_s=2)
        self._replies.setdefault(task_id, []).append(reply)
        self._count += 1

    @property
    def ids(self) -> list[UUID]:
        return list(self._replies)

    def wanted(self, ids: Iterable[UUID]) -> list[UUID]:
        return [task_id for task_id in ids if task_id in self._replies] if self._replies else []

    def answer(self, task_id: UUID, view: TaskView | None) -> None:
        for reply in self._take(task_id):
            reply.send(view)

    def fail(self, task_id: UUID, error: Exception) -> None:
        for reply in self._take(task_id):
            if reply.waiting:
                reply.fail(error)

    def _take(self, task_id: UUID) -> list[Reply[TaskView | None]]:
        replies = self._replies.pop(task_id, [])
        self._count -= len(replies)
        return replies

    def forget_answered(self) -> None:
        """Drop those whose asker has given up."""
        for task_id, replies in list(self._replies.items()):
            alive = [reply for reply in replies if reply.waiting]
            if alive:
                self._replies[task_id] = alive
            else:
                del self._replies[task_id]
        self._count = sum(map(len, self._replies.values()))
