"""Who waits at one node for the end of a task at another: told over the broker, before and after the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import Context, handler
from actors.authoring.registry import Registry
from actors.router import router, watching
from actors.router.watching import Watching
from runtime import codec
from runtime.adapters.memory.broker import MemoryExchange
from runtime.core.messages import Watch
from tests.support.factories import new_id
from tests.support.memory_node import MemoryNode, memory_node, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.usefixtures("no_look")


class Post:
    """Carries messages, and holds `Watch` back (or loses it) where it is told to."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.hold = False
        self.held: list[Callable[[], None]] = []

    def __call__(self, sender: int | None, to: int, body: bytes, deliver: Callable[[], None]) -> None:
        message = codec.decode(body)
        self.seen[type(message).__name__] += 1
        if isinstance(message, Watch) and self.hold:
            self.held.append(deliver)
        else:
            asyncio.get_running_loop().call_soon(deliver)


@pytest.fixture
def no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look into the record once a second, only what is told can answer."""
    monkeypatch.setattr(router, "_LOOK_S", 3600.0)


class Pair:
    def __init__(self, a: MemoryNode, b: MemoryNode, post: Post, gate: asyncio.Event) -> None:
        self.a, self.b, self.post, self.gate = a, b, post, gate

    async def task_on_b(self) -> str:
        """Runs on b, accepted there."""
        async with self.b.client() as http, http.post("/v1/tasks", json={"handler": "gated"}) as answer:
            assert answer.status == 202, await answer.text()
            found: str = (await answer.json())["id"]
        async with self.b.client() as http, http.get(f"/v1/tasks/{found}") as answer:
            assert (await answer.json())["node"] == "n2"
        return found

    def waiting(self, task_id: str) -> asyncio.Task[dict[str, Any]]:
        async def ask() -> dict[str, Any]:
            async with self.a.client() as http, http.get(f"/v1/tasks/{task_id}?wait=10") as answer:
                found: dict[str, Any] = await answer.json()
                return found

        return asyncio.create_task(ask())

    def ended_at_b(self) -> bool:
        return self.b.world.capacity.taken == 0


@asynccontextmanager
async def _pair() -> AsyncIterator[Pair]:
    gate, post = asyncio.Event(), Post()

    @handler("gated")
    async def gated(ctx: Context) -> str:
        await gate.wait()
        return "done"

    @handler("other")
    async def other(ctx: Context) -> None: ...

    exchange = MemoryExchange(post)
    async with (
        memory_node(Registry(other), exchange=exchange) as a,
        memory_node(Registry(gated), exchange=exchange, beside=a, name="n2") as b,
    ):
        await until(lambda: len(a.service.cluster.view.active) == 2 and bool(a.service.cluster.peers))
        yield Pair(a, b, post, gate)


async def test_who_watched_before_the_end_is_told_it() -> None:
    async with _pair() as pair:
        answer = pair.waiting(await pair.task_on_b())
        await until(lambda: pair.post.seen["Watch"] == 1)
        assert not answer.done()
        pair.gate.set()
        assert ((await answer)["state"], (await answer)["result"]) == ("succeeded", "done")
        assert pair.post.seen["Finished"] == 1


async def test_a_watch_that_comes_after_the_end_is_answered_at_once() -> None:
    async with _pair() as pair:
        pair.post.hold = True
        answer = pair.waiting(await pair.task_on_b())
        await until(lambda: len(pair.post.held) == 1)
        pair.gate.set()
        await until(pair.ended_at_b)
        assert pair.post.seen["Finished"] == 0
        assert not answer.done()
        [deliver] = pair.post.held
        deliver()
        assert (await answer)["state"] == "succeeded"


async def test_a_watch_that_is_lost_costs_the_time_until_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(router, "_LOOK_S", 0.1)
    async with _pair() as pair:
        pair.post.hold = True
        answer = pair.waiting(await pair.task_on_b())
        await until(lambda: len(pair.post.held) == 1)
        pair.gate.set()
        assert (await answer)["state"] == "succeeded"
        assert pair.post.seen["Finished"] == 0


async def test_who_does_not_wait_any_more_costs_nothing_at_the_end() -> None:
    async with _pair() as pair:
        answer = pair.waiting(await pair.task_on_b())
        await until(lambda: pair.post.seen["Watch"] == 1)
        answer.cancel()
        pair.gate.set()
        await until(lambda: pair.post.seen["Finished"] == 1)
        again = pair.waiting(await pair.task_on_b())  # the node still answers
        assert (await again)["state"] == "succeeded"


def test_watches_and_ends_are_kept_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_WATCHED_MAX", 2)
    monkeypatch.setattr(watching, "_RECENT_MAX", 2)
    seen = Watching()
    first, second, third = (new_id() for _ in range(3))
    seen.watch(2, [first, second, third])
    assert seen.ended([first]) == {}, "the oldest wish is forgotten"
    assert seen.ended([second, third]) == {2: [second, third]}
    assert seen.watch(2, [first]) == [], "and so is the oldest end"
    assert seen.watch(2, [second, third]) == [second, third]
