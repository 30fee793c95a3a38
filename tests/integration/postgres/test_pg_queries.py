"""Every statement as it stands in the files: prepared against the migrated schema, types compared."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from runtime.adapters.postgres.queries import SQL, Queries, Query, parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EVERY = [getattr(SQL, field.name) for field in fields(Queries)]
PLAIN = {"begin", "commit", "rollback", "lock_bands", "migration_table"}  # without parameters, not prepared
NAMES = {
    "int8": "bigint",
    "int4": "integer",
    "int2": "smallint",
    "float8": "double precision",
    "bool": "boolean",
}


@pytest.fixture
async def connection(pg_each_dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(pg_each_dsn)
    yield connection
    await connection.close()


def spelled(kind: asyncpg.Type) -> str:
    base = kind.name.removesuffix("[]")
    return NAMES.get(base, base) + ("[]" if kind.kind == "array" else "")


async def test_every_statement_is_valid_and_its_comment_tells_the_types(
    connection: asyncpg.Connection[Any],
) -> None:
    wrong = {}
    for query in EVERY:
        if query.name in PLAIN:
            await connection.execute(f"BEGIN; {query.sql}" if query.name == "lock_bands" else query.sql)
            if query.name == "lock_bands":
                await connection.execute("ROLLBACK")
            continue
        try:
            statement = await connection.prepare(query.sql)
        except asyncpg.PostgresError as error:
            wrong[query.name] = str(error)
            continue
        expected = [kind for _, kind in query.parameters]
        if expected != [spelled(parameter) for parameter in statement.get_parameters()]:
            wrong[query.name] = str([spelled(parameter) for parameter in statement.get_parameters()])
    assert wrong == {}


def test_many_rows_are_changed_by_statements_that_name_the_order_of_their_locks() -> None:
    """FOR UPDATE of many rows has an ORDER BY; DELETE and UPDATE take rows in the order of sorted arrays."""
    for query in EVERY:
        for cte in re.split(r"\bAS (?:MATERIALIZED )?\(", query.sql):
            if "FOR UPDATE" in cte:
                assert "ORDER BY" in cte, query.name


@pytest.mark.parametrize("query", EVERY, ids=lambda query: query.name)
def test_time_is_that_of_the_statement_but_for_leases(query: Query) -> None:
    """now() is the transaction's start; clock_timestamp() is volatile, and never an index condition."""
    assert not re.search(r"\bnow\(\)|current_timestamp|transaction_timestamp", query.sql)
    if (
        "noria.lease" not in query.sql
        and "noria.handler" not in query.sql
        and query.name != "migration_table"
    ):
        assert "clock_timestamp" not in query.sql


def test_a_query_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n")


def test_parameters_must_be_declared_in_order() -> None:
    with pytest.raises(ValueError, match="declared"):
        parse("-- name: a\n-- $2 x text\nSELECT $2;\n")
    [query] = parse(
        "-- name: a\n-- $1 x text, $2 ys double precision[],\n-- $3 z bigint\n-- why\nSELECT 1;\n"
    ).values()
    assert query == Query("a", "SELECT 1", (("x", "text"), ("ys", "double precision[]"), ("z", "bigint")))
