"""State of actors: written exactly, read whole or not at all, turned from older versions by the author."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from actors import Actor, Context, RegistrationError, Registry, field, handler
from actors.authoring.state import STATE_BYTES_MAX, ActorDef, StateNotLoadable, StateNotStorable
from actors.keyed.placing import about_actors, placed, placed_as


class Cart(Actor, name="cart"):
    state_version: ClassVar[int] = 3
    items: dict[str, int] = field(default_factory=dict)
    total: Decimal = Decimal(0)
    opened_at: datetime | None = None
    _cache: int = 0

    @classmethod
    def migrate(cls, state: dict[str, Any], from_version: int) -> dict[str, Any]:
        if from_version == 1:
            state = {"items": dict.fromkeys(state["names"], 1)}
        return state | {"opened_at": datetime(2030, 1, 1, tzinfo=UTC)}

    @handler
    async def add(self, ctx: Context, name: str) -> None: ...

    @handler(read_only=True)
    def show(self, ctx: Context) -> None: ...


CART = ActorDef.of(Cart)


def test_a_state_comes_back_as_it_went() -> None:
    cart = Cart(items={"x": 2}, total=Decimal("1.10"), opened_at=datetime(2030, 5, 6, tzinfo=UTC))
    again = CART.load(CART.dump(cart), 3)
    assert (again.items, again.total, again.opened_at) == (cart.items, cart.total, cart.opened_at)
    assert CART.dump(again) == CART.dump(cart)
    assert CART.first().items is not CART.first().items


def test_older_states_are_turned() -> None:
    assert CART.load(b'{"names": ["x"]}', 1).items == {"x": 1}
    turned = CART.load(b'{"items": {}, "total": "3"}', 2)
    assert (turned.total, turned.opened_at) == (Decimal(3), datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("state", "version", "why"),
    [
        (b'{"items": {}, "stranger": 1}', 3, "stranger: Extra inputs"),
        (b'{"items": 5}', 3, "items: Input should be"),
        (b"no json", 3, "Invalid JSON"),
        (b'{"items": {}}', 1, "migrate from state version 1 to 3 failed: KeyError: 'names'"),
    ],
)
def test_what_is_not_its_state_is_not_loaded(state: bytes, version: int, why: str) -> None:
    with pytest.raises(StateNotLoadable, match=why):
        CART.load(state, version)


def test_what_json_cannot_say_is_not_stored() -> None:
    with pytest.raises(StateNotStorable, match="cannot be kept as JSON"):
        CART.dump(Cart(items={"x": object()}))
    with pytest.raises(StateNotStorable, match="at most"):
        CART.dump(Cart(items={"x" * STATE_BYTES_MAX: 1}))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"__annotations__": {"n": int}}, "state field n has no first value"),
        ({"__annotations__": {"n": "object"}, "n": object()}, "its state cannot be kept as JSON"),
        ({"state_version": 0}, "state_version=0 is not an int from 1"),
        ({"head_of_line": "skip"}, "head_of_line='skip' is neither"),
        ({"idle_s": "soon"}, "idle_s='soon' is not a number"),
    ],
)
def test_classes_that_cannot_be_run(fields: dict[str, Any], why: str) -> None:
    kind = type("Wrong", (Cart,), {"__module__": __name__, **fields}, name="wrong")
    with pytest.raises(RegistrationError, match=why):
        Registry(kind)


def test_a_method_in_a_process_of_its_own_is_refused() -> None:
    class Heavy(Actor):
        @handler(cpu=True)
        def work(self, ctx: Context) -> None: ...

    with pytest.raises(RegistrationError, match="state of an actor is in the node's own process"):
        Registry(Heavy)


def test_nodes_are_placed_by_what_they_can_read() -> None:
    registry = Registry(Cart)
    about = {"handlers": list(registry.names), "actors": about_actors(registry)}
    assert about["actors"] == {"cart.add": 3, "cart.show": 3}
    assert placed(about) == {
        "cart.add", "cart.add@2", "cart.add@3", "cart.show", "cart.show@2", "cart.show@3",
    }  # fmt: skip
    assert [placed_as("cart.add", version) for version in (0, 1, 2)] == ["cart.add", "cart.add", "cart.add@2"]
    assert placed({"handlers": ["scrape"]}) == {"scrape"}
