"""A provider that allows 100 calls a second, and two at once for each customer: whatever nodes there are.

    noria dev --nodes 3 examples/14_limits.py

    noria submit notify to=ann@example.com
    noria submit bill customer=acme cents:=500 --limit-key acme
    noria limits                                        # what counts, and where it comes from
    noria limit set notify --rate 5/min --running 1     # the provider is ill: all nodes go by it within seconds
    noria limit rm notify                               # back to what the code says

What has to wait is `ready`, says why, costs no attempt, and holds up nothing else.
"""

from __future__ import annotations

from actors import Context, Task, handler, task


class Provider:
    """Stands for somebody else's API."""

    async def call(self, what: str) -> str:
        return f"{what}: accepted"


PROVIDER = Provider()


@handler(rate_limit="100/s", burst=20)
async def notify(ctx: Context, to: str) -> str:
    """100 attempts start in a second, and 20 at once after a pause; a retry is an attempt like any other."""
    return await PROVIDER.call(f"mail to {to}")


@handler(max_running=2, limit_per="key")
async def bill(ctx: Context, customer: str, cents: int) -> str:
    """Two at once for each `limit_key`, also while a node is killed: what runs is counted, not remembered."""
    return await PROVIDER.call(f"{cents} cents of {customer}")


def billed(customer: str, cents: int) -> Task[str]:
    """Tasks name the key that they are limited by."""
    return task(bill, customer=customer, cents=cents).options(limit_key=customer)
