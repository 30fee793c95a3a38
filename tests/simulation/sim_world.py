"""A world of nodes, callers and faults, from one seed: the same seed has the same history.

For `FAULTS_S` everything goes wrong that may; then nothing does, and within `HEAL_S` every accepted task must be final.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from actors.authoring.resources import Resources
from actors.intake import TaskSpec, request_digest
from runtime.core.task import Duplicate, Lane, State, Status, Stored
from runtime.errors import AskError, NoriaError, Overloaded, Unavailable
from runtime.kernel.virtual import SimLoop
from tests.simulation.sim_handlers import Witness
from tests.simulation.sim_node import LEASE_S, SimNode, Tasks
from tests.simulation.sim_store import Chaos, Record, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from uuid import UUID

    from actors.authoring.registry import Registry

FAULTS_S: Final = 15.0
HEAL_S: Final = 90.0
TASKS: Final = 14
_START: Final = datetime(2030, 1, 1, tzinfo=UTC)
_LIMIT_S: Final = 1000.0


def simulate(seed: int, registry: Registry, say: Callable[[str], object] | None = None) -> Record:
    """The history of that seed, told to `say`. Raises Violation; its last events are in the message."""
    tasks = Tasks()

    def make_loop() -> SimLoop:
        loop = SimLoop(limit_s=_LIMIT_S)
        loop.set_task_factory(tasks.make)  # type: ignore[arg-type] # typeshed's factory knows no context
        return loop

    random = Random(seed)
    world = World(random, registry, tasks)
    world.record.say = say
    listening = _Listener(world.record)
    logging.getLogger().addHandler(listening)
    try:
        with patch("os.urandom", random.randbytes), asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(world.run())
        if world.record.failures:
            raise Violation("; ".join(world.record.failures))  # noqa: TRY301 - told with its history below
    except Exception as error:
        history = "\n".join(world.record.trace)
        raise Violation(f"seed {seed}: {_innermost(error)}\nthe last events:\n{history}") from error
    finally:
        logging.getLogger().removeHandler(listening)
    return world.record


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Listener(logging.Handler):
    def __init__(self, record: Record) -> None:
        super().__init__(logging.WARNING)
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        self._record.emit(record)


class World:
    def __init__(self, random: Random, registry: Registry, tasks: Tasks) -> None:
        self._random = random
        self._poison_left = random.choice((0, 0, 1))
        self._end_now: dict[str, asyncio.Event] = {}
        self._drain_now: set[str] = set()
        witness = Witness(lambda node: self._end_now[node].set())
        self.record = Record(lambda: _START + timedelta(seconds=self._now_s()), Chaos(random), self._now_s)
        self._nodes = [
            SimNode(f"n{n}", registry, Resources.of(witness), self.record, tasks, Random(random.random()))
            for n in range(random.choice((1, 2, 2)))
        ]
        self._faults = True
        self._calm_s = random.choice((0.4, 0.8, 3.0))  # between two faults
        self._end_now |= {node.name: asyncio.Event() for node in self._nodes}
        self._requests: dict[str, TaskSpec] = {}
        self._ids: dict[str, UUID] = {}

    def _now_s(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:  # before and after
            return 0.0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(node)) for node in self._nodes]
            callers = [group.create_task(self._call(f"k{n}")) for n in range(TASKS)]
            await self._go_wrong()
            self.record.note("faults end")
            self._faults = False
            self.record.chaos.end()
            await self._heal(callers)
            self.record.check()
            self._check_outcomes()
            for keeper in keepers:
                keeper.cancel()

    async def _heal(self, callers: list[asyncio.Task[None]]) -> None:
        tables = self.record.tables
        try:
            async with asyncio.timeout(HEAL_S):
                await asyncio.gather(*callers)
                while tables.waiting or tables.running:  # noqa: ASYNC110 - no event says so
                    await asyncio.sleep(0.5)
        except TimeoutError:
            left = [*tables.waiting.values(), *tables.running.values()]
            raise Violation(
                f"not final {HEAL_S:g} s after all faults, or a caller was not told: {left}"
            ) from None
        await asyncio.sleep(1)  # so that whatever was in hand is given back
        for node in self._nodes:
            if node.failed:
                raise Violation(f"the actors of {node.name} have given up")
            if node.up.is_set() and node.capacity.taken:
                raise Violation(f"{node.name} has {node.capacity.taken} slots taken, and nothing runs")

    # -- what goes wrong ----------------------------------------------------------------------------

    async def _go_wrong(self) -> None:
        random = self._random
        until_s = self._now_s() + FAULTS_S
        async with asyncio.TaskGroup() as cuts:
            while (left_s := until_s - self._now_s()) > 0:
                await asyncio.sleep(min(left_s, random.expovariate(1 / self._calm_s)))
                fault = random.choice(("kill", "kill", "drain", "drain", "cut", "cut", "away", "frozen"))
                node = random.choice(self._nodes)
                if fault in {"kill", "drain"}:
                    if fault == "drain":
                        self._drain_now.add(node.name)
                    self._end_now[node.name].set()
                elif fault != "cut":
                    await self._outage(fault)
                elif node.up.is_set():
                    cuts.create_task(node.cut_off(random.uniform(0.5, 3 * LEASE_S)))

    async def _outage(self, kind: str) -> None:
        self.record.note(f"the record is {kind}")
        setattr(self.record.chaos, kind, True)
        await asyncio.sleep(self._random.uniform(0.1, 3))
        setattr(self.record.chaos, kind, False)
        self.record.note("the record is back")

    async def _keep(self, node: SimNode) -> None:
        """Starts it whenever it is down."""
        event = self._end_now[node.name]
        while True:
            event.clear()
            self._drain_now.discard(node.name)
            await node.start()
            await _first_of(event.wait, node.died)
            if node.name in self._drain_now:
                await node.drain(self._random.choice((0.0, 1.0, 3.0)))
            else:
                await node.kill()
            await asyncio.sleep(self._random.uniform(0, 2) if self._faults else 0.1)

    # -- what callers do ----------------------------------------------------------------------------

    async def _call(self, key: str) -> None:
        random = self._random
        await asyncio.sleep(random.uniform(0, FAULTS_S))
        spec = self._requests[key] = self._request(key)
        task_id = await self._insist(spec)
        self._ids[key] = task_id
        self.record.accepted.add(task_id)
        if random.random() < 0.15:
            await asyncio.sleep(random.expovariate(1))
            with suppress(NoriaError):
                await (await self._some_node()).cancel(task_id)
        while True:
            with suppress(NoriaError):
                state = await (await self._some_node()).wait(task_id, 3)
                if state is None:
                    raise Violation(f"{task_id} was accepted, and its caller is told that it does not exist")
                if state.final:
                    self._check_told(task_id, state)
                    return
            await asyncio.sleep(0.1)

    async def _insist(self, spec: TaskSpec) -> UUID:
        while True:
            node = await self._some_node()
            try:
                answer = await node.submit(spec)
            except (Unavailable, Overloaded, AskError):
                await asyncio.sleep(0.2)
                continue
            if not isinstance(answer, Stored | Duplicate):
                raise Violation(f"{spec.idempotency_key} was answered with {answer}")
            return answer.id

    async def _some_node(self) -> SimNode:
        node = self._random.choice(self._nodes)
        await node.up.wait()
        return node

    def _request(self, key: str) -> TaskSpec:
        random = self._random
        if self._poison_left:
            self._poison_left -= 1
            poison = request_digest({"handler": "poison", "payload": {}})
            return TaskSpec(handler="poison", idempotency_key=key, digest=poison)
        handler, payload = random.choice(
            (
                ("works", {"for_s": round(random.choice((0.0, 0.3, 2.0, 6.0)), 3)}),
                ("flaky", {"failures": random.randint(0, 3)}),
                ("doomed", {}),
                ("late", {"deaf": random.random() < 0.5}),
                ("naps", {"until_attempt": random.randint(1, 4)}),
                ("parent", {"name": key}),
            )
        )
        delay_s = random.choice((None, None, 2.5))
        return TaskSpec(
            handler=handler,
            payload=payload,
            idempotency_key=key,
            priority=random.choice((None, Lane.HIGH, Lane.LOW)),
            delay_s=delay_s,
            digest=request_digest({"handler": handler, "payload": payload}),
        )

    # -- the end ------------------------------------------------------------------------------------

    def _check_told(self, task_id: UUID, state: State) -> None:
        outcome = self.record.tables.outcomes.get(task_id)
        if outcome is None or outcome.status.state is not state:
            raise Violation(f"the caller of {task_id} was told {state}, the record says {outcome}")

    def _check_outcomes(self) -> None:
        tables = self.record.tables
        for task_id, outcome in tables.outcomes.items():
            error = outcome.error.type if outcome.error else None
            if outcome.status is Status.SUCCEEDED and json.loads(outcome.result or b"") != outcome.attempt:
                raise Violation(f"{task_id} has the result of another attempt: {outcome}")
            if outcome.status is Status.FAILED and error not in {"ValueError", "TimedOut", "NodeCrashed"}:
                raise Violation(f"{task_id} failed without a reason to: {outcome}")
        for key, task_id in self._ids.items():
            self._check_outcome(key, self._requests[key], tables.outcomes[task_id])

    def _check_outcome(self, key: str, spec: TaskSpec, outcome: Any) -> None:
        crashed = outcome.error is not None and outcome.error.type == "NodeCrashed"
        if spec.handler == "poison" and not (outcome.status is Status.CANCELLED or crashed):
            raise Violation(f"a poison task ended without being found out: {outcome}")
        if spec.handler == "parent":
            children = [self.record.tables.keys.get(("default", f"{key}/{n}")) for n in range(2)]
            born = [child is not None for child in children]
            if born != [outcome.status is Status.SUCCEEDED] * 2:
                raise Violation(f"{key} is {outcome.status.name}, its children exist: {born}")
        if outcome.status is Status.CANCELLED or crashed:
            return
        failures = {"doomed": 2, "parent": 1, "works": 0, "naps": 0}.get(spec.handler)
        if spec.handler == "flaky":
            failures = spec.payload["failures"]
        if spec.handler == "late" and not spec.payload["deaf"]:
            failures = 2
        if failures is not None and outcome.failures != failures:
            raise Violation(
                f"{spec.handler} ended after {outcome.failures} failures, not {failures}: {outcome}"
            )


async def _first_of(*waits: Callable[[], Coroutine[Any, Any, object]]) -> None:
    tasks = [asyncio.ensure_future(wait()) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
