"""How a process reaches a service over a bad line: the record, or the store of views.

A call may fail before anything happened, after it was done, or have its effect only later, when its caller was told
that the service is away. A request that was sent is served even where its sender is stopped or killed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from runtime.errors import NoriaError, Unavailable
from tests.simulation.sim_loop import NODE, process

if TYPE_CHECKING:
    from runtime.adapters.memory.views import MemoryCoordinator
    from runtime.core.view import View

ANSWER_S: Final = 2.0  # after which a node takes a service for away
LATE_MAX_S: Final = 6.0
_STEP_S: Final = 0.1


class Chaos:
    """How bad the lines of one service are; `end` makes them good."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.clean = random.random() < 0.4
        self.latency_s = random.choice((0.0, 0.001, 0.01) if self.clean else (0.0, 0.001, 0.01, 0.1))
        self.before = 0.0 if self.clean else random.choice((0.0, 0.02, 0.1))
        self.after = 0.0 if self.clean else random.choice((0.0, 0.02, 0.1))
        self.late = 0.0 if self.clean else random.choice((0.0, 0.02, 0.05))
        self.away = 0  # faults at work that refuse every call
        self.frozen = 0  # and that answer nothing
        self.calm_since_s = 0.0  # when one of those began or ended last

    def end(self) -> None:
        self.before = self.after = self.late = 0.0

    def delay_s(self) -> float:
        return self._random.expovariate(1 / self.latency_s) if self.latency_s else 0.0

    def strikes(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    def later_s(self) -> float:
        return self._random.uniform(0.0, LATE_MAX_S)


class Service(Protocol):
    chaos: Chaos
    changes: frozenset[str]  # methods that change something

    def serve(self, caller: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """At once. Raises NoriaError."""
        ...


class Wire:
    """Between one incarnation and the services of one place."""

    def __init__(self) -> None:
        self.cut = 0  # faults at work, of nobody else
        self.dead = False
        self.missed_s = float("-inf")  # when it lost a renewal last


class Line:
    """The methods of a service, as one process calls them."""

    def __init__(self, service: Service, caller: str, wire: Wire) -> None:
        self._service = service
        self._caller = caller
        self._wire = wire
        self._on_the_way = process(f"{caller}>")
        self.asked: set[Any] = set()  # offers whose claim has been answered, or has failed

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        return partial(self._call, method)

    async def claim(self, offers: Any, incarnation: int) -> Any:
        try:
            return await self._call("claim", offers, incarnation)
        finally:
            self.asked.update(offers)

    async def renew(self, incarnation: int, lease_s: float) -> Any:
        try:
            return await self._call("renew", incarnation, lease_s)
        except Unavailable:
            if not self._service.chaos.away and not self._service.chaos.frozen:
                self._wire.missed_s = asyncio.get_running_loop().time()
            raise

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self._check_alive()
        chaos, is_change = self._service.chaos, method in self._service.changes
        if chaos.frozen or self._wire.cut:
            if is_change and chaos.strikes(0.5):
                self._serve_in(chaos.later_s(), method, args, kwargs)
            await asyncio.sleep(ANSWER_S)
            raise Unavailable(f"{method}: no answer")
        if chaos.away or chaos.strikes(chaos.before):
            raise Unavailable(f"{method}: refused")
        if is_change and chaos.strikes(chaos.late):
            self._serve_in(chaos.later_s(), method, args, kwargs)
            raise Unavailable(f"{method}: no answer, and it happens later")
        done, value = await self._served(method, args, kwargs)
        self._check_alive()
        if self._wire.cut or chaos.strikes(chaos.after):
            raise Unavailable(f"{method}: the answer was lost")
        if not done:
            raise value
        return value

    async def _served(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
        """(True, result) or (False, what it raised): an answer that nobody takes any more is no event."""
        there_s = self._service.chaos.delay_s()
        if not there_s:
            return self._serve(method, args, kwargs)
        answer: asyncio.Future[tuple[bool, Any]] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            reply = self._serve(method, args, kwargs)
            if not answer.done():
                answer.set_result(reply)

        asyncio.get_running_loop().call_later(there_s, arrive, context=self._on_the_way)
        reply = await answer
        await asyncio.sleep(self._service.chaos.delay_s())
        return reply

    def _serve(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
        try:
            return True, self._service.serve(self._caller, method, args, kwargs)
        except NoriaError as refused:
            return False, refused

    def _serve_in(self, delay_s: float, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The caller has given up; the service has not. One that is frozen serves nobody, so this comes after that."""
        loop = asyncio.get_running_loop()

        def late() -> None:
            if self._service.chaos.frozen:
                loop.call_later(_STEP_S, late, context=self._on_the_way)
                return
            with suppress(NoriaError):  # nobody is there to hear of it
                self._service.serve(self._caller, method, args, kwargs)

        loop.call_later(delay_s, late, context=self._on_the_way)

    def _check_alive(self) -> None:
        if self._wire.dead and NODE.get() == self._caller:
            raise asyncio.CancelledError("this process is dead")
        if self._wire.dead:
            raise Unavailable("that process is dead")


class ViewsLine(Line):
    """The port Coordinator over such a line; waiting for a newer view is no request and answer."""

    def __init__(self, service: Service, caller: str, wire: Wire, views: MemoryCoordinator) -> None:
        super().__init__(service, caller, wire)
        self._views = views

    async def newer(self, number: int, timeout_s: float) -> View | None:
        self._check_alive()
        if self._lost:
            await asyncio.sleep(min(timeout_s, ANSWER_S))
            raise Unavailable("newer: no answer")
        view = await self._views.newer(number, timeout_s)
        if delay_s := self._service.chaos.delay_s():
            await asyncio.sleep(delay_s)
        self._check_alive()
        if self._lost:
            raise Unavailable("newer: the answer was lost")
        return view

    @property
    def _lost(self) -> bool:
        chaos = self._service.chaos
        return bool(self._wire.cut or chaos.away or chaos.frozen)
