"""Leases that were read before a newer view was installed are older than it, and change nothing in it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from actors.cluster import Cluster
from actors.supervisor.membership import Membership
from runtime.adapters.memory.views import MemoryCoordinator, MemoryViews
from runtime.core.membership import members_of
from runtime.core.task import NodeView
from runtime.core.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence


def lease(incarnation: int, state: str = "active") -> NodeView:
    return NodeView(
        node=f"n{incarnation}",
        incarnation=incarnation,
        state=state,
        started_at=datetime.now(UTC),
        alive_for_s=10.0,
        about={"handlers": ()},
    )


class SlowLeases:
    """Answers with the leases as they were when it was asked."""

    def __init__(self) -> None:
        self.leases: Sequence[NodeView] = ()
        self.go_on = asyncio.Event()

    async def nodes(self) -> list[NodeView]:
        read = list(self.leases)
        await self.go_on.wait()
        return read


async def test_old_leases_bring_nobody_back_and_throw_nobody_out() -> None:
    """As a node does that stood still between its question and the answer, while others went on to new views."""
    store, views, cluster = SlowLeases(), MemoryViews(), Cluster(1, ())
    world: Any = SimpleNamespace(
        store=store, cluster=cluster, incarnation=1, broker=None, heartbeat_s=1.0, node="n1",
        clock=SimpleNamespace(now_s=lambda: 0.0), telemetry=SimpleNamespace(gauge=lambda *_, **__: None),
    )  # fmt: skip
    coordinator = MemoryCoordinator(views)
    membership = Membership(world, coordinator, lambda: None)
    old, new = [lease(1), lease(2, "draining")], [lease(1), lease(3)]
    store.leases = old
    await coordinator.propose(View(number=1, members=members_of(old)))
    cluster.install(views.present, {})
    look = asyncio.create_task(membership.look())
    await asyncio.sleep(0)
    agreed = View(number=2, members=members_of(new))
    await coordinator.propose(agreed)
    cluster.install(agreed, {3: frozenset()})
    store.go_on.set()
    await look
    assert views.present == agreed
