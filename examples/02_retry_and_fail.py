"""What goes wrong, and what becomes of it.

    noria dev examples/02_retry_and_fail.py

    noria submit charge card=4711 cents:=1999 --wait
    noria dead list

Any exception is a failure and is tried again after a back-off, until `max_attempts` of them are used up. `Fail` and
`give_up_on` are final at once; `Retry` names its own wait. What is final is a dead letter: kept, with its traceback,
until somebody replays or purges it.
"""

from __future__ import annotations

from actors import Backoff, Context, Fail, Retry, handler


class Bank:
    """Stands for a service that is not always well."""

    async def charge(self, card: str, cents: int, key: str) -> str:
        return f"{key}: {cents} from {card}"

    async def busy_for_s(self) -> float:
        return 0.0


BANK = Bank()


@handler(
    timeout_s=10,
    max_attempts=5,
    backoff=Backoff(first_s=2, factor=3, max_s=600),  # up to 2, 6, 18, 54 s
    give_up_on=(PermissionError,),  # whatever the bank says, it will not change its mind
)
async def charge(ctx: Context, card: str, cents: int) -> str:
    if cents <= 0:
        raise Fail(f"cents={cents}: nothing to charge")
    if wait_s := await BANK.busy_for_s():
        raise Retry("the bank is busy", after_s=wait_s)
    # A body may run again after a crash: give others a key by which they notice.
    return await BANK.charge(card, cents, key=str(ctx.task_id))
