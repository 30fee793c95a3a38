"""One route of the API as data, and what a handler of it gets: a Call.

Law: what a route is (scope, parameters, body, answers, problems) stands in its `Route`, never in the handler;
the dispatcher, the OpenAPI document and the tests read the same one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiohttp import web
from pydantic import TypeAdapter

from node.http import models
from node.http.admission import Bodies
from node.http.auth import NOBODY, Authenticator, Principal, Scope, demand, local, refuse_foreign_pages
from node.http.problems import Problem
from node.http.reading import parameters, read_body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from multidict import MultiMapping

    from node.http.polls import LongPolls
    from node.http.service import Service
    from node.http.sse import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`loopback`: refuse requests whose Host is not this machine. `backlog_max`: 429 above it."""

    loopback: bool = True
    backlog_max: int | None = None
    bodies_max: int = 1024  # requests whose body is being read or stored
    body_bytes_max: int = 64 << 20  # of all of them together
    downloads_max: int = 16  # large results that go out at the same time; more are refused for now
    long_polls_max: int = 10_000  # more are answered at once with the present state
    event_streams_max: int = 100
    bulk_s: float = 20.0  # how long one action by filter goes on
    authenticate: Authenticator = local


@dataclass(slots=True)
class Api:
    """What all calls of one application share."""

    service: Service
    options: Options
    bodies: Bodies
    start: str  # tells this start of the node from others, in ids of events
    long_polls: LongPolls
    downloads: asyncio.Semaphore
    streams: set[Stream] = field(default_factory=set)


@dataclass(slots=True)
class Call:
    """One request on its way."""

    api: Api
    request: web.Request
    route: Route
    principal: Principal
    query: Mapping[str, Any]  # validated by the route's type

    @property
    def service(self) -> Service:
        return self.api.service

    async def body(self) -> bytes:
        """The whole body, at most `route.body_max`. Call it inside `admitted`."""
        return await read_body(self.request, self.route.body_max)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts the body against what the node holds at once. Raises Problem('overloaded')."""
        size = self.request.content_length
        if size is None or size > self.route.body_max:
            size = self.route.body_max
        self.api.bodies.enter(size)
        try:
            yield
        finally:
            self.api.bodies.leave(size)

    def task_id(self) -> UUID:
        """Raises Problem('task-not-found') also for what is no id."""
        text = self.request.match_info["id"]
        try:
            if len(text) == 36:
                return UUID(text)
        except ValueError:
            pass
        raise Problem("task-not-found", f"{text!r} is not the id of a task")


class Parameters:
    """The query of a route: its type, its validator, and which names may be given several times."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.adapter: TypeAdapter[Any] = TypeAdapter(model)
        self.schema: dict[str, Any] = self.adapter.json_schema()
        properties: dict[str, Any] = self.schema.get("properties", {})
        self.lists = frozenset(name for name, part in properties.items() if part.get("type") == "array")
        self.required = bool(self.schema.get("required"))

    def read(self, query: MultiMapping[str]) -> Mapping[str, Any]:
        """Raises InvalidInput."""
        return parameters(self.adapter, self.lists, query)


NO_QUERY = Parameters(models.NoQuery)
WAIT_QUERY = Parameters(models.WaitQuery)
LIST_QUERY = Parameters(models.ListQuery)
EVENTS_QUERY = Parameters(models.EventsQuery)
LOCATE_QUERY = Parameters(models.LocateQuery)
VIEWS_QUERY = Parameters(models.ViewsQuery)
SCHEDULE_QUERY = Parameters(models.ScheduleQuery)
SCHEDULES_QUERY = Parameters(models.SchedulesQuery)
TENANTS_QUERY = Parameters(models.TenantsQuery)
WORKFLOW_QUERY = Parameters(models.WorkflowQuery)
WORKFLOWS_QUERY = Parameters(models.WorkflowsQuery)


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of success. `model` describes a JSON body; None with another content type is opaque."""

    what: str
    model: Any = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)  # name -> what it says


Handle = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    method: str
    path: str
    scope: Scope
    handle: Handle
    summary: str
    tag: str
    answers: Mapping[int, Answer]
    parameters: Parameters = NO_QUERY
    headers: Mapping[str, str] = field(default_factory=dict)  # request headers it reads
    body: Any = None  # the type of the JSON body
    body_max: int = 0
    streams: bool = False  # answers without an end
    problems: tuple[str, ...] = ()  # slugs beside those every route may have

    @property
    def pattern(self) -> str:
        """The path for aiohttp, whose variables take no braces unless told so."""
        return re.sub(r"{(\w+)}", r"{\1:[^/]+}", self.path)

    def dispatcher(self, api: Api) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The aiohttp handler: who asks, may they, with which parameters, then `handle`."""
        authenticate, loopback = api.options.authenticate, api.options.loopback
        public, query = self.scope is Scope.PUBLIC, self.parameters

        async def dispatch(request: web.Request) -> web.StreamResponse:
            refuse_foreign_pages(request, loopback=loopback)
            if public:
                return await self.handle(Call(api, request, self, NOBODY, {}))
            principal = await authenticate(request)
            demand(principal, self.scope)
            values = query.read(request.query) if request.query_string or query.required else {}
            return await self.handle(Call(api, request, self, principal, values))

        return dispatch
