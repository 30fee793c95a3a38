"""The composition root: the only place that knows which adapters exist. It builds a node in order, and ends it in
reverse.

    record → registry → resources → lease → actors → HTTP, then: ready
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import uvloop
from aiohttp import web

from actors.activity import Activity
from actors.authoring.lifespans import open_lifespans
from actors.authoring.log_context import install as install_log_context
from actors.authoring.registry import Kind, Registry
from actors.bands import Bands
from actors.catalog import Published
from actors.cluster import Cluster
from actors.executor.capacity import Capacity
from actors.intake.intake import Intake
from actors.keyed.placing import about_actors, placed
from actors.publishing import Told
from actors.supervisor.messages import DrainNode, GetActors, JoinCluster
from actors.supervisor.messages import Message as SupervisorMessage
from actors.supervisor.supervisor import Supervisor
from actors.world import Keeping, Limits, World
from node import logs
from node.http.app import make_app
from node.http.route import Options
from node.lease import LeaseKeeper
from node.service import NodeService
from node.settings import Settings
from runtime.adapters.etcd import open_coordinator
from runtime.adapters.objects import Keys, open_objects, parse
from runtime.adapters.postgres.lease import open_lease
from runtime.adapters.postgres.migrate import migrate
from runtime.adapters.postgres.store import PostgresStore
from runtime.adapters.postgres.transactions import PostgresTransactions
from runtime.adapters.rabbitmq import open_broker
from runtime.adapters.telemetry import PrometheusTelemetry
from runtime.core.limits import in_force
from runtime.errors import IncarnationDead, NoriaError
from runtime.kernel.actor import Ref
from runtime.kernel.clock import SystemClock
from runtime.kernel.supervision import ChildSpec
from runtime.kernel.system import ActorSystem
from runtime.kernel.watchdog import Watchdog
from runtime.ports import Broker, Coordinator, Objects

log = logging.getLogger(__name__)

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 70
EXIT_DEAD: Final = 75
_STALL_S: Final = 30.0
_GC_THRESHOLDS: Final = (
    50_000,
    50,
    100,
)  # tasks are young and die young: with uvloop this saves an eighth of the node's CPU
_ASK_S: Final = 10.0
_JOIN_S: Final = 30.0
_DRAIN_SLACK_S: Final = 10.0
_EXIT_S: Final = 1.0  # from the end of the node to the end of its process


@dataclass(slots=True)
class Node:
    """A running node."""

    service: NodeService
    system: ActorSystem
    supervisor: Ref[SupervisorMessage]
    lease: LeaseKeeper
    asked_to_drain: asyncio.Event  # by somebody through the record
    url: str = ""

    async def drain(self, within_s: float) -> None:
        """Out of readiness, claim nothing more, end or hand back what runs, leave."""
        self.service.draining = True
        self.lease.leave()
        drained = await self.supervisor.ask(DrainNode(within_s), within_s + _DRAIN_SLACK_S)
        log.info("drained: %d attempts ended, %d were handed back", drained.finished, drained.released)


@asynccontextmanager
async def open_node(settings: Settings) -> AsyncIterator[Node]:
    """A node from its settings, serving when this is entered."""
    registry = Registry.load(settings.handlers) if settings.handlers else Registry()
    for note in registry.notes:
        log.warning("%s", note)
    async with AsyncExitStack() as stack:
        await migrate(settings.postgres_dsn)
        store = await stack.enter_async_context(PostgresStore.open(settings.postgres_dsn))
        telemetry = PrometheusTelemetry()
        world = await _join(settings, registry, store, telemetry, stack)
        lease = LeaseKeeper(
            lambda: open_lease(settings.postgres_dsn),
            world.incarnation,
            settings.lease_s,
            _exit_dead,
            world.fence.renewed,
            lambda: world.activity.load,
        )
        lease.start()
        stack.callback(lease.close)
        system = await stack.enter_async_context(
            ActorSystem(world.clock, on_dead_letter=lambda reason, actor, _type: telemetry.count(
                "dead_messages_total", reason=reason, actor=actor
            ))
        )  # fmt: skip
        asked_to_drain = asyncio.Event()
        supervisor = await system.spawn(
            ChildSpec(name="supervisor", make=lambda: Supervisor(world, asked_to_drain.set))
        )
        stack.enter_context(
            Watchdog(
                stall_s=_STALL_S,
                on_stall=_exit_stalled,
                on_lag=lambda lag_s: telemetry.gauge("event_loop_lag_seconds", lag_s),
            )
        )
        service = NodeService(world, await supervisor.ask(GetActors(), _ASK_S), telemetry.render)
        await supervisor.ask(JoinCluster(), _JOIN_S)
        node = Node(service, system, supervisor, lease, asked_to_drain)
        node.url = await _serve(settings, service, stack)
        gc.collect()
        gc.freeze()  # what was loaded at start is never garbage: keep the collector away from it
        yield node


def _about(settings: Settings, registry: Registry) -> dict[str, object]:
    """What others are told of this node, through its lease."""
    return {
        "tags": list(settings.tags),
        "handlers": list(registry.names),
        "actors": about_actors(registry),
        "weight": settings.weight,
    }


async def _join(
    settings: Settings,
    registry: Registry,
    store: PostgresStore,
    telemetry: PrometheusTelemetry,
    stack: AsyncExitStack,
) -> World:
    await store.publish(registry.entries())
    await store.declare_limits(registry.limits())
    resources = await stack.enter_async_context(open_lifespans(registry.lifespans))
    await store.adopt_strays()
    bands = Bands(store)
    await bands.refresh()
    about = _about(settings, registry)
    coordinator: Coordinator = store.coordinator
    if settings.etcd_url is not None:
        coordinator = await stack.enter_async_context(open_coordinator(settings.etcd_url))
    objects = await _open_results(settings, store, stack)
    incarnation = await store.join(settings.node_name, settings.lease_s, about)
    broker: Broker | None = None
    if settings.amqp_url is not None:
        broker = await stack.enter_async_context(
            open_broker(settings.amqp_url, incarnation, telemetry, random.random)
        )
    clock = SystemClock(time.monotonic)  # a loop's own time may stand still within one of its turns
    limits = Limits(
        settings.concurrency,
        settings.threads,
        settings.cpu_processes,
        result_bytes=settings.result_max_bytes,
    )
    capacity = Capacity({kind: limits.of(kind) for kind in Kind})
    capacity.paused = await store.paused()  # before the first pull
    capacity.limits = in_force(await store.limits())
    return World(
        store=store,
        registry=registry,
        bands=bands,
        capacity=capacity,
        intake=Intake(registry, bands, lambda: time.time_ns() // 1_000_000, Published(store, clock.now_s)),
        resources=resources,
        activity=Activity(clock.now_s, clock.wall),
        clock=clock,
        telemetry=telemetry,
        jitter=random.random,
        node=settings.node_name,
        incarnation=incarnation,
        cluster=Cluster(incarnation, placed(about)),
        coordinator=coordinator,
        broker=broker,
        events=Told(settings.events),
        objects=objects,
        transactions=await _open_transactions(settings, stack),
        heartbeat_s=settings.heartbeat_s,
        lease_s=settings.lease_s,
        sources=registry.loaded_from,
        tags=frozenset(settings.tags),
        limits=limits,
        keeping=Keeping(settings.retention_s, settings.keys_s),
    )


async def _open_transactions(settings: Settings, stack: AsyncExitStack) -> PostgresTransactions:
    opened = PostgresTransactions.open(settings.postgres_dsn, settings.transactions)
    return await stack.enter_async_context(opened)


async def _open_results(settings: Settings, store: PostgresStore, stack: AsyncExitStack) -> Objects | None:
    """Where large results lie, under the name of this record. Raises SettingsError where that place will not do."""
    if settings.results_url is None:
        return None
    keys = None
    if settings.s3_access_key_id is not None and settings.s3_secret_access_key is not None:
        keys = Keys(settings.s3_access_key_id, settings.s3_secret_access_key)
    name = str(await store.identity())
    return await stack.enter_async_context(open_objects(parse(settings.results_url), keys, name))


async def _serve(settings: Settings, service: NodeService, stack: AsyncExitStack) -> str:
    loopback = settings.http_host in {"127.0.0.1", "::1", "localhost"}
    app = make_app(service, Options(loopback=loopback, backlog_max=settings.max_backlog))
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, settings.http_host, settings.http_port, backlog=1024)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# -- one process ------------------------------------------------------------------------------------


def run_process(settings: Settings) -> int:
    """Run a node in a process that is nothing else. Returns the exit code, or ends the process with it.

    A thread cannot be stopped: one whose handler does not return must not hold a process that has drained.
    """
    gc.set_threshold(*_GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(run_node(settings))
        end = threading.Timer(_EXIT_S, _exit_without_threads, [code])
        end.daemon = True
        end.start()
    return code


def _exit_without_threads(code: int) -> None:
    names = sorted(t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread())
    log.warning("the process ends without threads that do not return: %s", ", ".join(names))
    logging.shutdown()
    os._exit(code)


async def run_node(settings: Settings) -> int:
    """Run until SIGTERM, SIGINT or SIGHUP, then drain; a second SIGTERM or SIGINT ends at once. Returns the exit
    code."""
    logs.set_up(settings.log_level, settings.log_format)
    install_log_context()
    stop = _stop_signal()
    async with open_node(settings) as node:
        log.info(
            "node %s serves %s with %d handlers",
            settings.node_name,
            node.url,
            len(node.service.registry.names),
        )
        node.system.failed.add_done_callback(lambda _: stop.set())
        await _first_of(stop, node.asked_to_drain)
        if node.system.failed.done():
            log.critical("the node's actors failed for good: %s", node.system.failed.result())
            return EXIT_FAILED
        log.info("draining for at most %g s; a second signal ends at once", settings.drain_s)
        try:
            await node.drain(settings.drain_s)
        except NoriaError as failed:
            log.warning("the drain did not come to its end, what runs here is taken over: %r", failed)
    return EXIT_DONE


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        loop.add_signal_handler(signal.SIGHUP, stop.set)  # terminal or parent gone: may come more than once
    return stop


def _exit_dead(dead: IncarnationDead) -> None:
    log.critical("this node was declared dead and must not go on: %s", dead)
    logging.shutdown()
    os._exit(EXIT_DEAD)


def _exit_stalled(seconds: float) -> None:
    log.critical(
        "the event loop has not moved for %.0f s; the process ends, its work will run elsewhere", seconds
    )
    logging.shutdown()
    os._exit(EXIT_FAILED)
