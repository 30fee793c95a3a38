"""An actor that does what its messages say and writes down what it sees: for tests of the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from runtime.kernel.actor import ActorContext, Behavior, Control, Request, StopReason, Terminated


@dataclass(frozen=True, slots=True)
class Note:
    """Written down."""

    text: str


@dataclass(frozen=True, slots=True)
class Urgent(Control):
    """Written down, through the control lane."""

    text: str


@dataclass(frozen=True, slots=True)
class Echo(Request[str]):
    """Written down and answered."""

    text: str


@dataclass(frozen=True, slots=True)
class Do(Request[Any]):
    """Run in the turn; what it returns is not the answer."""

    what: Callable[[ActorContext[Any]], Awaitable[object] | object]


class Broken(Exception):
    """What probes fail with."""


@dataclass
class Journal:
    """What the lives of one or more probes have seen, in order."""

    lines: list[str] = field(default_factory=list[str])
    starts: int = 0
    fail_starts: int = 0  # how many `started` are still to fail

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


class Probe(Behavior[Any]):
    def __init__(self, journal: Journal, name: str = "", *, hooks: bool = False) -> None:
        self._journal = journal
        self._name = f"{name} " if name else ""
        self._hooks = hooks

    async def started(self, ctx: ActorContext[Any]) -> None:
        self._journal.starts += 1
        if self._hooks:
            self._journal(f"{self._name}started")
        if self._journal.fail_starts:
            self._journal.fail_starts -= 1
            raise Broken("at start")

    async def receive(self, ctx: ActorContext[Any], message: Any) -> None:
        match message:
            case Note(text) | Urgent(text):
                self._journal(self._name + text)
            case Echo(text):
                self._journal(self._name + text)
                ctx.reply(text)
            case Do(what):
                result = what(ctx)
                if isinstance(result, Awaitable):
                    await result
            case Terminated(ref, reason):
                self._journal(f"{self._name}{ref.name} {reason}")
            case _:
                ctx.unhandled(message)

    async def stopped(self, ctx: ActorContext[Any], reason: StopReason) -> None:
        if self._hooks:
            self._journal(f"{self._name}{reason}")


def boom(_: ActorContext[Any]) -> None:
    raise Broken("as told")


def block(gate: asyncio.Event) -> Do:
    """Keeps the actor in its turn until the gate is open."""
    return Do(lambda _: gate.wait())


async def settle(turns: int = 20) -> None:
    """Let everything happen that needs no time."""
    for _ in range(turns):
        await asyncio.sleep(0)
