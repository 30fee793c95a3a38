"""Plain tasks are made the short way; it must come to what the long one comes to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from actors import Context, Registry, handler
from actors.bands import Bands
from actors.intake import intake as module
from actors.intake.intake import Intake
from actors.intake.requests import TaskSpec
from runtime.adapters.memory.store import MemoryStore
from runtime.core.task import Lane

if TYPE_CHECKING:
    from runtime.core.task import NewTask

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = (
    TaskSpec(handler="own", payload={"a": 1}),
    TaskSpec(
        handler="own",
        payload={"a": 1},
        is_exact=True,
        tenant="t",
        priority=Lane.LOW,
        metadata={"m": 1},
        created_by="somebody",
        trace_context="00-1-2-00",
    ),
)


@handler("own", timeout_s=7, max_attempts=5)
async def own(ctx: Context, a: int) -> None: ...


async def made(spec: TaskSpec) -> NewTask:
    intake = Intake(Registry(own), Bands(MemoryStore(lambda: NOW)), lambda: 1)
    [prepared] = await intake.prepare([spec], lambda *_: 3)
    assert prepared.args == {"a": 1}
    return replace(prepared.task, id=UUID(int=1), slot=0)


@pytest.mark.parametrize("spec", PLAIN, ids=["bare", "all that a plain one may have"])
async def test_the_short_way_makes_what_the_long_one_makes(
    spec: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = await made(spec)
    monkeypatch.setattr(module, "is_plain", lambda _spec: False)
    assert short == await made(spec)
    assert (short.timeout_s, short.max_attempts, short.born_on) == (7, 5, 3)
