"""The root of `noria`: its commands, what all of them understand, and how every run ends.

Command modules import nothing heavy at their top, so all can be imported here and `noria --help` stays quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click

from node.cli import cluster, dead, limits, new, operate, run, schedule, submit, tasks, tenants, top, workflow
from node.cli.context import API_KEY, DEBUG, URL, Session
from node.cli.exits import Code, ReaderLeft, report

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECTIONS: Final[dict[str, tuple[click.Command, ...]]] = {
    "Run": (run.dev, run.node, run.check, run.migrate, new.new),
    "Tasks": (
        submit.submit, tasks.status, tasks.wait, tasks.result, tasks.cancel, tasks.retry, tasks.task, tasks.list_tasks,
        dead.dead,
    ),
    "Workflows": (workflow.workflow,),
    "Schedules": (schedule.schedules, schedule.schedule),
    "Operate": (operate.handlers, operate.pause, operate.resume, operate.stats, top.top),
    "Limits": (limits.limits, limits.limit),
    "Tenants": (tenants.tenants, tenants.tenant),
    "Cluster": (cluster.nodes, cluster.ring, cluster.locate, cluster.views, cluster.drain),
}  # fmt: skip


class _Sections(click.Group):
    """Commands in the order of their use, under a heading each."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            raise ReaderLeft from exc  # click would make it exit code 1

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in _SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(c.name or "", c.short_help or "") for c in commands])


@click.command(cls=_Sections, name="noria", context_settings={"help_option_names": ["-h", "--help"]})
@URL
@API_KEY
@DEBUG
@click.version_option(package_name="noria", message="noria %(version)s")
def noria() -> None:
    """A durable task runtime for Python.

    Start with: noria new hello && cd hello && noria dev
    """


for _command in (command for commands in _SECTIONS.values() for command in commands):
    noria.add_command(_command)


def execute(arguments: Sequence[str]) -> int:
    """The exit code of one run (node.cli.exits). Says on stderr what went wrong, never with a traceback unless asked."""
    session = Session(debug=bool(os.environ.get("NORIA_DEBUG")))
    try:
        code = noria.main(list(arguments), prog_name="noria", standalone_mode=False, obj=session)
    except SystemExit as exc:  # how click ends a completion
        return exc.code if isinstance(exc.code, int) else Code.DONE
    except BaseException as exc:  # noqa: BLE001 - every end has a code
        return report(exc, debug=session.debug)
    return code if isinstance(code, int) else Code.DONE
