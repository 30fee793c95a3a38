"""A whole cluster, its callers and its faults, from one seed: the same seed has the same history.

For `FAULTS_S` everything goes wrong that may; then nothing does, and within `HEAL_S` every accepted task must be final
and all nodes must go by one view, of exactly those that live.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Final
from unittest.mock import patch

from actors.authoring.resources import Resources
from runtime.core import ring
from runtime.core.view import Standing
from tests.simulation.sim_callers import Callers
from tests.simulation.sim_faults import Faults
from tests.simulation.sim_handlers import Witness, registry
from tests.simulation.sim_history import History, Listener, Violation
from tests.simulation.sim_lines import LATE_MAX_S, Chaos
from tests.simulation.sim_liveness import Liveness
from tests.simulation.sim_loop import NODE, ProcessLoop
from tests.simulation.sim_network import Network
from tests.simulation.sim_node import Profile, Shared, SimNode, first_of
from tests.simulation.sim_record import Record
from tests.simulation.sim_views import Views

FAULTS_S: Final = 12.0
HEAL_S: Final = 90.0
AGREE_S: Final = 20.0
QUIET_S: Final = 2.0  # of views, in the end
TASKS: Final = 10


def simulate(seed: int, say: Callable[[str], object] | None = None) -> World:
    """The world of that seed, after its end; its history is told to `say`. Raises Violation, with the last events."""
    random = Random(seed)
    world = World(random, say)
    listening = Listener(world.history)
    logging.getLogger().addHandler(listening)
    try:
        with (
            patch("os.urandom", random.randbytes),
            _processes_of_their_own(),
            asyncio.Runner(loop_factory=ProcessLoop) as runner,
        ):
            runner.run(world.run())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its history
        world.history.fail(f"{type(_innermost(error)).__name__}: {_innermost(error)}")
    finally:
        logging.getLogger().removeHandler(listening)
    if world.history.failure is not None:
        events = "\n".join(world.history.trace)
        raise Violation(f"seed {seed}: {world.history.failure}\nthe last events:\n{events}")
    return world


class World:
    def __init__(self, random: Random, say: Callable[[str], object] | None) -> None:
        self._random = random
        self.history = History(_now_s, say)
        chaos = Chaos(random)
        self.record = Record(self.history, chaos)
        self.views = Views(self.history, random.choice((chaos, Chaos(random))), self.record)
        network = Network(random, self.history, self.views) if random.random() < 0.75 else None
        witness = Witness(lambda name: self._node(name).end.set(), self.history.fail)
        self.shared = Shared(self.history, self.record, self.views, network, Resources.of(witness))
        self.nodes = [SimNode(profile, self.shared, Random(random.random())) for profile in _profiles(random)]
        self.record.promises.is_healthy = self._is_healthy
        self.record.promises.on_claims = self._on_claims
        self._callers = Callers(random, self.nodes, self.shared)
        self._faults: Faults | None = None

    async def run(self) -> None:
        story = asyncio.create_task(self._story())
        await first_of(story, self.history.broken)
        if story.done():
            story.result()
        story.cancel()
        await asyncio.wait({story})
        for node in self.nodes:
            await node.life.kill()

    async def _story(self) -> None:
        faults = self._faults = Faults(self._random, self.nodes, self.shared)
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self._keep(node)) for node in self.nodes]
            keepers.append(group.create_task(Liveness(self.nodes, self.shared).watch()))
            callers = [group.create_task(self._callers.call(f"k{n}", FAULTS_S)) for n in range(TASKS)]
            await faults.happen(FAULTS_S)
            self._end_faults()
            await self._heal(callers)
            await self._agree()
            self.record.promises.check_all()
            self._callers.check_outcomes()
            for keeper in keepers:
                keeper.cancel()

    def _end_faults(self) -> None:
        self.history.note("faults end")
        self._faults = None
        self.record.chaos.end()
        self.views.chaos.end()
        if self.shared.network is not None:
            self.shared.network.end()

    async def _keep(self, node: SimNode) -> None:
        """Starts it whenever it is down."""
        while True:
            await node.start()
            life = node.life
            await first_of(node.end, life.died, life.asked_to_drain)
            if life.asked_to_drain.is_set() and not node.end.is_set() and not life.died.is_set():
                node.drains = True
            if life.died.is_set():
                node.drains = False
            await node.stop(self._random.choice((0.0, 1.0, 3.0)))
            await asyncio.sleep(self._random.uniform(0, 2) if self._faults else 0.1)

    # -- the end ------------------------------------------------------------------------------------

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

    async def _agree(self) -> None:
        """In the end all go by one view, of exactly those that live; and nothing is left over."""
        until_s, quiet_since_s = _now_s() + LATE_MAX_S + AGREE_S, None
        while quiet_since_s is None or _now_s() - quiet_since_s < QUIET_S:
            if _now_s() > until_s:
                raise Violation(f"no agreement {AGREE_S:g} s after all faults: {self._why_not()}")
            await asyncio.sleep(0.5)
            quiet_since_s = None if self._why_not() else (quiet_since_s or _now_s())

    def _why_not(self) -> str:
        if down := [node.profile.name for node in self.nodes if not node.up.is_set()]:
            return f"{down} are down"
        present, lives = self.views.all[-1], [node.life for node in self.nodes]
        for life in lives:
            if life.system.failed.done():
                return f"the actors of {life.process} have given up"
            if life.world.cluster.view != present:
                return f"{life.process} goes by {life.world.cluster.view}, not {present}"
            if life.world.capacity.taken:
                return f"{life.process} has {life.world.capacity.taken} slots taken, and nothing runs"
        active = [m.incarnation for m in present.members if m.standing is Standing.ACTIVE]
        living = sorted(life.incarnation for life in lives)
        if active != living or len(present.members) != len(living):
            return f"{living} live, the view is {present}"
        return ""

    # -- what others ask ----------------------------------------------------------------------------

    def _node(self, name: str) -> SimNode:
        return next(node for node in self.nodes if node.profile.name == name)

    def _is_healthy(self, incarnation: int, since_s: float) -> bool:
        lives = (life for node in self.nodes for life in node.lives if life.incarnation == incarnation)
        return any(life.is_healthy(since_s) for life in lives)  # a join whose answer was lost has none

    def _on_claims(self, via: str, by: int, claims: list[object]) -> None:
        self.history.counts[f"claimed by {via}"] += len(claims)


def _profiles(random: Random) -> list[Profile]:
    count = random.choice((1, 2, 3, 3, 3))
    partial, tagged = random.choice((None, 1)), random.choice((None, 0, 1))
    return [
        Profile(
            name=f"n{n}",
            registry=registry(whole=n != partial),
            tags=frozenset({"gpu"} if n == tagged else ()),
            weight=random.choice((1.0, 1.0, 0.5)),
        )
        for n in range(count)
    ]


def _now_s() -> float:
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:  # before and after
        return 0.0


@contextmanager
def _processes_of_their_own() -> Iterator[None]:
    """Each node hashes text with a seed of its own, and knows by heart the tables that it has built."""

    def salted(value: object) -> int:
        return builtins.hash((_name(), value))

    def built(nodes: Mapping[str, float]) -> ring.Table:
        return _table(_name(), tuple(nodes.items()))

    with (
        patch("runtime.core.ring.hash", salted, create=True),
        patch("runtime.core.slots.hash", salted, create=True),
        patch("runtime.core.placement.build_table", built),
    ):
        yield


def _name() -> str:
    return NODE.get().partition(".")[0]


@cache
def _table(_of: str, nodes: tuple[tuple[str, float], ...]) -> ring.Table:
    return ring.build_table(dict(nodes))


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
