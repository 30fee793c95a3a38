"""A virtual loop on which whole processes live, each of which may be stopped for a while, or killed.

Law: everything that a process does has its name in the context variable NODE, tasks and plain callbacks alike. While
it is stopped nothing of it runs: what came due meanwhile (timers, answers, messages) runs in its order once it goes
on, later than it should, as after SIGSTOP and SIGCONT.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

from runtime.kernel.virtual import SimLoop

NODE: ContextVar[str] = ContextVar("node", default="world")
_LIMIT_S: Final = 1000.0


class ProcessLoop(SimLoop):
    def __init__(self) -> None:
        super().__init__(limit_s=_LIMIT_S)
        self._held: dict[str, list[_Call]] = {}
        self._tasks: dict[str, dict[asyncio.Task[Any], None]] = {}
        self.set_task_factory(self._make_task)  # type: ignore[arg-type] # typeshed's factory knows no context

    def stop_process(self, name: str) -> None:
        self._held.setdefault(name, [])

    def continue_process(self, name: str) -> None:
        """What is held runs in the next turn, before everything that came later."""
        super().call_soon(self._release, name)

    def _release(self, name: str) -> None:
        for call in self._held.pop(name, ()):
            asyncio.Handle(call, (), self, call.context)._run()

    async def kill_process(self, name: str) -> None:
        """None of its tasks goes on. (Their `finally` blocks run: whatever they reach has to know that it is dead.)"""
        while mine := list(self._tasks.get(name, ())):
            for task in mine:
                task.cancel()
            self.continue_process(name)
            await asyncio.wait(mine, timeout=0.01)

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        call = _Call(self._held, callback, args, copy_context() if context is None else context)
        call.handle = super().call_soon(call, context=call.context)
        return call.handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        call = _Call(self._held, callback, args, copy_context() if context is None else context)
        call.handle = handle = super().call_at(when, call, context=call.context)
        return handle

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, context=context)
        mine = self._tasks.setdefault(NODE.get() if context is None else context.get(NODE, "world"), {})
        mine[task] = None
        task.add_done_callback(lambda done: mine.pop(done, None))
        return task


class _Call:
    """A callback that looks at its time whether its process runs. Cancelled while it is held, it is forgotten."""

    __slots__ = ("_args", "_callback", "_held", "context", "handle")

    def __init__(
        self, held: dict[str, list[_Call]], callback: Callable[..., object], args: Any, context: Context
    ) -> None:
        self._held = held
        self._callback = callback
        self._args = args
        self.context = context
        self.handle: asyncio.Handle

    def __call__(self) -> None:
        if self._held and (held := self._held.get(NODE.get())) is not None:
            held.append(self)
        elif not self.handle.cancelled():
            self._callback(*self._args)


def process(name: str) -> Context:
    """A context for what that process does."""
    context = copy_context()
    context.run(NODE.set, name)
    return context
