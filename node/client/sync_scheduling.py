"""Schedules for code without an event loop; see node.client.scheduling, whose methods these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, Unpack

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from actors.authoring.task import Task
    from node.client.client import Client
    from node.client.models import TaskInfo
    from node.client.scheduling import ScheduleInfo, ScheduleOptions

T = TypeVar("T")


class SyncSchedules:
    _client: Client

    def schedules(self, *, times: int = 1) -> list[ScheduleInfo]:
        return self._run(self._client.schedules(times=times))

    def schedule(self, name: str, *, times: int = 5) -> ScheduleInfo:
        return self._run(self._client.schedule(name, times=times))

    def put_schedule(
        self,
        name: str,
        work: Task[Any] | str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        options: Mapping[str, Any] | None = None,
        **schedule: Unpack[ScheduleOptions],
    ) -> ScheduleInfo:
        return self._run(self._client.put_schedule(name, work, payload, options=options, **schedule))

    def delete_schedule(self, name: str) -> None:
        self._run(self._client.delete_schedule(name))

    def pause_schedule(self, name: str) -> ScheduleInfo:
        return self._run(self._client.pause_schedule(name))

    def resume_schedule(self, name: str) -> ScheduleInfo:
        return self._run(self._client.resume_schedule(name))

    def run_schedule(self, name: str) -> TaskInfo:
        return self._run(self._client.run_schedule(name))

    if TYPE_CHECKING:

        def _run(self, work: Coroutine[Any, Any, T]) -> T: ...
