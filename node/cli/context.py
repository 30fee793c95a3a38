"""What commands that talk to a node share: where it is, and running one piece of asynchronous work against it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from node.client import Client

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

RETRY_FOR_S = 1.5  # a person waits at the keyboard


@dataclass(slots=True)
class Session:
    """What was said before or after the command's name; None means the environment decides."""

    url: str | None = None
    api_key: str | None = None
    debug: bool = False


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value and param.name is not None:
        setattr(ctx.ensure_object(Session), param.name, value)


URL = click.option(
    "--url", metavar="URL", expose_value=False, callback=_remember,
    help="Where a node answers.  [env: NORIA_URL; default: http://127.0.0.1:8080]",
)  # fmt: skip
API_KEY = click.option(
    "--api-key", metavar="KEY", expose_value=False, callback=_remember,
    help="Better in the environment, where other users cannot read it.  [env: NORIA_API_KEY, NORIA_API_KEY_FILE]",
)  # fmt: skip
DEBUG = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember,
    help="Show tracebacks of errors.  [env: NORIA_DEBUG]",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else there.")


def reaches_node(command: F) -> F:
    """Options of every command that talks to a node."""
    return URL(API_KEY(DEBUG(command)))


def with_client(
    work: Callable[[Client], Awaitable[T]],
    *,
    retry_for_s: float = RETRY_FOR_S,
    ctx: click.Context | None = None,
) -> T:
    """Run `work` with a client to the node that the command line or the environment names."""
    import asyncio  # noqa: PLC0415 - not needed for --help

    from node.client import Client  # noqa: PLC0415 - not needed for --help

    session = (ctx or click.get_current_context()).ensure_object(Session)

    async def run() -> T:
        async with Client(session.url, session.api_key, retry_for_s=retry_for_s) as client:
            return await work(client)

    return asyncio.run(run())
