"""Whatever messages do, a state is the fold of those that succeeded, in the order in which they were accepted."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Actor, Backoff, Context, Fail, Harness, Retry, actor, field, handler
from runtime.core.task import State

Deed = Literal["add", "fail", "retry", "snooze", "thread", "read", "child"]
SOON = Backoff(first_s=1.0, factor=1.0)


class Log(Actor, name="log"):
    """Writes down before it does what it is told, so that what is undone would show."""

    entries: list[int] = field(default_factory=list)

    @handler(max_attempts=3, backoff=SOON)
    async def do(self, ctx: Context, deed: str, n: int) -> list[int]:
        self.entries.append(n)
        if deed == "fail":
            raise Fail("told to")
        if deed == "retry" and ctx.attempt < 3:
            raise Retry("told to")
        if deed == "snooze" and ctx.attempt < 2:
            ctx.snooze(2.0)
        if deed == "child":
            ctx.submit(actor(type(self), "child").task(Log.thread, n=n))
        await asyncio.sleep(0)
        return self.entries

    @handler
    def thread(self, ctx: Context, n: int) -> list[int]:
        self.entries.append(n)
        return self.entries

    @handler(read_only=True)
    async def read(self, ctx: Context) -> list[int]:
        await asyncio.sleep(0)
        return self.entries


class Passing(Log, name="passing"):
    head_of_line: ClassVar[Literal["wait", "pass"]] = "pass"


MESSAGES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(Deed.__args__)), min_size=1, max_size=12)


async def run(kind: type[Log], messages: list[tuple[str, Deed]]) -> None:
    async with Harness(kind) as harness:
        sent = []
        for n, (key, deed) in enumerate(messages):
            ref = actor(kind, key)
            if deed == "read":
                work = ref.task(kind.read)
            elif deed == "thread":
                work = ref.task(kind.thread, n=n)
            else:
                work = ref.task(kind.do, deed=deed, n=n)
            sent.append((n, key, deed, await harness.submit(work)))
        await harness.run_until_idle()
        for key in "ab":
            state: list[int] = []
            for n, to, deed, task in sent:
                if to != key:
                    continue
                assert task.state is (State.FAILED if deed == "fail" else State.SUCCEEDED)
                if (
                    kind is Log and deed != "fail"
                ):  # kept in order, each result shows the state as it was then
                    state += [] if deed == "read" else [n]
                    assert task.result == state
            left = (await harness.submit(actor(kind, key).task(kind.read))).result
            wanted = [n for n, to, deed, _ in sent if to == key and deed not in {"fail", "read"}]
            assert left == wanted if kind is Log else sorted(left) == wanted
        children = (await harness.submit(actor(kind, "child").task(kind.read))).result
        assert sorted(children) == [n for n, _, deed, _ in sent if deed == "child"]


@pytest.mark.parametrize("kind", [Log, Passing])
@settings(max_examples=15, deadline=None)
@given(messages=MESSAGES)
def test_a_state_is_the_fold_of_its_messages(kind: type[Log], messages: list[tuple[str, Deed]]) -> None:
    asyncio.run(run(kind, messages))
