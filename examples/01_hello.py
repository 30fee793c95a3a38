"""A handler, and the ways to call it.

    noria dev examples/01_hello.py

    noria submit greet name=Ada --wait
    curl 'localhost:8080/v1/tasks?wait=5' -H 'content-type: application/json' \
         -d '{"handler": "greet", "payload": {"name": "Ada"}}'

Arguments are checked by their annotations before anything is stored: `name:=5` is refused, naming the field.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors import Context, handler


@dataclass(frozen=True)
class Greeting:
    text: str
    attempt: int


@handler
async def greet(ctx: Context, name: str, punctuation: str = "!") -> Greeting:
    """Greet somebody by name."""
    return Greeting(f"Hello, {name}{punctuation}", ctx.attempt)
