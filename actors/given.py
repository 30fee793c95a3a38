"""Transactions of a Harness: on a connection that the test gave, one at a time, beside a record in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from runtime.core.task import Settlement, Verdict
from runtime.ports import TaskStore


class GivenTransactions:
    """Implements runtime.ports.Transactions. `connection.transaction()` has `start`, `commit` and `rollback`, as
    asyncpg's: where the test has one open itself, these are savepoints of it."""

    def __init__(self, store: TaskStore, connection: Any) -> None:
        self._store = store
        self._connection = connection
        self._turn = asyncio.Lock()

    async def begin(self) -> GivenTransaction:
        await self._turn.acquire()
        try:
            transaction = self._connection.transaction()
            await transaction.start()
        except BaseException:
            self._turn.release()
            raise
        return GivenTransaction(self._store, self._turn, self._connection, transaction)


class GivenTransaction:
    """Implements runtime.ports.Transaction."""

    def __init__(self, store: TaskStore, turn: asyncio.Lock, connection: Any, transaction: Any) -> None:
        self._store = store
        self._turn = turn
        self._transaction = transaction
        self._open = True
        self.connection = connection

    async def commit(self, settlement: Settlement) -> Verdict:
        [verdict] = await self._store.settle([settlement])
        if not verdict.committed:
            await self.roll_back()
            return verdict
        self._open = False
        try:
            await self._transaction.commit()
        finally:
            self._turn.release()
        return verdict

    async def roll_back(self) -> None:
        if self._open:
            self._open = False
            try:
                await self._transaction.rollback()
            finally:
                self._turn.release()
