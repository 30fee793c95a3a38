"""A node accepts tasks for handlers that only others have loaded, by what those published."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from actors import Context, InvalidInput, Registry, handler, task
from actors.bands import Bands
from actors.catalog import Published
from actors.intake.intake import Intake
from actors.intake.requests import TaskSpec, spec_of
from runtime.adapters.memory.store import MemoryStore
from runtime.core.task import HandlerEntry, Lane
from runtime.errors import Unavailable


@handler("here")
async def here(ctx: Context, a: int) -> int:
    return a


@handler("there", timeout_s=7, max_attempts=9, priority="high")
async def there(ctx: Context, url: str, depth: int = 0) -> None: ...


HERE, THERE = Registry(here), Registry(there)


class CountingStore(MemoryStore):
    """Counts how often the catalog is read; `away` makes it unreadable, `given` replaces what it holds."""

    def __init__(self) -> None:
        super().__init__(lambda: datetime.now(UTC))
        self.reads = 0
        self.away = False
        self.given: list[HandlerEntry] | None = None

    async def handlers(self) -> list[HandlerEntry]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("away")
        return await super().handlers() if self.given is None else self.given


class Scene:
    """A node that has `here`, and a record whose clock the test moves."""

    def __init__(self) -> None:
        self.store = CountingStore()
        self.now_s = 100.0
        self.published = Published(self.store, lambda: self.now_s)
        self.intake = Intake(HERE, Bands(self.store), lambda: 1, self.published)

    async def refused(self, *specs: TaskSpec) -> Sequence[tuple[str, str]]:
        with pytest.raises(InvalidInput) as refused:
            await self.intake.prepare(specs)
        return refused.value.errors


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.store.publish([*HERE.entries(), *THERE.entries()])
    return scene


def to_there(**payload: Any) -> TaskSpec:
    return TaskSpec(handler="there", payload=payload)


async def test_a_task_for_others_is_prepared_from_what_they_published(scene: Scene) -> None:
    births: list[int] = []
    prepared = await scene.intake.prepare(
        [to_there(url="x"), TaskSpec(handler="here", payload={"a": 1})],
        lambda band, _handler, _slot, _prefers: births.append(band) or 5,  # type: ignore[func-returns-value]  # None, then 5
    )
    foreign, own = prepared
    assert (foreign.task.payload, foreign.args, foreign.task.born_on) == (b'{"url":"x"}', {}, None)
    assert (foreign.task.timeout_s, foreign.task.max_attempts) == (7.0, 9)
    assert (own.args, own.task.born_on) == ({"a": 1}, 5)
    assert births == [own.task.band]
    bands = {band.id: band for band in await scene.store.bands()}
    assert (bands[foreign.task.band].handler, bands[foreign.task.band].lane) == ("there", Lane.HIGH)


async def test_what_the_caller_says_wins_over_what_was_published(scene: Scene) -> None:
    spec = replace(to_there(url="x"), timeout_s=1.0, max_attempts=2, priority=Lane.LOW)
    [prepared] = await scene.intake.prepare([spec])
    assert (prepared.task.timeout_s, prepared.task.max_attempts) == (1.0, 2)
    [band] = await scene.store.bands()
    assert band.lane is Lane.LOW


async def test_what_was_checked_once_is_prepared_though_nobody_takes_it_any_more(scene: Scene) -> None:
    await scene.refused(to_there(gone=1), TaskSpec(handler="ledger.add", actor_key="k"))  # reads the catalog
    theirs, nobodys = await scene.intake.prepare_unchecked(
        [to_there(gone=1), TaskSpec(handler="ledger.add", actor_key="k", payload={"n": 2})]
    )
    assert theirs.task.payload == b'{"gone":1}'
    assert (theirs.task.timeout_s, theirs.task.max_attempts) == (7.0, 9), "as whoever has the handler says"
    assert (nobodys.task.actor_type, nobodys.task.actor_key, nobodys.task.max_attempts) == ("ledger", "k", 3)
    bands = {band.id: band for band in await scene.store.bands()}
    assert bands[theirs.task.band].lane is Lane.HIGH
    assert (bands[nobodys.task.band].handler, bands[nobodys.task.band].keyed) == ("ledger.add", True)


async def test_during_a_deploy_what_the_published_version_takes_is_accepted_for_it(scene: Scene) -> None:
    @handler("here", timeout_s=7)
    async def newer(ctx: Context, a: int, b: str) -> int:
        return a

    spec = TaskSpec(handler="here", payload={"a": 1, "b": "x"})
    assert [pointer for pointer, _ in await scene.refused(spec)] == ["#/payload/b"], "one version: no deploy"
    await scene.store.publish(Registry(newer).entries())
    scene.now_s += 1
    [prepared] = await scene.intake.prepare([spec], lambda *_: 5)
    assert (prepared.task.payload, prepared.task.timeout_s) == (b'{"a":1,"b":"x"}', 7.0)
    assert prepared.task.born_on is None, "this node cannot run it"
    [own] = await scene.intake.prepare([TaskSpec(handler="here", payload={"a": 1})], lambda *_: 5)
    assert (own.args, own.task.born_on, own.task.timeout_s) == ({"a": 1}, 5, 300.0)
    wrong = TaskSpec(handler="here", payload={"a": 1, "b": 2})
    assert [pointer for pointer, _ in await scene.refused(wrong)] == ["#/payload/b"]


async def test_wrong_requests_read_the_catalog_once_a_second_at_most(scene: Scene) -> None:
    for _ in range(20):
        await scene.refused(TaskSpec(handler="here", payload={}))
    assert scene.store.reads == 1


async def test_a_child_may_be_for_others(scene: Scene) -> None:
    [prepared] = await scene.intake.prepare([spec_of(task(there, url="x", depth=2))])
    assert prepared.task.payload == b'{"url":"x","depth":2}'


async def test_wrong_payloads_are_refused_at_the_door(scene: Scene) -> None:
    assert await scene.refused(to_there(depth="2")) == (
        ("#/payload/depth", 'should be a valid integer; got "2"'),
        ("#/payload/url", "is required"),
    )
    assert [pointer for pointer, _ in await scene.refused(to_there(url="x"), to_there())] == [
        "#/1/payload/url"
    ]


async def test_a_handler_that_nobody_has_is_told_with_near_names_of_all_nodes(scene: Scene) -> None:
    errors = await scene.refused(TaskSpec(handler="their"), TaskSpec(handler="hero"), TaskSpec(handler="q"))
    assert errors == (
        ("#/0/handler", "no handler is named 'their'; did you mean there, here?"),
        ("#/1/handler", "no handler is named 'hero'; did you mean here, there?"),
        ("#/2/handler", "no handler is named 'q'; known are: here, there"),
    )


async def test_own_handlers_never_ask_the_record(scene: Scene) -> None:
    scene.store.away = True
    await scene.intake.prepare([TaskSpec(handler="here", payload={"a": 1})])
    assert scene.store.reads == 0


async def test_the_record_is_asked_once_a_second_for_unknown_names_and_seldom_for_known_ones(
    scene: Scene,
) -> None:
    await asyncio.gather(*(scene.intake.prepare([to_there(url="x")]) for _ in range(20)))
    assert scene.store.reads == 1
    for _ in range(3):
        await scene.refused(TaskSpec(handler="nobody"))
    assert scene.store.reads == 1
    scene.now_s += 1.0
    for _ in range(3):
        await scene.refused(TaskSpec(handler="nobody"))
    assert scene.store.reads == 2
    scene.now_s += 9.0
    await scene.intake.prepare([to_there(url="x")])
    assert scene.store.reads == 2
    scene.now_s += 1.0
    await scene.intake.prepare([to_there(url="x")])
    assert scene.store.reads == 3


async def test_a_new_handler_and_a_new_version_are_found(scene: Scene) -> None:
    @handler("there")
    async def newer(ctx: Context, address: str) -> None: ...

    @handler("late")
    async def late(ctx: Context) -> None: ...

    await scene.intake.prepare([to_there(url="x")])
    await scene.store.publish(Registry(newer, late).entries())
    scene.now_s += 1.0
    await scene.intake.prepare([TaskSpec(handler="late"), to_there(address="x")])
    assert [pointer for pointer, _ in await scene.refused(to_there(url="x"))] == [
        "#/payload/url",
        "#/payload/address",
    ]


async def test_a_schema_is_compiled_once_for_each_digest(scene: Scene) -> None:
    await scene.intake.prepare([to_there(url="x")])
    made = scene.published.get("there")
    scene.now_s += 60.0
    await scene.intake.prepare([to_there(url="x")])
    assert scene.published.get("there") is made


async def test_without_the_record_nobody_is_told_that_a_handler_does_not_exist(scene: Scene) -> None:
    scene.store.away = True
    with pytest.raises(Unavailable):
        await scene.intake.prepare([to_there(url="x")])
    scene.store.away = False
    await scene.intake.prepare([to_there(url="x")])


@pytest.mark.parametrize(
    "change",
    [
        {"schema": {"type": "nonsense"}},
        {"defaults": {"priority": "urgent"}},
        {"defaults": {"timeout_s": -1}},
        {"schema": {"properties": {"url": {"pattern": "("}}}},
    ],
)
async def test_what_cannot_be_read_is_refused(
    scene: Scene, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    [entry] = THERE.entries()
    scene.store.given = [replace(entry, **change)]
    [(pointer, detail)] = await scene.refused(to_there(url="x"))
    assert pointer == "#/handler"
    assert detail == "what other nodes published of there cannot be read here; send it to one of them"
    assert "cannot be read here" in caplog.text


async def test_nothing_is_fetched_from_elsewhere(scene: Scene) -> None:
    [entry] = THERE.entries()
    scene.store.given = [replace(entry, schema={"$ref": "https://127.0.0.1/elsewhere.json"})]
    [(pointer, detail)] = await scene.refused(to_there(url="x"))
    assert pointer == "#/payload"
    assert detail.startswith("cannot be checked by a node without there: Unresolvable")


async def test_only_so_many_handlers_are_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.catalog._ENTRIES_MAX", 1)
    await scene.refused(to_there(url="x"))
    assert list(scene.published.names) == ["here"]
