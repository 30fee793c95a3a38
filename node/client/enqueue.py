"""Enqueueing by SQL, in the caller's own transaction: the task is there if that commits, and never was if it does not.

The connection leads to the database that is Noria's record, as a role that may call `noria_api.enqueue`. Nothing is
sent over HTTP, and no database library is imported here: any connection of asyncpg will do, and for all others there
is the statement.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Unpack
from uuid import UUID

import orjson

from node.client.encode import encode, request_of
from node.client.errors import InvalidTask
from runtime.core.canonical import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.authoring.task import Task, TaskOptions

Style = Literal["pyformat", "named", "dollar"]
_TYPES: Final[Mapping[str, str]] = {
    "handler": "text",
    "payload": "json",
    "idempotency_key": "text",
    "actor_key": "text",
    "limit_key": "text",
    "priority": "text",
    "requires": "text[]",
    "prefers": "text[]",
    "delay_s": "double precision",
    "run_at": "timestamptz",
    "expires_at": "timestamptz",
    "timeout_s": "double precision",
    "max_attempts": "integer",
    "metadata": "json",
    "tenant": "text",
    "request_digest": "bytea",
}
_MARKS: Final[Mapping[Style, str]] = {"pyformat": "%({name})s", "named": ":{name}", "dollar": "${number}"}


class Connection(Protocol):
    """What `enqueue` needs of a connection of asyncpg."""

    async def fetchval(self, query: str, *args: Any) -> Any: ...


async def enqueue(
    connection: Connection,
    work: Task[Any] | str,
    payload: Mapping[str, Any] | None = None,
    /,
    *,
    tenant: str | None = None,
    **options: Unpack[TaskOptions],
) -> UUID:
    """Store one task in the transaction that is open on an asyncpg connection; its id.

        async with connection.transaction():
            await connection.execute("INSERT INTO orders …")
            await enqueue(connection, task(send_mail, order=7).options(idempotency_key="order:7"))

    Raises InvalidTask for what is no request; asyncpg.PostgresError for what the record refuses, which ends the
    transaction: `sqlstate` 22023 a value is not allowed, NO001 the key is that of a different request, NO002 no such
    handler, 42501 this role may not.
    """
    sql, parameters = enqueue_sql(work, payload, style="dollar", tenant=tenant, **options)
    found: UUID = await connection.fetchval(sql, *parameters.values())
    return UUID(int=found.int)


def enqueue_sql(
    work: Task[Any] | str,
    payload: Mapping[str, Any] | None = None,
    /,
    *,
    style: Style = "pyformat",
    tenant: str | None = None,
    **options: Unpack[TaskOptions],
) -> tuple[str, dict[str, Any]]:
    """(sql, parameters) that return the id: "pyformat" for psycopg, "named" for SQLAlchemy's `text`; with "dollar" the
    values are to be given in order.

        cursor.execute(*enqueue_sql(task(send_mail, order=7)))
        session.execute(text(sql), parameters)

    Raises InvalidTask.
    """
    request, _ = request_of(work, payload, options)
    sent: dict[str, Any] = orjson.loads(encode(request))
    if unknown := sent.keys() - _TYPES.keys():
        raise InvalidTask(
            f"{sent['handler']}: it cannot be enqueued by SQL",
            [(f"#/{name}", "is no argument of noria_api.enqueue") for name in sorted(unknown)],
        )
    values = {name: _value(name, sent[name]) for name in _TYPES if sent.get(name) is not None}
    if tenant is not None:
        values["tenant"] = tenant
    if "idempotency_key" in values:
        values["request_digest"] = digest(sent)
    given = ", ".join(
        f"{name} => {_placed(_TYPES[name], _MARKS[style].format(name=name, number=number))}"
        for number, name in enumerate(values, start=1)
    )
    return f"SELECT noria_api.enqueue({given})", values


def _value(name: str, value: Any) -> Any:
    match _TYPES[name]:
        case "json":
            return orjson.dumps(value).decode()
        case "timestamptz":
            return datetime.fromisoformat(value)
        case "double precision":
            return float(value)
    return value


def _placed(kind: str, mark: str) -> str:
    """JSON travels as text: whatever codec the connection has for json must not write it a second time."""
    return f"CAST(CAST({mark} AS text) AS json)" if kind == "json" else f"CAST({mark} AS {kind})"
