"""The smallest handler: serve it with `noria dev examples/hello.py`."""

from __future__ import annotations

from actors import Context, Fail, handler


@handler(timeout_s=30, max_attempts=5)
async def greet(ctx: Context, name: str) -> str:
    """Greet somebody by name."""
    if not name:
        raise Fail("nobody to greet")  # final: a dead letter now
    return f"Hello, {name}!"
