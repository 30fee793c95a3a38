"""Whole nodes on one exchange: what their heartbeats tell each other."""

from __future__ import annotations

import pytest

from actors import Context, handler
from actors.authoring.registry import Registry
from runtime.adapters.memory.broker import MemoryBroker, MemoryExchange
from tests.support.memory_node import memory_node, until


@handler("quick")
async def quick(ctx: Context) -> None: ...


@pytest.fixture
def registry() -> Registry:
    return Registry(quick)


async def test_who_does_not_hear_takes_no_offers(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = MemoryExchange()
    async with (
        memory_node(registry, exchange=exchange) as a,
        memory_node(registry, exchange=exchange, beside=a, name="n2") as b,
    ):
        told = a.service.cluster.peer(b.world.incarnation)
        await until(lambda: sum(told.credits) > 0)
        assert isinstance(b.world.broker, MemoryBroker)
        monkeypatch.setattr(b.world.broker, "_check", lambda: None)  # deaf only: it goes on to send
        b.world.broker.reachable = False
        await until(lambda: sum(told.credits) == 0)
        b.world.broker.reachable = True
        await until(lambda: sum(told.credits) > 0)
