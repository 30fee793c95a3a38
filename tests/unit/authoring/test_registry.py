"""Registry: what a node can run, checked whole, with every fault at once and its file and line."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from actors import (
    Actor,
    Backoff,
    Context,
    RegistrationError,
    Registry,
    ResultNotSerializable,
    handler,
    lifespan,
)
from actors.authoring.registry import Kind
from runtime.core.task import Codec
from runtime.errors import InvalidInput


@handler("scrape", timeout_s=30, give_up_on=(UnicodeError,), backoff=Backoff(first_s=2))
async def scrape(ctx: Context, url: str, depth: int = 0) -> list[str]:
    """Fetch a page.

    And more about it.
    """
    return [url] * depth


@handler
def resize(ctx: Context, width: int) -> None: ...


@handler("hash.file", cpu=True, rate_limit="5/min")
def fingerprint(ctx: Context, path: str) -> bytes:
    return path.encode()


@lifespan
async def pool() -> AsyncIterator[int]:
    yield 1


@lifespan
async def session() -> AsyncIterator[str]:
    yield ""


def line_of(fn: object) -> str:
    return f"{__file__}:{fn.__code__.co_firstlineno}"  # type: ignore[attr-defined]  # a function


async def test_handlers_by_name() -> None:
    registry = Registry(scrape, session, resize, fingerprint, pool)
    assert registry.names == ("hash.file", "resize", "scrape")
    assert [each.name for each in registry] == list(registry.names)
    assert len(registry) == 3
    assert "scrape" in registry
    assert registry.get("nothing") is None
    assert [each.name for each in registry.lifespans] == ["session", "pool"]

    found = registry.get("scrape")
    assert found is not None
    assert found.fn is scrape
    assert (found.kind, found.options.timeout_s, found.module) == (Kind.ASYNC, 30, __name__)
    assert found.source == line_of(scrape)
    assert found.doc == "Fetch a page.\n\nAnd more about it."
    assert [each.kind for each in registry] == [Kind.PROCESS, Kind.THREAD, Kind.ASYNC]


async def test_a_handler_runs_by_its_definition() -> None:
    found = Registry(scrape).get("scrape")
    assert found is not None
    raw, values = found.accept({"url": "x", "depth": 2})
    assert values == found.validate({"url": "x", "depth": 2}) == found.bind(raw)
    assert found.encode_result(await found.fn(Context.for_test(), **values)) == (b'["x","x"]', Codec.JSON)
    with pytest.raises(InvalidInput):
        found.validate({"url": 1})
    with pytest.raises(InvalidInput):
        found.bind(b'{"url":1}')
    with pytest.raises(ResultNotSerializable):
        found.encode_result({float("nan")})
    assert found.schema["properties"]["depth"]["default"] == 0


def test_catalog_entries_change_their_digest_with_schema_and_defaults_only() -> None:
    def entry_of(timeout_s: float, kind: str) -> tuple[str, str]:
        if kind == "int":

            @handler("f", timeout_s=timeout_s)
            async def f(ctx: Context, x: int) -> None:
                """One."""
        else:

            @handler("f", timeout_s=timeout_s)
            async def f(ctx: Context, x: str) -> None:  # type: ignore[misc]  # the other of the two
                """Another."""

        (entry,) = Registry(f).entries()
        return entry.digest, entry.source

    assert len(entry_of(1, "int")[0]) == 64
    assert entry_of(1, "int")[0] == entry_of(1.0, "int")[0]
    assert entry_of(1, "int")[0] != entry_of(2, "int")[0]
    assert entry_of(1, "int")[0] != entry_of(1, "str")[0]

    entry = Registry(scrape).entries()[0]
    assert (entry.name, entry.source, entry.doc) == (
        "scrape",
        line_of(scrape),
        scrape.__doc__ and "Fetch a page.\n\nAnd more about it.",
    )
    assert entry.defaults == {
        "kind": "async",
        "timeout_s": 30.0,
        "max_attempts": 3,
        "priority": "medium",
        "backoff": {"first_s": 2.0, "factor": 2.0, "max_s": 300.0},
        "give_up_on": ["UnicodeError"],
        "retry_on": [],
        "rate_limit": None,
        "unique": None,
        "read_only": False,
    }


def test_a_burst_that_is_too_small_for_its_rate_is_noted() -> None:
    @handler(rate_limit="1000/s", burst=5)
    def hasty(ctx: Context) -> None: ...

    assert Registry(scrape, fingerprint).notes == ()
    (note,) = Registry(hasty).notes
    assert line_of(hasty) in note
    assert "bursts of 100 or more" in note


def test_a_limit_is_published() -> None:
    defaults = Registry(fingerprint).entries()[0].defaults
    limit = {name: defaults[name] for name in ("rate_limit", "burst", "max_running", "limit_per")}
    assert limit == {"rate_limit": "5/min", "burst": 1, "max_running": None, "limit_per": "handler"}


def test_methods_of_actors_have_no_limits() -> None:
    class Account(Actor, name="account"):
        @handler(max_running=1)
        async def deposit(self, ctx: Context) -> None: ...

    with pytest.raises(RegistrationError, match="rate_limit and max_running are for functions"):
        Registry(Account)


def test_the_same_name_twice_names_both_places() -> None:
    @handler("scrape")
    def other(ctx: Context) -> None: ...

    with pytest.raises(RegistrationError) as refused:
        Registry(scrape, other)
    assert str(refused.value) == f"{line_of(other)}: handler 'scrape' is already defined at {line_of(scrape)}"
    assert Registry(scrape, scrape, pool, pool).names == ("scrape",)
    assert len(Registry(scrape, pool, pool).lifespans) == 1


@pytest.mark.parametrize("name", ["Scrape", "1st", "a-b", "a b", "", "é", "_x", ".x", "a" * 256])
def test_names_are_checked(name: str) -> None:
    @handler(name)
    def fn(ctx: Context) -> None: ...

    with pytest.raises(RegistrationError, match="cannot be used"):
        Registry(fn)


def test_a_function_whose_own_name_does_not_do_is_told_how_to_name_it() -> None:
    @handler
    def Resize(ctx: Context) -> None: ...  # noqa: N802 - the point

    with pytest.raises(RegistrationError, match=r"lower-case letters.*; name it: @handler\(\"…\"\)"):
        Registry(Resize)


def test_everything_wrong_is_told_at_once() -> None:
    @handler  # type: ignore[type-var]  # the point
    def no_context(x: int) -> None: ...

    @handler("BAD")
    def bad_name(ctx: Context) -> None: ...

    @handler(read_only=True)
    def reads(ctx: Context) -> None: ...

    class Group:
        @handler
        def method(self, ctx: Context) -> None: ...

    def plain(ctx: Context) -> None: ...

    class Account(Actor):
        balance_cents: int

        @handler
        async def deposit(self, ctx: Context) -> None: ...

    with pytest.raises(RegistrationError) as refused:
        Registry(no_context, scrape, bad_name, reads, Group.method, plain, Account)
    lines = str(refused.value).splitlines()
    said = [
        "must be the context",
        "cannot be used",
        "read_only=True",
        "extends Actor",
        "neither",
        "state field balance_cents has no first value",
    ]
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert line.startswith(f"{__file__}:")
        assert words in line


def test_a_base_class_without_handlers_is_no_actor_yet() -> None:
    class Base(Actor):
        shared: int = 0

    with pytest.raises(RegistrationError, match="neither"):
        Registry(Base)
