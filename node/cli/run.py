"""Commands that run something here: dev, node, check, migrate. Every setting of a node is a flag of theirs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from node.cli.context import DEBUG, JSON
from node.settings import SETTINGS, Setting, read
from runtime.errors import NoriaError

F = TypeVar("F", bound=Callable[..., Any])

_HANDLERS: Final = click.argument("handlers_given", metavar="[FILE|MODULE]...", nargs=-1)
_NO_DSN: Final = "postgresql://"  # stands for one where none is needed


def _flags(*without: str) -> Callable[[F], F]:
    """A flag for each setting but those; their texts go through the same parsers as the environment."""

    def add(command: F) -> F:
        for setting in reversed(SETTINGS):
            if setting.name not in without:
                command = click.option(
                    setting.flag, setting.field, metavar=_metavar(setting), help=_help(setting)
                )(command)
        return command

    return add


def _metavar(setting: Setting) -> str:
    return "DURATION" if setting.name.endswith("_S") else setting.name.rpartition("_")[2]


def _help(setting: Setting) -> str:
    default = "" if setting.default in {None, ()} else f"; default: {setting.default}"
    secret = f", {setting.variable}_FILE" if setting.secret else ""
    return f"{setting.help[:1].upper()}{setting.help[1:]}.  [env: {setting.variable}{secret}{default}]"


def _with_handlers(flags: dict[str, str | None], given: tuple[str, ...]) -> dict[str, str | None]:
    if given and flags.get("handlers"):
        raise click.UsageError("handlers are named twice: as arguments and with --handlers")
    return {**flags, "handlers": ",".join(given)} if given else flags


def _variables(flags: dict[str, str | None]) -> dict[str, str]:
    """The same as an environment, for processes that read it there."""
    return {
        setting.variable: value for setting in SETTINGS if (value := flags.get(setting.field)) is not None
    }


@click.command(short_help="Run handlers here with an own PostgreSQL; reload on save.")
@_HANDLERS
@click.option("--nodes", type=click.IntRange(1, 16), default=1, show_default=True, help="Node processes.")
@click.option("--fresh", is_flag=True, help="Begin with an empty database.")
@click.option("--reload/--no-reload", default=True, show_default=True, help="Restart when a file is saved.")
@_flags("POSTGRES_DSN", "HANDLERS")
@DEBUG
def dev(
    handlers_given: tuple[str, ...], *, nodes: int, fresh: bool, reload: bool, **flags: str | None
) -> int:
    """Everything a developer of handlers needs, in one terminal: a node, its own PostgreSQL, reload on save.

    Needs no service. FILE or MODULE holds handlers (default: NORIA_HANDLERS, else handlers.py here).
    """
    from node.dev import DevOptions, run_dev  # noqa: PLC0415 - not needed for --help

    environment = {**os.environ, **_variables(flags)}
    if not handlers_given and not environment.get("NORIA_HANDLERS") and os.path.exists("handlers.py"):  # noqa: PTH110 - a word of the user's
        handlers_given = ("handlers.py",)
    return run_dev(
        DevOptions(handlers=handlers_given, nodes=nodes, fresh=fresh, reload=reload, environment=environment)
    )


@click.command(short_help="Run a node.")
@_HANDLERS
@click.option("--reload", is_flag=True, help="Restart when a file is saved (development).")
@_flags()
@DEBUG
def node(handlers_given: tuple[str, ...], *, reload: bool, **flags: str | None) -> int:
    """Run a node until SIGTERM or Ctrl-C, then drain; a second signal ends it at once.

    Exit code 75: other nodes declared it dead, start it again (--reload does).
    """
    flags = _with_handlers(flags, handlers_given)
    settings = read(os.environ, flags)
    if reload:
        from node.dev import run_reloaded  # noqa: PLC0415 - not needed for --help

        return run_reloaded(settings, {**os.environ, **_variables(flags)})
    import traceback  # noqa: PLC0415 - not needed for --help

    from node.wiring import run_process  # noqa: PLC0415 - not needed for --help

    try:
        return run_process(settings)
    except NoriaError:
        raise
    except Exception:
        traceback.print_exc()  # nobody can run a node that has failed "again with --debug"
        raise


@click.command(short_help="Import handlers and read settings; start nothing.")
@_HANDLERS
@_flags()
@JSON
@DEBUG
def check(handlers_given: tuple[str, ...], *, as_json: bool, **flags: str | None) -> None:
    """Say what a node with these settings would load, or everything that is wrong with them (exit 2)."""
    from contextlib import redirect_stdout  # noqa: PLC0415 - not needed for --help

    from actors.authoring.registry import Registry  # noqa: PLC0415 - not needed for --help
    from node.cli import render  # noqa: PLC0415 - not needed for --help

    environment = dict(os.environ)
    has_dsn = (
        any(environment.get(f"NORIA_POSTGRES_DSN{end}") for end in ("", "_FILE")) or flags["postgres_dsn"]
    )
    if not has_dsn:
        environment["NORIA_POSTGRES_DSN"] = _NO_DSN
    settings = read(environment, _with_handlers(flags, handlers_given))
    with redirect_stdout(sys.stderr):  # what the imported code prints
        registry = Registry.load(settings.handlers)
    if as_json:
        found = [
            {"name": h.name, "kind": h.kind.value, "source": h.source, "schema": h.schema} for h in registry
        ]
        render.print_json({"handlers": found, "notes": list(registry.notes)})
        return
    if len(registry):
        render.table(("HANDLER", "RUNS AS", "SOURCE"), [(h.name, h.kind.value, h.source) for h in registry])
    for text in registry.notes:
        render.note(f"note: {text}")
    if not has_dsn:
        render.note("note: `noria node` needs NORIA_POSTGRES_DSN; `noria dev` does not")
    render.note(f"{len(registry)} handlers, {len(registry.lifespans)} lifespans; settings are fine")


@click.command(short_help="Bring the database's schema up to date.")
@_flags(*(setting.name for setting in SETTINGS if setting.name != "POSTGRES_DSN"))
@JSON
@DEBUG
def migrate(*, as_json: bool, **flags: str | None) -> None:
    """Apply the migrations that are missing, as every node does when it starts. Safe to repeat and to run twice."""
    settings = read(os.environ, flags)
    import asyncio  # noqa: PLC0415 - not needed for --help
    import logging  # noqa: PLC0415 - not needed for --help

    from node.cli import render  # noqa: PLC0415 - not needed for --help
    from runtime.adapters.postgres import migrate as bring_up_to_date  # noqa: PLC0415 - not needed for --help

    logging.basicConfig(level=logging.INFO, format="%(message)s")  # waits and tries again are said, on stderr
    applied = asyncio.run(bring_up_to_date(settings.postgres_dsn))
    if as_json:
        render.print_json({"applied": applied})
        return
    for name in applied:
        click.echo(f"applied {name}")
    render.note("the schema is up to date")
