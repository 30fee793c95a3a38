"""Schedules: what makes tasks at given times."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from actors.scheduling import next_times
from node.http import models, schemas, views
from node.http.auth import Scope
from node.http.problems import Problem
from node.http.reading import parse, summary, validate
from node.http.route import SCHEDULE_QUERY, SCHEDULES_QUERY, Answer, Call, Route
from runtime.core.schedule import CatchUp, Overlap, Schedule, ScheduleSpec
from runtime.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from aiohttp import web

    from node.http.models import ScheduleRequest
    from runtime.core.task import TaskView

NAME_CHARS_MAX: Final = 200
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)

# -- look -------------------------------------------------------------------------------------------


async def list_schedules(call: Call) -> web.Response:
    limit: int = call.query.get("limit", models.PAGE_DEFAULT)
    after = _text(call.query.get("cursor", ""))
    found = await call.service.store.schedules(call.principal.tenant, limit + 1, after)
    shown = found[:limit]
    cursor = shown[-1].spec.name if len(found) > limit else None
    return views.json_response({"schedules": await _json(call, shown), "next_cursor": cursor})


async def get_schedule(call: Call) -> web.Response:
    return views.json_response((await _json(call, [await _existing(call)]))[0])


async def _existing(call: Call) -> Schedule:
    name = call.request.match_info["schedule"]
    found = None
    if _name_fault(name) is None:
        found = await call.service.store.schedule(call.principal.tenant, name)
    if found is None:
        raise _no_schedule(name)
    return found


def _no_schedule(name: str) -> Problem:
    return Problem("schedule-not-found", f"there is no schedule {name!r}")


async def _json(call: Call, found: Sequence[Schedule]) -> list[dict[str, object]]:
    ids = [one.last_task_id for one in found if one.last_task_id is not None]
    tasks = {view.id: view for view in await call.service.store.get_many(ids)} if ids else {}
    count: int = call.query.get("next", models.NEXT_DEFAULT)
    return [_schedule_json(one, await next_times(one, count), tasks) for one in found]


def _schedule_json(
    schedule: Schedule, times: Sequence[object], tasks: Mapping[UUID, TaskView]
) -> dict[str, object]:
    spec, last = schedule.spec, schedule.last_task_id
    view = None if last is None else tasks.get(last)
    return {
        "name": spec.name,
        "cron": spec.cron,
        "every_s": spec.every_s,
        "time_zone": spec.time_zone,
        "task": orjson.Fragment(spec.task),
        "catch_up": spec.catch_up.value,
        "catch_up_max": spec.catch_up_max,
        "overlap": spec.overlap.value,
        "created_by": spec.created_by or None,
        "created_at": schedule.created_at,
        "changed_at": schedule.changed_at,
        "paused_at": schedule.paused_at,
        "next": times,
        "last_fire_at": schedule.last_fire_at,
        "last_task": None if last is None else {"id": last, "state": view.state.value if view else None},
        "fired": schedule.fired,
        "missed": schedule.missed,
        "skipped": schedule.skipped,
    }


# -- change -----------------------------------------------------------------------------------------


async def put_schedule(call: Call) -> web.Response:
    with call.admitted():
        name = call.request.match_info["schedule"]
        if (fault := _name_fault(name)) is not None:
            raise InvalidInput(f"#/name: {fault}", (("#/name", fault),))
        spec = _spec(name, validate(models.SCHEDULE, parse(await call.body())), call)
        first = await call.service.check_schedule(spec)
        await call.service.store.put_schedule(spec, first)
    return await get_schedule(call)


def _spec(name: str, request: ScheduleRequest, call: Call) -> ScheduleSpec:
    """Raises InvalidInput."""
    cron, every_s = request.get("cron"), request.get("every_s")
    faults: list[tuple[str, str]] = []
    if cron is None and every_s is None:
        faults.append(("#/cron", "give cron or every_s"))
    elif cron is not None and every_s is not None:
        faults.append(("#/every_s", "give cron or every_s, not both"))
    elif every_s is not None and "time_zone" in request:
        faults.append(("#/time_zone", "goes with cron; an interval is elapsed time"))
    if "catch_up_max" in request and request.get("catch_up") != "all":
        faults.append(("#/catch_up_max", "goes with catch_up: all"))
    if faults:
        raise InvalidInput(summary(faults, len(faults)), tuple(faults))
    given: dict[str, Any] = {}
    if "catch_up_max" in request:
        given["catch_up_max"] = request["catch_up_max"]
    return ScheduleSpec(
        name=name,
        tenant=call.principal.tenant,
        created_by=call.principal.subject,
        cron=cron,
        every_s=every_s,
        time_zone=request.get("time_zone", "UTC"),
        task=orjson.dumps(request["task"]),
        catch_up=CatchUp(request.get("catch_up", CatchUp.LAST)),
        overlap=Overlap(request.get("overlap", Overlap.ALLOW)),
        **given,
    )


def _name_fault(name: str) -> str | None:
    if len(name) <= NAME_CHARS_MAX and _NAME.fullmatch(name):
        return None
    return f"allowed are 1 to {NAME_CHARS_MAX} letters, digits, '.', '_' and '-', a letter or digit first"


def _text(cursor: str) -> str:
    """Raises InvalidInput for what no name can be."""
    if cursor and _name_fault(cursor) is not None:
        raise InvalidInput(f"?cursor: {cursor!r} is none", (("?cursor", f"{cursor!r} is none of ours"),))
    return cursor


async def delete_schedule(call: Call) -> web.Response:
    name = (await _existing(call)).spec.name
    deleted = await call.service.store.delete_schedule(call.principal.tenant, name)
    return views.json_response({"name": name, "deleted": deleted})


async def pause_schedule(call: Call) -> web.Response:
    return await _set_paused(call, paused=True)


async def resume_schedule(call: Call) -> web.Response:
    return await _set_paused(call, paused=False)


async def _set_paused(call: Call, *, paused: bool) -> web.Response:
    name = (await _existing(call)).spec.name
    if not await call.service.set_schedule_paused(call.principal.tenant, name, paused=paused):
        raise _no_schedule(name)
    return await get_schedule(call)


async def run_schedule(call: Call) -> web.Response:
    name = (await _existing(call)).spec.name
    task_id = await call.service.run_schedule(call.principal.tenant, name)
    if task_id is None:
        raise _no_schedule(name)
    view = await call.service.store.get(task_id)
    if view is None:
        raise Unavailable(f"task {task_id} was deleted at this moment")
    return views.json_response(views.task_json(view, call.service), 202, {"Location": f"/v1/tasks/{task_id}"})


_NAMED: Final = ("schedule-not-found",)
_SCHEDULE: Final = {200: Answer("The schedule.", schemas.Schedule)}
_PATH: Final = "/v1/schedules/{schedule}"

ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/schedules",
        scope=Scope.TASKS_READ,
        tag="schedules",
        handle=list_schedules,
        summary="Schedules by name.",
        parameters=SCHEDULES_QUERY,
        answers={200: Answer("One page.", schemas.SchedulePage)},
        problems=("invalid-request",),
    ),
    Route(
        method="GET",
        path=_PATH,
        scope=Scope.TASKS_READ,
        tag="schedules",
        handle=get_schedule,
        summary="One schedule, its next fire times, and what became of its last task.",
        parameters=SCHEDULE_QUERY,
        answers=_SCHEDULE,
        problems=("invalid-request", *_NAMED),
    ),
    Route(
        method="PUT",
        path=_PATH,
        scope=Scope.TASKS_WRITE,
        tag="schedules",
        handle=put_schedule,
        summary="Make or change a schedule. A rule that stays keeps its next fire time; a pause stays.",
        body=models.ScheduleRequest,
        body_max=models.TASK_BYTES_MAX,
        answers=_SCHEDULE,
        problems=(
            "malformed-json", "request-timeout", "too-large", "unsupported-media-type", "invalid-request",
            "overloaded", *_NAMED,
        ),
    ),
    Route(
        method="DELETE",
        path=_PATH,
        scope=Scope.TASKS_WRITE,
        tag="schedules",
        handle=delete_schedule,
        summary="Delete a schedule. The tasks that it made stay.",
        answers={200: Answer("Deleted.", schemas.Deleted)},
        problems=_NAMED,
    ),
    Route(
        method="POST",
        path=f"{_PATH}/pause",
        scope=Scope.OPS,
        tag="schedules",
        handle=pause_schedule,
        summary="Fire no more until it is resumed; what falls into a pause is not made up for.",
        answers=_SCHEDULE,
        problems=_NAMED,
    ),
    Route(
        method="POST",
        path=f"{_PATH}/resume",
        scope=Scope.OPS,
        tag="schedules",
        handle=resume_schedule,
        summary="Fire again, from the next fire time on.",
        answers=_SCHEDULE,
        problems=_NAMED,
    ),
    Route(
        method="POST",
        path=f"{_PATH}/run",
        scope=Scope.TASKS_WRITE,
        tag="schedules",
        handle=run_schedule,
        summary="Make a task now, beside the rule and whatever overlap says.",
        answers={202: Answer("Stored; it will be done.", schemas.Task, headers={"Location": "Path of the task."})},
        problems=_NAMED,
    ),
)  # fmt: skip
