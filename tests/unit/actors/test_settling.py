"""What becomes of outcomes that the record never took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from actors.executor.settling import Settler
from runtime.errors import Unavailable
from runtime.kernel.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from actors.executor.settling import Settled


async def test_many_that_end_without_an_outcome_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Sequence[Settled]] = []
    settler = Settler(cast("Any", None), 1, SystemClock(), told.append)
    item = cast("Any", (None, None))
    settler._done([(item, Unavailable("frozen"))] * 300)
    [record] = caplog.records
    assert "300 attempts" in record.getMessage()
    assert "frozen" in record.getMessage()
    assert told == [[]]
    await settler.close()
