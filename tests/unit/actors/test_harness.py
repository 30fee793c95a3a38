"""The Harness as authors use it: no service, virtual time."""

from __future__ import annotations

from actors import Context, Harness, Retry, handler, task


@handler(timeout_s=5, max_attempts=3)
async def flaky(ctx: Context, good_from: int) -> str:
    if ctx.attempt < good_from:
        raise Retry("busy", after_s=60)
    return f"attempt {ctx.attempt}"


async def test_a_retry_comes_when_its_time_has_come() -> None:
    async with Harness(flaky) as harness:
        done = await harness.submit(task(flaky, good_from=2))
        assert (done.state, done.attempt) == ("scheduled", 1)
        await harness.advance(59.9)
        assert done.state == "scheduled"
        await harness.advance(0.1)
        assert done.state == "succeeded"
        assert done.result == "attempt 2"
