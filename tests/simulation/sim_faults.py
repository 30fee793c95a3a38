"""What goes wrong in a world, one thing after the other or several at the same time, until time is up; then nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.sim_loop import ProcessLoop
from tests.simulation.sim_node import LEASE_S

if TYPE_CHECKING:
    from tests.simulation.sim_lines import Chaos
    from tests.simulation.sim_network import WatchedBroker
    from tests.simulation.sim_node import Life, Shared, SimNode

_SILENCE_NOTICED_S: Final = 3.0  # no confirmation, no echo: then the connection is given up
_DEAFNESS_NOTICED_S: Final = 5.0
_AWAY_MAX_S: Final = 5.0  # of the record: more than a lease
_SOON_S: Final = 1e-6  # timers that are due so soon are due now, and time does not move


class Faults:
    def __init__(self, random: Random, nodes: Sequence[SimNode], shared: Shared) -> None:
        self._random = random
        self._nodes = nodes
        self._shared = shared
        self._calm_s = random.choice((0.4, 1.5, 4.0))  # between two faults
        self._kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._kill, self._drain, self._drain, self._pause, self._pause, self._cut_from_record, self._no_record,
        ]  # fmt: skip
        if shared.views.chaos is not shared.record.chaos:
            self._kinds += [self._no_views, self._cut_from_views]
        if shared.network is not None:
            self._kinds += [
                self._lose_broker,
                self._silence,
                self._deafen,
                self._cut_from_all,
                self._no_broker,
            ]
            self._kinds += [self._no_broker] * random.choice((0, 0, 4))  # one that comes and goes

    async def happen(self, for_s: float) -> None:
        until_s = self._now_s() + for_s
        under_way: list[asyncio.Task[None]] = []
        while (left_s := until_s - self._now_s()) > _SOON_S:
            await asyncio.sleep(min(left_s, self._random.expovariate(1 / self._calm_s)))
            under_way.append(asyncio.create_task(self._random.choice(self._kinds)()))
        for fault in under_way:
            fault.cancel()
        await asyncio.wait(under_way)
        for fault in under_way:
            if not fault.cancelled() and (error := fault.exception()) is not None:
                raise error

    def _now_s(self) -> float:
        return self._shared.history.now_s()

    def _up(self) -> list[Life]:
        return [node.life for node in self._nodes if node.up.is_set()]

    def _some(self) -> list[Life]:
        """One life, or several."""
        lives = self._up()
        count = min(len(lives), self._random.choice((1, 1, 1, 2, 4)))
        return self._random.sample(lives, count)

    def _brokers(self) -> list[WatchedBroker]:
        return [life.broker for life in self._some() if life.broker is not None]

    async def _for(
        self, what: str, max_s: float, begin: Callable[[], object], end: Callable[[], object]
    ) -> None:
        seconds = self._random.uniform(0.2, max_s)
        self._shared.history.note(f"{what} for {seconds:.1f} s", what.partition(":")[0])
        begin()
        try:
            await asyncio.sleep(seconds)
        finally:
            end()
            self._shared.history.note(f"over: {what}")

    # -- of processes -------------------------------------------------------------------------------

    async def _kill(self) -> None:
        self._random.choice(self._nodes).end.set()

    async def _drain(self) -> None:
        node = self._random.choice(self._nodes)
        if not node.up.is_set():
            return
        if self._random.random() < 0.5:
            node.drains = True
            node.end.set()
        else:  # by somebody at the record
            self._shared.record.serve("world", "request_drain", (node.profile.name,), {})

    async def _pause(self) -> None:
        lives = [life for life in self._some() if not life.paused]
        if not lives:
            return
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop), "worlds are on it"

        def begin() -> None:
            for life in lives:
                life.paused = True
                life.began_fault()
                loop.stop_process(life.process)

        def end() -> None:
            for life in lives:
                life.paused = False
                life.ended_fault()
                loop.continue_process(life.process)

        await self._for(f"pause: {_names(lives)}", 3 * LEASE_S, begin, end)

    # -- of lines -----------------------------------------------------------------------------------

    async def _cut_from_record(self) -> None:
        if lives := self._some():
            await self._cut_wires(f"cut from the record: {_names(lives)}", lives)

    async def _cut_wires(self, what: str, lives: list[Life]) -> None:
        def begin() -> None:
            for life in lives:
                life.wire.cut += 1
                life.began_fault()

        def end() -> None:
            for life in lives:
                life.wire.cut -= 1
                life.ended_fault()

        await self._for(what, 3 * LEASE_S, begin, end)

    async def _cut_from_views(self) -> None:
        lives = self._some()

        def change(by: int) -> None:
            for life in lives:
                life.views_wire.cut += by

        await self._for(f"cut from the views: {_names(lives)}", 6, lambda: change(1), lambda: change(-1))

    async def _cut_from_all(self) -> None:
        lives = self._some()
        brokers = [life.broker for life in lives if life.broker is not None]
        async with asyncio.TaskGroup() as both:
            both.create_task(self._cut_wires(f"cut from both: {_names(lives)}", lives))
            both.create_task(self._unheard(f"silent: {_names(lives)}", brokers, 3 * LEASE_S, deaf=False))

    async def _lose_broker(self) -> None:
        brokers = self._brokers()

        def begin() -> None:
            for broker in brokers:
                broker.lose()

        def end() -> None:
            for broker in brokers:
                broker.find()

        await self._for(f"cut from the broker: {len(brokers)}", 8, begin, end)

    async def _silence(self) -> None:
        brokers = self._brokers()
        await self._unheard(f"silent: {len(brokers)} brokers", brokers, 8, deaf=False)

    async def _deafen(self) -> None:
        brokers = self._brokers()
        await self._unheard(f"deaf: {len(brokers)} consumers", brokers, 8, deaf=True)

    async def _unheard(self, what: str, brokers: list[WatchedBroker], max_s: float, *, deaf: bool) -> None:
        loop, noticed = asyncio.get_running_loop(), False

        def change(by: int) -> None:
            for broker in brokers:
                broker.silent += 0 if deaf else by
                broker.deaf += by if deaf else 0

        def notice() -> None:
            nonlocal noticed
            noticed = True
            for broker in brokers:
                broker.lose()

        timer = loop.call_later(_DEAFNESS_NOTICED_S if deaf else _SILENCE_NOTICED_S, notice)

        def end() -> None:
            timer.cancel()
            change(-1)
            for broker in brokers:
                if noticed:
                    broker.find()
                broker.pass_on()

        await self._for(what, max_s, lambda: change(1), end)

    # -- of services --------------------------------------------------------------------------------

    async def _no_record(self) -> None:
        await self._outage("record", self._shared.record.chaos)

    async def _no_views(self) -> None:
        await self._outage("views", self._shared.views.chaos)

    async def _outage(self, name: str, chaos: Chaos) -> None:
        frozen = self._random.random() < 0.5

        def change(by: int) -> None:
            chaos.frozen += by if frozen else 0
            chaos.away += 0 if frozen else by
            chaos.calm_since_s = self._now_s()

        kind = f"{name} {'frozen' if frozen else 'away'}"
        await self._for(kind, _AWAY_MAX_S, lambda: change(1), lambda: change(-1))

    async def _no_broker(self) -> None:
        network = self._shared.network
        assert network is not None, "drawn only with one"
        if network.away:
            return
        loses = self._random.random() < 0.5
        await self._for("no broker", 8, network.go_away, lambda: network.come_back(loses=loses))


def _names(lives: list[Life]) -> str:
    return ", ".join(life.process for life in lives)
