"""Claims by offer of which the node learns too little to run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runtime.core.messages import Offer
from runtime.errors import Unavailable
from tests.support.offer_rig import quick, spots, threaded

if TYPE_CHECKING:
    from runtime.core.task import Band, Verdict


@pytest.mark.parametrize("away_for", ["bands", "settle"])
async def test_what_was_claimed_is_not_run_while_nothing_can_be_learnt_of_it(away_for: str) -> None:
    """Its band is new here and cannot be read, or it is another node's and cannot be handed back."""
    async with spots((quick, threaded), (threaded,)) as two:
        near, far = two.values()
        [task] = await two.waiting(near, 1)
        if away_for == "bands":
            far.bands._by_id.clear()
            far.bands._read_up_to = 0

        async def away(*_: object, **__: object) -> list[Band] | list[Verdict]:
            raise Unavailable("the record is away")

        setattr(two.store, away_for, away)
        await near.broker.offer(far.incarnation, Offer(1, near.incarnation, ((task.id, 1),)))
        await two.settled()
        assert [(answer.failed, answer.claims) for answer in far.claimed] == [(True, ())], (
            "the audit hands it back"
        )
