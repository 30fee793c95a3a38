"""When an offer is acknowledged: not before its claim has committed, and in any case when that is over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from actors.authoring.registry import Kind
from actors.executor.capacity import Capacity
from actors.executor.offers import Offers
from runtime.core.messages import Offer
from runtime.errors import Unavailable
from runtime.ports import Delivery
from tests.support.factories import new_id

if TYPE_CHECKING:
    from actors.executor.messages import Claimed
    from runtime.core.task import Claim


class SlowStore:
    """`claim` waits until it is let go on."""

    def __init__(self, *, away: bool) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self._away = away

    async def claim(self, items: Any, incarnation: int) -> list[Claim]:
        self.asked.set()
        await self.go_on.wait()
        if self._away:
            raise Unavailable("PostgreSQL is away")
        return []


@pytest.mark.parametrize("away", [False, True])
async def test_an_offer_is_acknowledged_when_its_claim_is_over_and_not_before(away: bool) -> None:
    store = SlowStore(away=away)
    world: Any = SimpleNamespace(
        store=store,
        capacity=Capacity(dict.fromkeys(Kind, 10)),
        clock=SimpleNamespace(now_s=lambda: 0.0),
        incarnation=1,
    )
    told: list[Claimed] = []
    acks: list[str] = []
    async with asyncio.TaskGroup() as group:
        offers = Offers(world, lambda work: group.create_task(work) and None, told.append)
        offers.put(Delivery(Offer(1, 2, ((new_id(), 1),)), lambda: acks.append("acked")))
        await store.asked.wait()
        assert acks == [], "it would be lost with this process"
        store.go_on.set()
    assert acks == ["acked"], "once, or the broker would send no more"
    assert [claimed.failed for claimed in told] == [away]
