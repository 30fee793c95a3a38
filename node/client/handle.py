"""What `submit` gives back: one task, seen from the caller's side, with the type of its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from node.client.errors import TaskCancelled, TaskFailed
from node.client.models import FINAL, AttemptInfo, TaskInfo
from runtime.core.task import Codec

if TYPE_CHECKING:
    from node.client.client import Client

R = TypeVar("R")
Decoder = Callable[[bytes, Codec], R]  # what is stored -> value


class TaskHandle(Generic[R]):
    """One task. `duplicate` is True when it was there before: its idempotency key had already been given to an equal
    request, or it is the one that stands for the same (`unique`)."""

    __slots__ = ("_client", "_decode", "duplicate", "id", "seen")

    def __init__(
        self, client: Client, task_id: str, decode: Decoder[R] | None = None, *, duplicate: bool = False
    ) -> None:
        self._client = client
        self._decode = decode
        self.id = task_id
        self.duplicate = duplicate
        self.seen: Mapping[str, Any] | None = None  # the task as the node last told it, where it did

    async def result(self, timeout_s: float | None = None) -> R:
        """Wait until the task has ended and return what its handler returned.

        Raises TaskFailed, TaskCancelled, WaitTimeout (the task goes on), ResultExpired, NotFound, and Unreachable
        when no node could be asked for as long as the client retries.
        """
        if self.seen is None or not self.ended:
            self.seen = await self._client._wait_raw(self.id, timeout_s)  # noqa: SLF001 - a part of its client
        return await self._client._value(self.seen, self._decode)  # noqa: SLF001 - a part of its client

    async def status(self) -> TaskInfo:
        """The task as it is now. Raises NotFound."""
        info = await self._client.get(self.id)
        self.seen = info.raw
        return info

    async def attempts(self) -> list[AttemptInfo]:
        """What each attempt met, oldest first."""
        return await self._client.attempts(self.id)

    async def cancel(self) -> TaskInfo:
        """A waiting task ends now; a running one is asked to. Repeatable."""
        info = await self._client.cancel(self.id)
        self.seen = info.raw
        return info

    async def retry(self) -> TaskInfo:
        """Open a new run of a failed or cancelled task. Raises Refused in any other state."""
        info = await self._client.retry(self.id)
        self.seen = info.raw
        return info

    @property
    def ended(self) -> bool:
        """Whether the task is known to have ended; asks nobody."""
        return self.seen is not None and self.seen["state"] in FINAL

    def __repr__(self) -> str:
        known = f" {self.seen['state']}" if self.seen else ""
        return f"<TaskHandle {self.id}{known}{' duplicate' if self.duplicate else ''}>"


def raise_if_unsuccessful(raw: Mapping[str, Any]) -> None:
    """`raw` is a final task. Raises TaskFailed or TaskCancelled."""
    error = raw.get("error") or {}
    if raw["state"] == "failed":
        raise TaskFailed(raw["id"], raw["handler"], error)
    if raw["state"] == "cancelled":
        raise TaskCancelled(raw["id"], raw["handler"], error.get("message") or error.get("type") or "")
