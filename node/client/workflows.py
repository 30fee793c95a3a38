"""Workflows, as the client offers them. Errors: see node.client.errors."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from node.client.encode import encode, fresh_key
from node.client.errors import ServerFault, WaitTimeout
from node.client.handle import TaskHandle
from node.client.models import TaskErrorInfo, instant
from node.client.transport import Repeat
from node.client.waiting import POLLS_AT_ONCE, bounded, wait_final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.authoring.workflow import Workflow
    from node.client.client import Client
    from node.client.transport import Answer, Transport

_PAUSE_S: Final = 0.5
_PAGE_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class WorkflowTaskInfo:
    """One of its tasks, in short. `depends_on` are ids."""

    id: str
    name: str | None
    handler: str
    state: str
    depends_on: tuple[str, ...]
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    error: TaskErrorInfo | None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        error = raw.get("error")
        return cls(
            id=raw["id"],
            name=raw["name"],
            handler=raw["handler"],
            state=raw["state"],
            depends_on=tuple(raw["depends_on"]),
            attempt=raw["attempt"],
            started_at=instant(raw["started_at"]),
            finished_at=instant(raw["finished_at"]),
            error=None if error is None else TaskErrorInfo(error["type"], error["message"]),
        )


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """How far a workflow is. `state` is running, succeeded, failed or cancelled; `counts` are tasks by state."""

    id: str
    state: str
    created_at: datetime
    total: int
    ended: int
    counts: Mapping[str, int]
    tasks: tuple[WorkflowTaskInfo, ...]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def final(self) -> bool:
        return self.state != "running"

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        return cls(
            id=raw["id"],
            state=raw["state"],
            created_at=datetime.fromisoformat(raw["created_at"]),
            total=raw["total"],
            ended=raw["ended"],
            counts=raw["counts"],
            tasks=tuple(map(WorkflowTaskInfo.parse, raw.get("tasks", ()))),
            raw=raw,
        )


class WorkflowHandle:
    """What `submit_workflow` gives back. `tasks` are the handles by name; `ends` those that no other waits for."""

    def __init__(
        self, client: Client, workflow_id: str, tasks: Mapping[str, TaskHandle[Any]], ends: tuple[str, ...]
    ) -> None:
        self._client = client
        self.id = workflow_id
        self.tasks = tasks
        self.ends = ends

    def __getitem__(self, name: str) -> TaskHandle[Any]:
        return self.tasks[name]

    async def status(self, *, tasks: int = 1_000) -> WorkflowInfo:
        return await self._client.workflow(self.id, tasks=tasks)

    async def cancel(self) -> WorkflowInfo:
        return await self._client.cancel_workflow(self.id)

    async def wait(self, timeout_s: float | None = None) -> WorkflowInfo:
        """Once all of its tasks have ended, those too that its handlers added. Raises WaitTimeout."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s

        async def ended(name: str) -> None:
            left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
            self.tasks[name].seen = await wait_final(self._client._transport, self.tasks[name].id, left_s)  # noqa: SLF001 - a part of its client

        await bounded(self.ends, ended, POLLS_AT_ONCE)
        while not (info := await self.status()).final:
            if deadline_s is not None and time.monotonic() + _PAUSE_S > deadline_s:
                raise WaitTimeout(self.id, timeout_s or 0.0, info.state)
            await asyncio.sleep(_PAUSE_S)
        return info

    async def result(self, timeout_s: float | None = None) -> Any:
        """That of its last task. Raises as TaskHandle.result, and ValueError where there are several last ones."""
        if len(self.ends) != 1:
            raise ValueError(
                f"this workflow ends with {len(self.ends)} tasks; ask one of them: handle[name].result()"
            )
        return await self.tasks[self.ends[0]].result(timeout_s)

    def __repr__(self) -> str:
        return f"<WorkflowHandle {self.id} of {len(self.tasks)} tasks>"


class Workflows:
    _transport: Transport

    async def submit_workflow(self, work: Workflow, *, idempotency_key: str | None = None) -> WorkflowHandle:
        """Store all of its tasks, or none: `chain(…)`, `group(…)`, `chord(…)`, or a Workflow made by hand.

        Without a key it gets a fresh one, so that a request that is repeated never stores it twice. Raises InvalidTask
        with pointers such as '#/tasks/load/payload/url', KeyReused, Overloaded, Unreachable.
        """
        request = {**work.to_request(), "idempotency_key": idempotency_key or fresh_key()}
        answer = await self._transport.call(
            "POST", "/v1/workflows", body=encode(request), repeat=Repeat.ALWAYS
        )
        return self._workflow_handle(work, answer)

    async def workflow(self, workflow_id: str, *, tasks: int = 1_000) -> WorkflowInfo:
        """How far it is, with at most so many of its tasks. Raises NotFound."""
        answer = await self._transport.call("GET", _path(workflow_id), params={"tasks": str(tasks)})
        return _parsed(answer.json(), answer)

    async def workflows(self, *, limit: int = 50) -> list[WorkflowInfo]:
        """The newest ones, without their tasks."""
        params = {"limit": str(min(limit, _PAGE_MAX))}
        answer = await self._transport.call("GET", "/v1/workflows", params=params)
        return [_parsed(raw, answer) for raw in answer.json()["workflows"]]

    async def cancel_workflow(self, workflow_id: str) -> WorkflowInfo:
        """Whatever has not ended: what waits ends now, what runs is asked to. Repeatable. Raises NotFound."""
        answer = await self._transport.call("POST", _path(workflow_id, "/cancel"))
        return _parsed(answer.json(), answer)

    def _workflow_handle(self, work: Workflow, answer: Answer) -> WorkflowHandle:
        client: Any = self
        raw = answer.json()
        try:
            handles = {
                name: TaskHandle[Any](client, raw["tasks"][name], task.decode_result)
                for name, task in work.tasks.items()
            }
            return WorkflowHandle(client, raw["id"], handles, tuple(work.ends))
        except (KeyError, TypeError) as exc:
            raise ServerFault(f"expected a workflow, got {answer.body[:80]!r}", status=answer.status) from exc


def _path(workflow_id: str, rest: str = "") -> str:
    return f"/v1/workflows/{quote(workflow_id, safe='')}{rest}"


def _parsed(raw: Any, answer: Answer) -> WorkflowInfo:
    try:
        return WorkflowInfo.parse(raw)
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        raise ServerFault(
            f"expected a workflow, got {answer.body[:80]!r} ({exc!r})", status=answer.status
        ) from exc
