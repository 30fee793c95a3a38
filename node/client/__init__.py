"""The client of Noria: `Client` (asynchronous) and `SyncClient` (for code without an event loop).

Imports neither the database's nor the broker's nor any telemetry library; handlers' code is not needed either.
"""

from __future__ import annotations

from node.client.client import Client
from node.client.downloading import Downloaded
from node.client.enqueue import enqueue, enqueue_sql
from node.client.errors import (
    ClientError,
    InvalidTask,
    KeyReused,
    NotFound,
    NotUnique,
    Overloaded,
    Refused,
    ResultExpired,
    ServerFault,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TooLarge,
    Unreachable,
    WaitTimeout,
)
from node.client.handle import TaskHandle
from node.client.models import AttemptInfo, Changed, TaskErrorInfo, TaskEvent, TaskInfo, TaskProgress, Waiting
from node.client.operations import TaskPage
from node.client.scheduling import ScheduleInfo, ScheduleOptions
from node.client.sync import SyncClient, SyncTaskHandle
from node.client.sync_workflows import SyncWorkflowHandle
from node.client.workflows import WorkflowHandle, WorkflowInfo, WorkflowTaskInfo

__all__ = [
    "AttemptInfo",
    "Changed",
    "Client",
    "ClientError",
    "Downloaded",
    "InvalidTask",
    "KeyReused",
    "NotFound",
    "NotUnique",
    "Overloaded",
    "Refused",
    "ResultExpired",
    "ScheduleInfo",
    "ScheduleOptions",
    "ServerFault",
    "SyncClient",
    "SyncTaskHandle",
    "SyncWorkflowHandle",
    "TaskCancelled",
    "TaskError",
    "TaskErrorInfo",
    "TaskEvent",
    "TaskFailed",
    "TaskHandle",
    "TaskInfo",
    "TaskPage",
    "TaskProgress",
    "TooLarge",
    "Unreachable",
    "WaitTimeout",
    "Waiting",
    "WorkflowHandle",
    "WorkflowInfo",
    "WorkflowTaskInfo",
    "enqueue",
    "enqueue_sql",
]
