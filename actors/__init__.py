"""Noria's actors, and what handlers are written with.

    from actors import Context, Fail, Retry, handler, task

    @handler("scrape", timeout_s=30)
    async def scrape(ctx: Context, url: str, depth: int = 0) -> Page: ...

    await client.submit(task(scrape, url="https://example.org"))

This package is two things. `actors.authoring` is the face that handler authors see; its names are here.
Beside it stand the actors that a node is made of: they combine `runtime.core`, which decides, and
`runtime.kernel`, which waits, through `runtime.ports`; they never import `runtime.adapters`.

Importing this package starts nothing, reads no setting and imports no driver: a producer may import a module
of handlers for the names and types alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.authoring.actor import Actor, actor, field
from actors.authoring.batching import Batch, BatchContext
from actors.authoring.context import Context
from actors.authoring.exceptions import (
    Cancelled,
    Fail,
    LifespanFailed,
    ResourceNotFound,
    ResultNotSerializable,
    Retry,
    WrongOutcomes,
)
from actors.authoring.markers import handler, lifespan
from actors.authoring.parents import Parent, Parents
from actors.authoring.registry import Registry
from actors.authoring.task import Task, TaskOptions, task
from actors.authoring.workflow import Workflow, chain, chord, group
from runtime.core.backoff import Backoff
from runtime.core.unique import Unique
from runtime.errors import InvalidInput, RegistrationError

if TYPE_CHECKING:
    from actors.harness import Harness

__all__ = [
    "Actor",
    "Backoff",
    "Batch",
    "BatchContext",
    "Cancelled",
    "Context",
    "Fail",
    "Harness",
    "InvalidInput",
    "LifespanFailed",
    "Parent",
    "Parents",
    "RegistrationError",
    "Registry",
    "ResourceNotFound",
    "ResultNotSerializable",
    "Retry",
    "Task",
    "TaskOptions",
    "Unique",
    "Workflow",
    "WrongOutcomes",
    "actor",
    "chain",
    "chord",
    "field",
    "group",
    "handler",
    "lifespan",
    "task",
]


def __getattr__(name: str) -> Any:
    """Harness on first use: it brings the actors of a whole node with it, which producers and handlers need not."""
    if name == "Harness":
        from actors.harness import Harness  # noqa: PLC0415 - see above

        return Harness
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
