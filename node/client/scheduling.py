"""Schedules, as the client offers them. Errors: see node.client.errors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, Unpack
from urllib.parse import quote

from node.client.encode import encode, request_of
from node.client.errors import ServerFault
from node.client.models import TaskInfo, instant
from node.client.transport import Repeat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.authoring.task import Task
    from node.client.transport import Answer, Transport

_PAGE_MAX: Final = 500


class ScheduleOptions(TypedDict, total=False):
    """What a schedule may say beside its task: `cron` or `every_s`, and when fires are left out."""

    cron: str
    every_s: float
    time_zone: str
    catch_up: Literal["skip", "last", "all"]
    catch_up_max: int
    overlap: Literal["allow", "skip", "cancel_old"]


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """One schedule as the record has it. `next` are its next fire times, none while it is paused."""

    name: str
    handler: str
    cron: str | None
    every_s: float | None
    time_zone: str
    catch_up: str
    overlap: str
    paused_at: datetime | None
    next: tuple[datetime, ...]
    last_fire_at: datetime | None
    last_task_id: str | None
    last_state: str | None  # None too once that task is no longer kept
    fired: int
    missed: int
    skipped: int
    raw: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        last = raw["last_task"] or {}
        return cls(
            name=raw["name"],
            handler=raw["task"]["handler"],
            cron=raw["cron"],
            every_s=raw["every_s"],
            time_zone=raw["time_zone"],
            catch_up=raw["catch_up"],
            overlap=raw["overlap"],
            paused_at=instant(raw["paused_at"]),
            next=tuple(datetime.fromisoformat(text) for text in raw["next"]),
            last_fire_at=instant(raw["last_fire_at"]),
            last_task_id=last.get("id"),
            last_state=last.get("state"),
            fired=raw["fired"],
            missed=raw["missed"],
            skipped=raw["skipped"],
            raw=raw,
        )


class Schedules:
    _transport: Transport

    async def schedules(self, *, times: int = 1) -> list[ScheduleInfo]:
        """All of them, by name, each with its next `times` fire times."""
        found: list[ScheduleInfo] = []
        params = {"limit": str(_PAGE_MAX), "next": str(times)}
        while True:
            answer = await self._transport.call("GET", "/v1/schedules", params=params)
            page = answer.json()
            found += [_parsed(raw, answer) for raw in page["schedules"]]
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]

    async def schedule(self, name: str, *, times: int = 5) -> ScheduleInfo:
        """One, with its next `times` (at most 100) fire times. Raises NotFound."""
        answer = await self._transport.call("GET", _path(name), params={"next": str(times)})
        return _parsed(answer.json(), answer)

    async def put_schedule(
        self,
        name: str,
        work: Task[Any] | str,
        payload: Mapping[str, Any] | None = None,
        /,
        *,
        options: Mapping[str, Any] | None = None,
        **schedule: Unpack[ScheduleOptions],
    ) -> ScheduleInfo:
        """Make or change a schedule; the same again changes nothing. `work` as for `submit`: a Task with its options,
        or a handler's name with payload and `options`. Raises InvalidTask, with a pointer to what is wrong."""
        request, _ = request_of(work, payload, options)
        body = encode({**schedule, "task": request})
        answer = await self._transport.call("PUT", _path(name), body=body)
        return _parsed(answer.json(), answer)

    async def delete_schedule(self, name: str) -> None:
        """Its tasks stay. Raises NotFound."""
        await self._transport.call("DELETE", _path(name), repeat=Repeat.IF_UNDONE)

    async def pause_schedule(self, name: str) -> ScheduleInfo:
        """Fire no more; what falls into the pause is not made up for. Raises NotFound."""
        answer = await self._transport.call("POST", _path(name, "/pause"))
        return _parsed(answer.json(), answer)

    async def resume_schedule(self, name: str) -> ScheduleInfo:
        """Fire again, from the next fire time on. Raises NotFound."""
        answer = await self._transport.call("POST", _path(name, "/resume"))
        return _parsed(answer.json(), answer)

    async def run_schedule(self, name: str) -> TaskInfo:
        """A task now, beside the rule. Raises NotFound. Not repeated after a broken connection."""
        answer = await self._transport.call("POST", _path(name, "/run"), repeat=Repeat.IF_UNDONE)
        return TaskInfo.parse(answer.json())


def _path(name: str, rest: str = "") -> str:
    return f"/v1/schedules/{quote(name, safe='')}{rest}"


def _parsed(raw: Any, answer: Answer) -> ScheduleInfo:
    try:
        return ScheduleInfo.parse(raw)
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        raise ServerFault(
            f"expected a schedule, got {answer.body[:80]!r} ({exc!r})", status=answer.status
        ) from exc
