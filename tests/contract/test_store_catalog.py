"""Names that all nodes share: bands are interned once, handlers are published and paused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runtime.core.task import BandKey, Lane, Paused
from runtime.errors import InvalidInput
from tests.support.factories import band_key, handler_entry

if TYPE_CHECKING:
    from runtime.core.task import HandlerEntry
    from runtime.ports import Store
    from tests.contract.world import World


# -- bands -------------------------------------------------------------------------------------------

DIFFERENT = [
    BandKey("echo", Lane.MEDIUM),
    BandKey("echo", Lane.HIGH),
    BandKey("Echo", Lane.MEDIUM),
    BandKey("echo", Lane.MEDIUM, tenant="other"),
    BandKey("echo", Lane.MEDIUM, requires=("gpu",)),
    BandKey("echo", Lane.MEDIUM, requires=("eu", "gpu")),
    BandKey("echo", Lane.MEDIUM, keyed=True),
]


async def test_bands_are_interned_in_the_order_of_their_keys(store: Store) -> None:
    bands = await store.intern(DIFFERENT)
    assert [band.key for band in bands] == DIFFERENT
    assert len({band.id for band in bands}) == len(DIFFERENT)
    assert min(band.id for band in bands) > 0
    again = await store.intern([*reversed(DIFFERENT), DIFFERENT[0], BandKey("new", Lane.LOW)])
    assert again[: len(bands)] == bands[::-1]
    assert again[-2] == bands[0]
    assert again[-1].key == BandKey("new", Lane.LOW)
    assert await store.intern([]) == []


async def test_bands_are_interned_once_by_many_at_the_same_time(store: Store) -> None:
    keys = [band_key(f"h{n}") for n in range(20)]
    answers = await asyncio.gather(*(store.intern(keys[:: 1 - 2 * (n % 2)]) for n in range(10)))
    known = {band.key: band for band in await store.bands()}
    assert len(known) == 20
    for bands in answers:
        assert all(known[band.key] == band for band in bands)
        assert len(bands) == 20


async def test_bands_are_listed_ascending_after_an_id(store: Store) -> None:
    assert await store.bands() == []
    made = sorted(await store.intern(DIFFERENT), key=lambda band: band.id)
    assert await store.bands() == made
    assert await store.bands(after=made[2].id) == made[3:]
    assert await store.bands(after=made[-1].id) == []


# -- handlers ----------------------------------------------------------------------------------------


async def handlers(store: Store) -> dict[str, HandlerEntry]:
    entries = await store.handlers()
    assert len({entry.name for entry in entries}) == len(entries)
    return {entry.name: entry for entry in entries}


async def test_handlers_are_published_as_they_are(store: Store) -> None:
    entries = [
        handler_entry(
            "resize",
            schema={"type": "object", "properties": {"width": {"type": "integer", "minimum": 1}}},
            defaults={"timeout_s": 1.5, "max_attempts": 3, "retry_on": ["OSError"], "priority": None},
            source="app/images.py:12",
            doc="Make it smaller.\n\nÜ",
        ),
        handler_entry("echo"),
    ]
    await store.publish(entries)
    await store.publish([])
    assert await handlers(store) == {entry.name: entry for entry in entries}


async def test_the_newest_publication_wins(store: Store) -> None:
    await store.publish([handler_entry("echo", "d1"), handler_entry("other", "o1")])
    newer = handler_entry("echo", "d2", schema={"type": "object", "x": 1}, doc="new")
    await store.publish([newer])
    assert await handlers(store) == {"echo": newer, "other": handler_entry("other", "o1")}
    await store.publish([handler_entry("echo", "d1")])
    assert (await handlers(store))["echo"] == handler_entry("echo", "d1")


async def test_a_handler_is_paused_and_resumed(store: Store) -> None:
    await store.publish([handler_entry("b"), handler_entry("a"), handler_entry("c")])
    assert (await store.paused()).handlers == frozenset()
    for name in ("b", "a", "b"):
        assert await store.set_paused(name, paused=True)
    assert (await store.paused()).handlers == {"a", "b"}
    assert {name for name, entry in (await handlers(store)).items() if entry.paused} == {"a", "b"}
    assert await store.set_paused("b", paused=False)
    assert await store.set_paused("b", paused=False)
    assert (await store.paused()).handlers == {"a"}


async def test_tenants_have_a_weight_where_they_were_given_one(store: Store) -> None:
    assert await store.tenant_weights() == {}
    for tenant, weight in (("b", 2), ("ä", 100), ("a", 5), ("b", 3), ("nobody", 1)):
        await store.set_tenant_weight(tenant, weight)
    assert await store.tenant_weights() == {"a": 5, "b": 3, "ä": 100}
    await store.set_tenant_weight("b", 1)
    assert await store.tenant_weights() == {"a": 5, "ä": 100}
    for weight in (0, 101):
        with pytest.raises(InvalidInput, match="1 to 100"):
            await store.set_tenant_weight("a", weight)
    assert (await store.tenant_weights())["a"] == 5


async def test_an_unknown_handler_is_not_paused(store: Store) -> None:
    assert not await store.set_paused("nobody", paused=True)
    assert not await store.set_paused("nobody", paused=False)
    assert (await store.paused()).handlers == frozenset()


async def test_publishing_neither_pauses_nor_resumes(store: Store) -> None:
    entry = handler_entry("echo")
    await store.publish([replace(entry, paused=True)])
    assert (await store.paused()).handlers == frozenset()
    await store.set_paused("echo", paused=True)
    await store.publish([replace(entry, digest="d2")])
    assert (await store.paused()).handlers == {"echo"}


async def test_many_publish_the_same_handlers_at_the_same_time(store: Store) -> None:
    entries = [handler_entry(f"h{n}") for n in range(10)]
    await asyncio.gather(*(store.publish(entries[:: 1 - 2 * (n % 2)]) for n in range(8)))
    assert sorted(await handlers(store)) == sorted(entry.name for entry in entries)


async def test_a_tenant_is_paused_and_resumed(store: Store, world: World) -> None:
    await store.publish([handler_entry("a")])
    for _ in range(2):
        await store.set_tenant_paused("acme", paused=True)
        assert await store.paused() == Paused(tenants=frozenset({"acme"}))
    await store.set_paused("a", paused=True)
    paused = await store.paused()
    assert paused == Paused(frozenset({"a"}), frozenset({"acme"}))
    assert paused.holds(await world.band("b", tenant="acme"))
    assert paused.holds(await world.band("a"))
    assert not paused.holds(await world.band("b"))
    for _ in range(2):
        await store.set_tenant_paused("acme", paused=False)
        assert (await store.paused()).tenants == frozenset()
