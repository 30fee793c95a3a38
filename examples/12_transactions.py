"""Orders in the database that is also Noria's record: tasks and writes that commit together.

    noria dev examples/12_transactions.py

The shop stores an order and the task that charges it in one transaction: both are there, or neither. The handler writes
its payment in a transaction that commits with its outcome: killed at whatever moment, it charges each order once.
In SQL, for every other language:

    BEGIN;
    INSERT INTO shop_order (id, cents) VALUES (7, 1999);
    SELECT noria_api.enqueue(handler => 'charge_order', payload => '{"order_id": 7}', idempotency_key => 'order:7');
    COMMIT;
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors import Context, Fail, handler, task
from node.client import enqueue

if TYPE_CHECKING:
    from uuid import UUID

    import asyncpg

TABLES = """
CREATE TABLE IF NOT EXISTS shop_order (id bigint PRIMARY KEY, cents integer NOT NULL);
CREATE TABLE IF NOT EXISTS payment (order_id bigint NOT NULL REFERENCES shop_order, cents integer NOT NULL);
"""


@handler
async def charge_order(ctx: Context, order_id: int) -> int:
    async with ctx.transaction() as connection:  # commits when the handler has returned, with its outcome
        cents: int | None = await connection.fetchval("SELECT cents FROM shop_order WHERE id = $1", order_id)
        if cents is None:
            raise Fail(f"there is no order {order_id}")
        await connection.execute("INSERT INTO payment VALUES ($1, $2)", order_id, cents)
    ctx.submit(task(send_receipt, order_id=order_id, cents=cents))
    return cents


@handler
async def send_receipt(ctx: Context, order_id: int, cents: int) -> str:
    return f"order {order_id}: {cents / 100:.2f} received"


async def buy(connection: asyncpg.Connection[asyncpg.Record], order_id: int, cents: int) -> UUID:
    """In the shop, whose role needs no more of Noria than
    GRANT USAGE ON SCHEMA noria_api TO shop; GRANT EXECUTE ON FUNCTION noria_api.enqueue TO shop;
    """
    async with connection.transaction():
        await connection.execute("INSERT INTO shop_order VALUES ($1, $2)", order_id, cents)
        charge = task(charge_order, order_id=order_id).options(idempotency_key=f"order:{order_id}")
        return await enqueue(connection, charge)
