"""A whole node in this process, on the memory store and a real port: real actors, real HTTP, no service."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, web

from actors.activity import Activity
from actors.authoring.lifespans import open_lifespans
from actors.authoring.registry import Kind
from actors.bands import Bands
from actors.catalog import Published
from actors.cluster import Cluster
from actors.executor.capacity import Capacity
from actors.intake.intake import Intake
from actors.supervisor.messages import DrainNode, GetActors, JoinCluster
from actors.supervisor.supervisor import Supervisor
from actors.world import Limits, World
from node.http.app import API, make_app
from node.service import NodeService
from runtime.adapters.memory.broker import MemoryBroker, MemoryExchange
from runtime.adapters.memory.store import MemoryStore
from runtime.adapters.memory.views import MemoryCoordinator, MemoryViews
from runtime.adapters.telemetry import PrometheusTelemetry
from runtime.core.limits import in_force
from runtime.kernel.clock import SystemClock
from runtime.kernel.supervision import ChildSpec
from runtime.kernel.system import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from actors.authoring.registry import Registry
    from actors.supervisor.messages import Message as SupervisorMessage
    from node.http.route import Api, Options
    from runtime.kernel.actor import Ref
    from runtime.ports import Coordinator, Objects, Store

_LONG_S = 86_400.0
_HEARTBEAT_S = 0.05  # with a broker


@dataclass(slots=True)
class MemoryNode:
    url: str
    service: NodeService
    store: MemoryStore
    views: MemoryViews
    world: World
    supervisor: Ref[SupervisorMessage]
    api: Api

    def client(self, **options: Any) -> ClientSession:
        return ClientSession(self.url, **options)

    async def drain(self, within_s: float = 1.0) -> None:
        self.service.draining = True
        await self.supervisor.ask(DrainNode(within_s), within_s + 5)


@asynccontextmanager
async def memory_node(
    registry: Registry,
    *,
    options: Options | None = None,
    concurrency: int = 100,
    name: str = "n1",
    beside: MemoryNode | None = None,
    tags: tuple[str, ...] = (),
    weight: float = 1.0,
    exchange: MemoryExchange | None = None,
    objects: Objects | None = None,
) -> AsyncIterator[MemoryNode]:
    """A member of the cluster of the node `beside`, or of one of its own; it has its place in the ring when this is
    entered. With an `exchange` it talks to the others there.

    Asked to drain, it does, and goes on to answer. Build the registry before the loop runs: it reads files."""
    store = MemoryStore(lambda: datetime.now(UTC)) if beside is None else beside.store
    views = MemoryViews() if beside is None else beside.views
    about = {"tags": list(tags), "handlers": list(registry.names), "weight": weight}
    await store.publish(registry.entries())
    await store.declare_limits(registry.limits())
    incarnation = await store.join(name, _LONG_S, about)
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(open_lifespans(registry.lifespans))
        world = _world(
            registry, store, MemoryCoordinator(views), resources,
            incarnation=incarnation, concurrency=concurrency, name=name, tags=tags,
        )  # fmt: skip
        world.capacity.limits = in_force(await store.limits())
        if exchange is not None:
            broker = MemoryBroker(exchange, incarnation)
            stack.callback(broker.close)
            world = replace(world, broker=broker, heartbeat_s=_HEARTBEAT_S)
        world = replace(world, objects=objects)
        system = await stack.enter_async_context(ActorSystem(world.clock))
        asked_to_drain = asyncio.Event()
        supervisor = await system.spawn(
            ChildSpec(name="supervisor", make=lambda: Supervisor(world, asked_to_drain.set))
        )
        render = world.telemetry.render if isinstance(world.telemetry, PrometheusTelemetry) else bytes
        service = NodeService(world, await supervisor.ask(GetActors(), 5), render)
        await supervisor.ask(JoinCluster(), 5)
        app = make_app(service, options)
        url = await stack.enter_async_context(serving(app))
        node = MemoryNode(url, service, store, views, world, supervisor, app[API])
        await stack.enter_async_context(_draining_when(asked_to_drain, node))
        yield node


@asynccontextmanager
async def _draining_when(asked: asyncio.Event, node: MemoryNode) -> AsyncIterator[None]:
    async def obey() -> None:
        await asked.wait()
        await node.drain()

    obeying = asyncio.create_task(obey())
    try:
        yield
    finally:
        obeying.cancel()
        with suppress(asyncio.CancelledError):
            await obeying


def _world(
    registry: Registry,
    store: Store,
    coordinator: Coordinator,
    resources: Any,
    *,
    incarnation: int,
    concurrency: int,
    name: str,
    tags: tuple[str, ...],
) -> World:
    clock, bands, limits = SystemClock(), Bands(store), Limits(concurrency, 4, 1)
    return World(
        store=store,
        registry=registry,
        bands=bands,
        capacity=Capacity({kind: limits.of(kind) for kind in Kind}),
        intake=Intake(registry, bands, lambda: time.time_ns() // 1_000_000, Published(store, clock.now_s)),
        resources=resources,
        activity=Activity(clock.now_s, clock.wall),
        clock=clock,
        telemetry=PrometheusTelemetry(),
        jitter=random.Random().random,  # the global one belongs to Hypothesis
        node=name,
        incarnation=incarnation,
        cluster=Cluster(incarnation, registry.names),
        coordinator=coordinator,
        lease_s=_LONG_S,
        tags=frozenset(tags),
        limits=limits,
    )


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """On a port of its own; yields its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Lets the loop run until the condition holds; for what nothing announces."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
