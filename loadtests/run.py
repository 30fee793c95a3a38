"""`make load`: a fresh cluster, every scenario in turn, an audit of all that was accepted, a report.

    python -m loadtests.run [--seconds 90] [--users 24] [--without-rabbitmq] [CLASS …]

Exit code 0 only if nothing was lost or doubled and no more went wrong than may: see audit.py. Bounded: every
scenario ends at its time, and what is left then has two minutes to drain.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from loadtests import render
from loadtests.audit import findings
from loadtests.cluster import Broker, Cluster, LoadError, broker
from loadtests.driver import HERE, PYTHON, Driver, Played
from loadtests.record import Record, read_record
from loadtests.report import Report, figures, takeover
from loadtests.scenarios import SCENARIOS, Scenario, seconds_of
from runtime.errors import EmbeddedError

REPORT: Final = HERE / "report"
SECONDS_MIN, SECONDS_MAX = 10, 900
USERS_MAX: Final = 500
_BETWEEN_S: Final = 2.0  # between two lines where there is no terminal on which one can change

Tell = Callable[[str], None]
console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)


@dataclass(frozen=True, slots=True)
class Run:
    """All that is known when it is over."""

    played: Sequence[Played]
    record: Record
    killed: Sequence[str]
    ended: Sequence[str]
    broker: str


@contextmanager
def telling() -> Iterator[Tell]:
    """On a terminal one line that changes, else a line every two seconds."""
    told_s = 0.0

    def tell(text: str) -> None:
        nonlocal told_s
        if console.is_terminal:
            status.update(text)
        elif time.monotonic() - told_s >= _BETWEEN_S:
            told_s = time.monotonic()
            console.print(text, soft_wrap=True)

    with console.status("starting ...") as status:
        yield tell


async def play(chosen: Sequence[Scenario], users: int, total_s: float, found: Broker, tell: Tell) -> Run:
    """Everything, up to the last outcome. Raises LoadError."""
    lengths_s = seconds_of(chosen, total_s)
    played = []
    tell(f"starting three nodes on a PostgreSQL of their own; {found.kind} ...")
    with tempfile.TemporaryDirectory(prefix="noria-load-") as folder:
        async with Cluster(Path(folder), REPORT / "logs", found) as cluster:
            driver = Driver(cluster, REPORT, tell)
            for scenario in chosen:
                one = await driver.play(scenario, users, lengths_s[scenario.user])
                played.append(one)
                drained = "not drained" if one.drained_s is None else f"drained in {one.drained_s:.1f} s"
                accepted = sum(len(entry.keys) for entry in one.entries if entry.accepted)
                console.print(f"{scenario.title}: {accepted:,} tasks answered, {drained}", soft_wrap=True)
            tell("comparing what was answered with the record ...")
            return Run(played, await read_record(cluster.dsn), cluster.killed, cluster.ended(), found.kind)


def reported(run: Run) -> Report:
    """Counted, audited and written down."""
    record = run.record
    taken_over, taken_over_s = takeover(run.played, record)
    report = Report(
        at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        machine={
            "machine": f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()} {platform.release()}",
            "versions": f"Python {platform.python_version()}, PostgreSQL {record.postgres}",
            "cluster": f"three nodes, then one killed and one joined, with their defaults; {run.broker}",
        },
        scenarios=[figures(one, record) for one in run.played],
        findings=findings(run.played, record, run.killed, run.ended),
        tasks=len(record.tasks),
        outcomes=len(record.outcomes),
        repeated_attempts=len(record.attempts),
        taken_over=taken_over,
        taken_over_s=taken_over_s,
    )
    (REPORT / "report.json").write_bytes(
        orjson.dumps({**asdict(report), "sound": report.sound}, option=orjson.OPT_INDENT_2)
    )
    (REPORT / "report.md").write_text(render.markdown(report), encoding="utf-8")
    subprocess.run([PYTHON, HERE / "plot.py", REPORT], check=True)
    return report


def show(report: Report) -> None:
    console.print(render.table(report))
    for line in render.audit_lines(report):
        console.print(f"  {line}", soft_wrap=True, style="red" if line.startswith("**") else None)
    verdict = "[green]sound: nothing lost, nothing doubled[/]" if report.sound else "[red]not sound[/]"
    console.print(f"{verdict}; the report: {os.path.relpath(REPORT / 'report.md')}")


def asked() -> argparse.Namespace:
    known = {scenario.user: scenario for scenario in SCENARIOS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=_within(SECONDS_MIN, SECONDS_MAX), default=90, help="of load, in total"
    )
    parser.add_argument("--users", type=_within(1, USERS_MAX), default=24, help="callers at the same time")
    parser.add_argument("--without-rabbitmq", action="store_true", help="even where there is one")
    parser.add_argument(
        "scenario",
        nargs="*",
        choices=[*known, []],
        metavar="CLASS",
        help=f"of {', '.join(known)}; default: all",
    )
    return parser.parse_args()


def _within(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def main() -> int:
    options = asked()
    chosen = [one for one in SCENARIOS if not options.scenario or one.user in options.scenario]
    shutil.rmtree(REPORT, ignore_errors=True)
    for folder in ("logs", "journal"):
        (REPORT / folder).mkdir(parents=True)
    try:
        with telling() as tell, broker(wanted=not options.without_rabbitmq) as found:
            run = asyncio.run(play(chosen, options.users, options.seconds, found, tell))
            tell("drawing the report ...")
            report = reported(run)
    except (LoadError, EmbeddedError) as failed:
        console.print(
            f"[red]the load test could not be carried out[/]: {failed}\nlogs are in {REPORT / 'logs'}"
        )
        return 2
    except KeyboardInterrupt:
        console.print("stopped: no report")
        return 130
    show(report)
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
