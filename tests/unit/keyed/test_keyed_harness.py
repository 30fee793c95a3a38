"""Keyed actors on the actors of one node, with the record in memory and time that the test moves."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Literal

import pytest

from actors import (
    Actor,
    Backoff,
    Context,
    Fail,
    Harness,
    InvalidInput,
    Retry,
    Task,
    actor,
    field,
    handler,
    task,
)
from runtime.core.task import State
from runtime.errors import WrongState


class Account(Actor, name="account"):
    balance_cents: int = 0
    history: list[int] = field(default_factory=list)

    @handler
    async def deposit(self, ctx: Context, amount_cents: int) -> int:
        await asyncio.sleep(0)
        self.balance_cents += amount_cents
        self.history.append(amount_cents)
        return self.balance_cents

    @handler(max_attempts=3, backoff=Backoff(first_s=10, factor=1.0))
    async def withdraw(self, ctx: Context, amount_cents: int) -> int:
        self.balance_cents -= amount_cents
        if self.balance_cents < 0:
            raise Retry("overdrawn")
        return self.balance_cents

    @handler
    def close(self, ctx: Context) -> list[int]:
        if self.balance_cents:
            self.history.append(-1)
            raise Fail("not empty")
        return self.history

    @handler(read_only=True)
    async def balance(self, ctx: Context) -> int:
        return self.balance_cents

    @handler(read_only=True)
    async def peek(self, ctx: Context) -> int:
        self.balance_cents += 1
        return self.balance_cents


def deposit(key: str, cents: int) -> Any:
    return actor(Account, key).task(Account.deposit, amount_cents=cents)


async def test_messages_run_in_order_on_the_state_of_their_key() -> None:
    async with Harness(Account) as harness:
        mine = [await harness.submit(deposit("42", cents)) for cents in (5, 7, 9)]
        other = await harness.submit(deposit("43", 1))
        assert [each.result for each in mine] == [5, 12, 21]
        assert other.result == 1
        ask = await harness.submit(actor(Account, "42").task(Account.balance))
        assert ask.result == 21


async def test_a_failing_head_is_tried_again_in_its_place() -> None:
    async with Harness(Account) as harness:
        await harness.submit(deposit("a", 5))
        head = await harness.submit(actor(Account, "a").task(Account.withdraw, amount_cents=8))
        behind = await harness.submit(deposit("a", 10))
        await harness.advance(5)
        assert (head.state, behind.state) == (State.SCHEDULED, State.READY)
        await harness.run_until_idle()
        assert head.state is State.FAILED
        assert head.failures == 3
        assert behind.result == 15, "what failed left nothing behind"


class Parking(Account, name="parking"):
    head_of_line: ClassVar[Literal["wait", "pass"]] = "pass"


async def test_a_parked_head_is_passed_and_comes_back() -> None:
    async with Harness(Parking) as harness:
        head = await harness.submit(actor(Parking, "a").task(Parking.withdraw, amount_cents=8))
        behind = await harness.submit(actor(Parking, "a").task(Parking.deposit, amount_cents=10))
        assert (head.state, behind.result) == (State.SCHEDULED, 10)
        await harness.run_until_idle()
        assert head.result == 2


async def test_what_fails_for_good_changes_no_state_and_lets_the_next_go() -> None:
    async with Harness(Account) as harness:
        await harness.submit(deposit("a", 5))
        closing = await harness.submit(actor(Account, "a").task(Account.close))
        assert closing.state is State.FAILED
        await harness.submit(actor(Account, "a").task(Account.withdraw, amount_cents=5))
        closed = await harness.submit(actor(Account, "a").task(Account.close))
        assert closed.result == [5]


async def test_read_only_messages_change_nothing() -> None:
    async with Harness(Account) as harness:
        await harness.submit(deposit("a", 5))
        wrong = await harness.submit(actor(Account, "a").task(Account.peek))
        with pytest.raises(WrongState, match="read_only=True and changed the state"):
            _ = wrong.result
        assert (await harness.submit(actor(Account, "a").task(Account.balance))).result == 5


async def test_a_message_needs_a_key() -> None:
    async with Harness(Account) as harness:
        with pytest.raises(InvalidInput, match="is a message to a keyed actor"):
            await harness.submit(Task(handler="account.deposit", payload={"amount_cents": 1}))


ORDER: list[int] = []


@handler
async def note(ctx: Context, n: int) -> None:
    await asyncio.sleep(0.001 if n % 2 else 0)
    ORDER.append(n)


async def test_functions_with_an_actor_key_run_in_order_too() -> None:
    ORDER.clear()
    async with Harness(note) as harness:
        async with asyncio.TaskGroup() as group:
            for n in range(10):
                group.create_task(harness.submit(task(note, n=n).options(actor_key="k")))
        await harness.run_until_idle()
        seqs = [each.id for each in await harness.tasks("note")]
    assert len(seqs) == 10
    assert list(range(10)) == ORDER


async def test_hot_keys_are_told_and_idle_instances_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[tuple[str, ...], float] = {}
    async with Harness(Account) as harness:

        def gauge(name: str, value: float, **labels: str) -> None:
            told[name, *labels.values()] = value

        monkeypatch.setattr(harness._tally, "gauge", gauge)
        for _ in range(3):
            await harness.submit(deposit("hot", 1))
        await harness.submit(deposit("cold", 1))
        await harness.advance(15)
        assert told["actor_activations",] == 2
        hot, cold = (told["actor_key_messages_per_second", "account", key] for key in ("hot", "cold"))
        assert hot == pytest.approx(3 * cold)
        await harness.advance(Account.idle_s + 30)
        assert told["actor_activations",] == 0
        assert (await harness.submit(deposit("hot", 1))).result == 4, "the state is on record"


class Talker(Actor, name="talker"):
    said: int = 0

    @handler
    async def talk(self, ctx: Context, size: int) -> str:
        self.said += 1
        return "x" * size


async def test_results_stay_with_the_state() -> None:
    """Functions may return more than fits in the record, where it is stored apart; messages are committed whole."""
    async with Harness(Talker) as harness:
        talker = actor(Talker, "a")
        large = await harness.submit(talker.task(Talker.talk, size=300_000))
        assert large.error is not None
        assert (large.state, large.error.type) == (State.FAILED, "ResultTooLarge")
        assert (await harness.submit(talker.task(Talker.talk, size=1))).result == "x"
        row = harness.store._tables.actors.popitem()[1]  # type: ignore[attr-defined]
        assert row.state == b'{"said":1}'
