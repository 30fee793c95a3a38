"""Workflows for code without an event loop; see node.client.workflows, whose methods these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from actors.authoring.workflow import Workflow
    from node.client.client import Client
    from node.client.handle import TaskHandle
    from node.client.sync import SyncTaskHandle
    from node.client.workflows import WorkflowHandle, WorkflowInfo

T = TypeVar("T")


class SyncWorkflowHandle:
    """One workflow; see WorkflowHandle."""

    def __init__(self, owner: SyncWorkflows, handle: WorkflowHandle) -> None:
        self._owner = owner
        self._handle = handle

    @property
    def id(self) -> str:
        return self._handle.id

    @property
    def ends(self) -> tuple[str, ...]:
        return self._handle.ends

    @property
    def tasks(self) -> Mapping[str, SyncTaskHandle[Any]]:
        return {name: self._owner._task_handle(handle) for name, handle in self._handle.tasks.items()}  # noqa: SLF001 - a part of its client

    def __getitem__(self, name: str) -> SyncTaskHandle[Any]:
        return self._owner._task_handle(self._handle[name])  # noqa: SLF001 - a part of its client

    def status(self, *, tasks: int = 1_000) -> WorkflowInfo:
        return self._owner._run(self._handle.status(tasks=tasks))  # noqa: SLF001 - a part of its client

    def cancel(self) -> WorkflowInfo:
        return self._owner._run(self._handle.cancel())  # noqa: SLF001 - a part of its client

    def wait(self, timeout_s: float | None = None) -> WorkflowInfo:
        return self._owner._run(self._handle.wait(timeout_s))  # noqa: SLF001 - a part of its client

    def result(self, timeout_s: float | None = None) -> Any:
        return self._owner._run(self._handle.result(timeout_s))  # noqa: SLF001 - a part of its client

    def __repr__(self) -> str:
        return f"<Sync{repr(self._handle)[1:]}"


class SyncWorkflows:
    _client: Client

    def submit_workflow(self, work: Workflow, *, idempotency_key: str | None = None) -> SyncWorkflowHandle:
        handle = self._run(self._client.submit_workflow(work, idempotency_key=idempotency_key))
        return SyncWorkflowHandle(self, handle)

    def workflow(self, workflow_id: str, *, tasks: int = 1_000) -> WorkflowInfo:
        return self._run(self._client.workflow(workflow_id, tasks=tasks))

    def workflows(self, *, limit: int = 50) -> list[WorkflowInfo]:
        return self._run(self._client.workflows(limit=limit))

    def cancel_workflow(self, workflow_id: str) -> WorkflowInfo:
        return self._run(self._client.cancel_workflow(workflow_id))

    if TYPE_CHECKING:

        def _run(self, work: Coroutine[Any, Any, T]) -> T: ...

        def _task_handle(self, handle: TaskHandle[Any]) -> SyncTaskHandle[Any]: ...
