"""Bank accounts: each account number is an actor with a balance that only its own messages change.

noria dev examples/account/handlers.py
noria submit account.deposit --actor-key 42 amount_cents:=500 --wait
"""

from __future__ import annotations

from actors import Actor, Context, Fail, actor, handler


class Account(Actor, name="account"):
    """One message at a time, in the order in which they were accepted; the balance commits with each outcome."""

    balance_cents: int = 0
    closed: bool = False

    @handler
    async def deposit(self, ctx: Context, amount_cents: int) -> int:
        """Put money in; the new balance."""
        if self.closed:
            raise Fail("the account is closed")
        self.balance_cents += amount_cents
        return self.balance_cents

    @handler
    async def transfer(self, ctx: Context, to: str, amount_cents: int) -> int:
        """Take money out and send it on; the deposit is committed together with the withdrawal, or not at all."""
        if amount_cents > self.balance_cents:
            raise Fail(f"only {self.balance_cents} cents are left")
        self.balance_cents -= amount_cents
        ctx.submit(actor(Account, to).task(Account.deposit, amount_cents=amount_cents))
        return self.balance_cents

    @handler
    async def close(self, ctx: Context) -> int:
        """No more deposits; what is left."""
        self.closed = True
        return self.balance_cents

    @handler(read_only=True)
    async def balance(self, ctx: Context) -> int:
        """What is there now."""
        return self.balance_cents
