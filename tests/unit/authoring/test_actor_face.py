"""Keyed actors as authors write them: plain classes, typed messages, state that no two keys share."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from actors import Actor, Context, InvalidInput, RegistrationError, actor, field, handler
from actors.authoring.actor import actor_methods, state_fields


class Account(Actor, name="account"):
    state_version: ClassVar[int] = 2
    balance_cents: int = 0
    history: list[int] = field(default_factory=list)
    owner: str | None = field(default=None)
    _cache: int = 0

    @handler
    async def deposit(self, ctx: Context, amount_cents: int) -> int:
        self.balance_cents += amount_cents
        self.history.append(amount_cents)
        return self.balance_cents

    @handler("show", read_only=True)
    def balance(self, ctx: Context) -> int:
        return self.balance_cents

    def helper(self) -> None: ...


class Savings(Account, name="savings"):
    rate: float = 0.01

    @handler
    async def deposit(self, ctx: Context, amount_cents: int) -> int:
        return await super().deposit(ctx, amount_cents) * 2


class Unnamed(Actor):
    total: int

    @handler
    async def add(self, ctx: Context, n: int) -> None: ...


@handler
async def not_a_method(ctx: Context) -> None: ...


async def test_an_instance_is_plain() -> None:
    account = Account(balance_cents=3)
    assert await account.deposit(Context.for_test(), 5) == 8
    assert account.balance(Context.for_test()) == 8
    assert repr(account) == "Account(balance_cents=8, history=[5], owner=None)"
    assert Account().history is not Account().history
    assert await Savings().deposit(Context.for_test(), 5) == 10


def test_messages_are_named_after_class_and_method() -> None:
    assert list(actor_methods(Account)) == ["account.show", "account.deposit"]
    assert list(actor_methods(Savings)) == ["savings.show", "savings.deposit"]
    assert list(actor_methods(Unnamed)) == ["unnamed.add"]


def test_messages_are_tasks() -> None:
    made = actor(Account, "42").task(Account.deposit, amount_cents=5)
    assert (made.handler, made.actor_key, made.payload) == ("account.deposit", "42", {"amount_cents": 5})
    assert made.decode_result(b"8") == 8
    assert actor(Account, "42").task(Account.deposit, 5) == made
    assert actor(Account, "42").task(Account.balance).handler == "account.show"
    assert actor(Savings, "1").task(Savings.deposit, 5).handler == "savings.deposit"
    assert actor(Savings, "1").task(Savings.balance).handler == "savings.show"


def test_wrong_messages() -> None:
    account = actor(Account, "42")
    with pytest.raises(InvalidInput, match="amount is not an argument of deposit, which takes amount_cents"):
        account.task(Account.deposit, amount=5)  # type: ignore[call-overload]  # the point
    with pytest.raises(InvalidInput, match="amount_cents should be a valid integer"):
        account.task(Account.deposit, amount_cents="5")  # type: ignore[call-overload]  # the point
    for method in (Savings.deposit, Account.helper, not_a_method, Unnamed.add):
        with pytest.raises(RegistrationError, match="is not a handler of Account"):
            account.task(method)  # type: ignore[call-overload]  # the point


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0", 42, None])
def test_keys_are_checked(key: Any) -> None:
    with pytest.raises(InvalidInput, match="actor key"):
        actor(Account, key)


def test_state_is_what_is_annotated_and_public() -> None:
    fields = {each.name: each.annotation for each in state_fields(Savings)}
    assert fields == {"balance_cents": int, "history": list[int], "owner": str | None, "rate": float}
    assert [each.factory and each.factory() for each in state_fields(Account)] == [0, [], None]


def test_wrong_state() -> None:
    with pytest.raises(TypeError, match="Account has no state field balance"):
        Account(balance=1)  # type: ignore[call-arg]  # the point
    with pytest.raises(TypeError, match="Unnamed needs a value for its state field total"):
        Unnamed()  # type: ignore[call-arg]  # the point

    class Shared(Actor):
        items: list[int] = []  # noqa: RUF012 - the point

    with pytest.raises(
        RegistrationError,
        match=r"state field items: a list would be shared; write field\(default_factory=list\)",
    ):
        Shared()


def test_migration_keeps_the_state_unless_told() -> None:
    assert Account.state_version == 2
    assert Unnamed.state_version == 1
    assert Account.migrate({"x": 1}, from_version=1) == {"x": 1}
