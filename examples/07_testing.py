"""Testing handlers: no service, no waiting. `python examples/07_testing.py`, or collect it with pytest.

The Harness runs the actors of a real node over a record in memory; time moves only when the test says so.
"""

from __future__ import annotations

import asyncio

from actors import Context, Harness, Retry, handler, task


class Mailer:
    async def send(self, to: str, text: str) -> None:
        raise NotImplementedError("the real one talks to a server")


@handler(max_attempts=3, timeout_s=10)
async def remind(ctx: Context, to: str) -> str:
    try:
        await ctx.use(Mailer).send(to, "It is time.")
    except ConnectionError as error:
        raise Retry(f"no connection: {error}", after_s=60) from error
    return f"sent in attempt {ctx.attempt}"


class FlakyMailer(Mailer):
    def __init__(self) -> None:
        self.calls = 0

    async def send(self, to: str, text: str) -> None:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionResetError("by peer")


async def test_remind_tries_again_after_a_minute() -> None:
    async with Harness(remind, resources=[FlakyMailer()]) as harness:
        t = await harness.submit(task(remind, to="ada@example.org").options(delay_s=3600))
        await harness.advance(3600)
        assert (t.state, t.failures) == ("scheduled", 1)
        assert t.error is not None
        assert t.error.message == "no connection: by peer"
        await harness.run_until_idle()
        assert t.result == "sent in attempt 2"


async def test_a_handler_is_a_function() -> None:
    assert await remind(Context.for_test(FlakyMailerThatWorks()), to="x") == "sent in attempt 1"


class FlakyMailerThatWorks(FlakyMailer):
    async def send(self, to: str, text: str) -> None: ...


if __name__ == "__main__":
    asyncio.run(test_remind_tries_again_after_a_minute())
    asyncio.run(test_a_handler_is_a_function())
    print("ok")
