"""What people and tools do besides submitting: look at tasks, dead letters, handlers and nodes, and act on them."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

import orjson

from node.client import filters
from node.client.downloading import Downloaded, to_file, to_memory
from node.client.encode import encode
from node.client.errors import NotFound, Overloaded, ServerFault
from node.client.events import follow
from node.client.models import AttemptInfo, Changed, TaskEvent, TaskInfo
from node.client.scheduling import Schedules
from node.client.transport import Repeat
from node.client.waiting import poll, task_path
from node.client.workflows import Workflows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from actors.authoring.options import Priority
    from node.client.filters import Filter
    from node.client.transport import Answer, Transport

PAGE_MAX = 500


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page may be short although more follow: `next_cursor` is None at the end only."""

    tasks: tuple[TaskInfo, ...]
    next_cursor: str | None
    raw: Mapping[str, Any]


class Operations(Schedules, Workflows):
    """The part of the client that needs no types of handlers. Errors: see node.client.errors."""

    _transport: Transport

    # -- one task

    async def get(self, task_id: str, *, wait_s: float = 0.0) -> TaskInfo:
        """The task as it is now, or once it has ended within `wait_s` (at most 60). Raises NotFound."""
        raw = await poll(self._transport, task_id, wait_s)
        try:
            return TaskInfo.parse(raw)
        except (KeyError, ValueError, TypeError) as exc:
            raise ServerFault(f"expected a task, got {raw!r:.80}") from exc

    async def attempts(self, task_id: str) -> list[AttemptInfo]:
        """What each attempt met, oldest first."""
        answer = await self._transport.call("GET", task_path(task_id, "/attempts"))
        return [AttemptInfo.parse(raw) for raw in _field(answer, "attempts", list)]

    async def cancel(self, task_id: str) -> TaskInfo:
        """A waiting task ends now, a running one is asked to (`cancel_requested_at`), an ended one stays."""
        return _task(await self._transport.call("POST", task_path(task_id, "/cancel")))

    async def retry(self, task_id: str) -> TaskInfo:
        """A new run of a failed or cancelled task; its budgets start anew. Raises Refused in any other state.

        Not repeated after a broken connection: the first try may have opened the run already.
        """
        return _task(
            await self._transport.call("POST", task_path(task_id, "/retry"), repeat=Repeat.IF_UNDONE)
        )

    async def prioritize(self, task_id: str, priority: Priority) -> TaskInfo:
        """Give a waiting task another priority. Raises Refused where it runs or has ended."""
        body = orjson.dumps({"priority": priority})
        return _task(await self._transport.call("PATCH", task_path(task_id), body=body))

    async def raw_result(self, task_id: str) -> tuple[bytes, str]:
        """The stored result and its content type. Raises Refused while there is none, ResultExpired, NotFound."""
        body, got = await to_memory(self._transport, task_path(task_id, "/result"))
        return body, got.content_type

    async def save_result(self, task_id: str, path: str | Path) -> Downloaded:
        """The stored result into a file, which is there whole or not at all; memory does not grow with its size.

        Raises as `raw_result`, and OSError.
        """
        return await to_file(self._transport, task_path(task_id, "/result"), Path(path))

    # -- many tasks

    async def page(
        self, *, limit: int = 50, cursor: str | None = None, dead: bool = False, **which: Unpack[Filter]
    ) -> TaskPage:
        """One page of tasks (of dead letters), newest first; `limit` is at most 500."""
        params = {**filters.query(which), "limit": str(limit)}
        if cursor:
            params["cursor"] = cursor
        answer = await self._transport.call("GET", "/v1/dead" if dead else "/v1/tasks", params=params)
        tasks = tuple(_parsed(raw, answer) for raw in _field(answer, "tasks", list))
        raw = answer.json()
        return TaskPage(tasks, raw.get("next_cursor"), raw)

    async def tasks(self, *, limit: int | None = None, **which: Unpack[Filter]) -> AsyncGenerator[TaskInfo]:
        """All tasks that match, newest first, read page by page; at most `limit`. Results are left out."""
        async with aclosing(self._all(limit, dead=False, which=which)) as found:
            async for info in found:
                yield info

    async def dead(self, *, limit: int | None = None, **which: Unpack[Filter]) -> AsyncGenerator[TaskInfo]:
        """Dead letters: tasks that failed for good, newest first."""
        async with aclosing(self._all(limit, dead=True, which=which)) as found:
            async for info in found:
                yield info

    async def _all(self, limit: int | None, *, dead: bool, which: Filter) -> AsyncGenerator[TaskInfo]:
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE_MAX if left is None else min(left, PAGE_MAX)
            page = await self.page(limit=size, cursor=cursor, dead=dead, **which)
            for info in page.tasks:
                yield info
            if left is not None:
                left -= len(page.tasks)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def cancel_matching(
        self, *, everything: bool = False, dry_run: bool = False, **which: Unpack[Filter]
    ) -> Changed:
        """Cancel every task that matches; without any filter only if `everything` says that it is meant."""
        return await self._act("POST", "/v1/tasks/cancel", which, everything=everything, dry_run=dry_run)

    async def prioritize_matching(
        self, priority: Priority, *, everything: bool = False, dry_run: bool = False, **which: Unpack[Filter]
    ) -> Changed:
        """Give every waiting task that matches this priority."""
        return await self._act(
            "POST", "/v1/tasks/priority", which, everything=everything, dry_run=dry_run, priority=priority
        )

    async def replay(
        self, *, everything: bool = False, dry_run: bool = False, **which: Unpack[Filter]
    ) -> Changed:
        """Open a new run of every dead letter that matches."""
        return await self._act("POST", "/v1/dead/replay", which, everything=everything, dry_run=dry_run)

    async def purge(
        self, *, everything: bool = False, dry_run: bool = False, **which: Unpack[Filter]
    ) -> Changed:
        """Delete every dead letter that matches, for good."""
        return await self._act("DELETE", "/v1/dead", which, everything=everything, dry_run=dry_run)

    async def _act(
        self,
        method: str,
        path: str,
        which: Mapping[str, Any],
        *,
        everything: bool,
        dry_run: bool,
        **more: str,
    ) -> Changed:
        body: dict[str, Any] = {"filter": filters.body(which), "dry_run": dry_run, **more}
        if everything:
            body["all"] = True
        answer = await self._transport.call(method, path, body=orjson.dumps(body))
        goes_on = bool(_object(answer).get("more"))
        return Changed(_field(answer, "matched", int), _field(answer, "changed", int), goes_on)

    # -- handlers and nodes

    async def handlers(self) -> list[Mapping[str, Any]]:
        """All handlers that nodes have published: schema, defaults, nodes, paused."""
        answer = await self._transport.call("GET", "/v1/handlers")
        return list(_field(answer, "handlers", list))

    async def handler(self, name: str) -> Mapping[str, Any]:
        return _object(await self._transport.call("GET", _handler_path(name)))

    async def pause(self, handler: str) -> Mapping[str, Any]:
        """Stop claiming this handler's tasks, on all nodes; what runs goes on, what is submitted waits."""
        return _object(await self._transport.call("POST", _handler_path(handler, "/pause")))

    async def resume(self, handler: str) -> Mapping[str, Any]:
        return _object(await self._transport.call("POST", _handler_path(handler, "/resume")))

    async def limits(self) -> list[Mapping[str, Any]]:
        """Every handler with a limit, by name: rate_limit, burst, max_running, limit_per, declared, set_by."""
        answer = await self._transport.call("GET", "/v1/limits")
        return list(_field(answer, "limits", list))

    async def set_limit(
        self,
        handler: str,
        *,
        rate_limit: str | None = None,
        burst: int | None = None,
        max_running: int | None = None,
    ) -> Mapping[str, Any]:
        """Limit a handler in the whole cluster, whatever its code says; what is left out is not limited.

        Raises NotFound, InvalidTask with a pointer to what is wrong.
        """
        body = encode({"rate_limit": rate_limit, "burst": burst, "max_running": max_running})
        return _object(await self._transport.call("PUT", _limit_path(handler), body=body))

    async def unset_limit(self, handler: str) -> Mapping[str, Any]:
        """Go back to what its code declares. Raises NotFound where nothing was set."""
        return _object(await self._transport.call("DELETE", _limit_path(handler), repeat=Repeat.IF_UNDONE))

    async def cluster(self) -> Mapping[str, Any]:
        """The view and the nodes, by their leases."""
        return _object(await self._transport.call("GET", "/v1/cluster"))

    async def ring(self) -> Mapping[str, Any]:
        """How the slots are shared out among the members of the view."""
        return _object(await self._transport.call("GET", "/v1/cluster/ring"))

    async def locate(self, key: str, *, handler: str | None = None) -> Mapping[str, Any]:
        """The slot of a key and the node that owns it (among those with the handler): slot, node, incarnation, reason."""
        params = {"key": key} if handler is None else {"key": key, "handler": handler}
        return _object(await self._transport.call("GET", "/v1/cluster/locate", params=params))

    async def views(self, *, limit: int = 20) -> list[Mapping[str, Any]]:
        """The log of views, newest first; `limit` is at most 200."""
        answer = await self._transport.call("GET", "/v1/cluster/views", params={"limit": str(limit)})
        return list(_field(answer, "views", list))

    async def drain(self, node: str) -> Mapping[str, Any]:
        """Ask a node to end or hand back its work and leave; its state in `cluster` tells how far it is.

        Raises NotFound when no such node is alive.
        """
        path = f"/v1/cluster/nodes/{quote(node, safe='')}/drain"
        return _object(await self._transport.call("POST", path))

    async def stats(self) -> Mapping[str, Any]:
        """Counts, rates and ages."""
        return _object(await self._transport.call("GET", "/v1/stats"))

    async def tenants(self) -> list[Mapping[str, Any]]:
        """All tenants by name: weight, and what of them waits and runs, as last counted."""
        found: list[Mapping[str, Any]] = []
        params = {"limit": str(PAGE_MAX)}
        while True:
            answer = await self._transport.call("GET", "/v1/tenants", params=params)
            found += _field(answer, "tenants", list)
            cursor = _object(answer).get("next_cursor")
            if not cursor:
                return found
            params["cursor"] = str(cursor)

    async def pause_tenant(self, tenant: str) -> Mapping[str, Any]:
        """Start none of a tenant's tasks, on all nodes; what runs goes on, what is submitted waits."""
        return _object(await self._transport.call("POST", f"/v1/tenants/{quote(tenant, safe='')}/pause"))

    async def resume_tenant(self, tenant: str) -> Mapping[str, Any]:
        return _object(await self._transport.call("POST", f"/v1/tenants/{quote(tenant, safe='')}/resume"))

    async def weigh_tenant(self, tenant: str, weight: int) -> Mapping[str, Any]:
        """Give a tenant that many turns in a round, 1 to 100, where others have one. Raises Refused."""
        path, body = f"/v1/tenants/{quote(tenant, safe='')}", encode({"weight": weight})
        return _object(await self._transport.call("PUT", path, body=body))

    async def ready(self) -> bool:
        """Whether the node takes work now. Raises Unreachable when nobody answers."""
        try:
            await self._transport.call("GET", "/readyz", repeat=Repeat.NEVER)
        except (Overloaded, NotFound):
            return False
        return True

    async def events(
        self, *, last_event_id: str | None = None, state: Sequence[str] = (), handler: Sequence[str] = ()
    ) -> AsyncGenerator[TaskEvent]:
        """Changes of tasks as they happen, without end. After a break the stream goes on where it stopped.

        An event of kind 'gap' says that some were missed. Ends with an error when the node refuses, or when no
        node can be reached for as long as the client retries.
        """
        params = filters.query({"state": state or None, "handler": handler or None})
        async with aclosing(follow(self._transport, params, last_event_id)) as stream:
            async for event in stream:
                yield event


def _handler_path(name: str, rest: str = "") -> str:
    return f"/v1/handlers/{quote(name, safe='')}{rest}"


def _limit_path(handler: str) -> str:
    return f"/v1/limits/{quote(handler, safe='')}"


def _object(answer: Answer) -> Mapping[str, Any]:
    raw = answer.json()
    if not isinstance(raw, dict):
        raise ServerFault(f"expected a JSON object, got {answer.body[:80]!r}", status=answer.status)
    return raw


def _field(answer: Answer, name: str, kind: type) -> Any:
    value = _object(answer).get(name)
    if not isinstance(value, kind):
        raise ServerFault(f"expected {name!r} in the answer, got {answer.body[:80]!r}", status=answer.status)
    return value


def _task(answer: Answer) -> TaskInfo:
    return _parsed(_object(answer), answer)


def _parsed(raw: Mapping[str, Any], answer: Answer) -> TaskInfo:
    try:
        return TaskInfo.parse(raw)
    except (KeyError, ValueError, TypeError) as exc:
        raise ServerFault(
            f"expected a task, got {answer.body[:80]!r} ({exc!r})", status=answer.status
        ) from exc
