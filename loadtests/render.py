"""The report for people: report.md, and the table on the terminal. Law: pure; it counts nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table

if TYPE_CHECKING:
    from loadtests.report import Figures, Latency, Report

_READING: Final = (
    "Callers, nodes and PostgreSQL share this machine's cores: the figures say what all of it together did here. "
    "Answer: from the request to its answer, as the caller saw it. Outcome: from the commit of the task to that of "
    "its outcome, by PostgreSQL's clock. Under a closed load (callers that never pause) latency is a matter of "
    "how many callers there are."
)


def markdown(report: Report) -> str:
    parts = [
        "# Load on a cluster",
        f"{report.at}. " + _verdict(report),
        "\n".join(f"* {name}: {value}" for name, value in report.machine.items()),
        _READING,
        _overview(report),
        "## Audit\n\n" + "\n".join(f"* {line}" for line in audit_lines(report)),
        *(_scenario(one) for one in report.scenarios),
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(report: Report) -> str:
    if report.sound:
        return "**Sound**: nothing was lost, nothing was doubled, every answer was as it must be."
    return f"**Not sound**: {len(report.findings)} findings, below."


def _overview(report: Report) -> str:
    names = ("scenario", "requests/s", "tasks/s in", "tasks/s done", "answer p50 / p99", "outcome p50 / p99",
             "not accepted", "drained in")  # fmt: skip
    lines = [names, ("---",) * len(names), *(row(one) for one in report.scenarios)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def row(one: Figures) -> tuple[str, ...]:
    """Cells of the overview."""
    refused = sum(count for status, count in one.answers.items() if status not in {"200", "202", "cut"})
    return (
        one.title,
        f"{one.requests_per_s:,.0f}",
        f"{one.accepted_per_s:,.0f}",
        f"{one.finished_per_s:,.0f}",
        _pair(one.answer),
        _pair(one.outcome["all"]),
        f"{refused:,} of {one.requests:,}",
        "not in time" if one.drained_s is None else f"{one.drained_s:.1f} s",
    )


def table(report: Report) -> Table:
    shown = Table(title="Load on a cluster")
    for name in ("scenario", "requests/s", "tasks/s in", "tasks/s done", "answer p50/p99", "outcome p50/p99",
                 "not accepted", "drained in"):  # fmt: skip
        shown.add_column(name, justify="left" if name == "scenario" else "right")
    for one in report.scenarios:
        shown.add_row(*row(one))
    return shown


def audit_lines(report: Report) -> list[str]:
    """What was compared, and everything that is wrong."""
    lines = [
        f"{report.tasks:,} tasks on record, {report.outcomes:,} outcomes; each task that a caller was told of is there "
        "once, with one outcome, and each key has one task"
        if report.sound
        else f"{report.tasks:,} tasks on record, {report.outcomes:,} outcomes",
        f"attempts that committed no outcome and were followed by another one: {report.repeated_attempts:,}",
    ]
    if report.taken_over_s is not None:
        lines.append(
            f"attempts cut off by the kill: {report.taken_over:,}; the last of them was given to another node "
            f"{report.taken_over_s:.1f} s after it"
        )
    return lines + report.notes + [f"**{finding}**" for finding in report.findings]


def _scenario(one: Figures) -> str:
    facts = [
        f"{one.users} callers for {one.seconds:g} s (`{one.user}`): {one.requests:,} requests, {one.tasks:,} tasks, "
        f"{one.duplicates:,} duplicates; answers "
        + ", ".join(f"{status}: {count:,}" for status, count in sorted(one.answers.items())),
        "cores kept busy: " + ", ".join(f"{who} {cores:.2f}" for who, cores in sorted(one.cpu_cores.items())),
        "outcomes by node: " + ", ".join(f"{name} {count:,}" for name, count in one.outcomes_by_node.items()),
        "claimed: " + ", ".join(f"{via} {count:,}" for via, count in one.claimed.items()),
        "answer p50 / p99 / most: " + _three(one.answer),
        *(f"outcome p50 / p99 / most, {name}: {_three(seen)}" for name, seen in one.outcome.items()),
        *(f"after {at_s:.1f} s {text}" for at_s, text in one.marks),
    ]
    head = f"## {one.title[0].upper()}{one.title[1:]}\n\n{one.question}"
    return f"{head}\n\n" + "\n".join(f"* {fact}" for fact in facts) + f"\n\n![{one.title}]({one.user}.png)"


def _pair(seen: Latency) -> str:
    return f"{_duration(seen.p50_ms)} / {_duration(seen.p99_ms)}"


def _three(seen: Latency) -> str:
    return f"{_pair(seen)} / {_duration(seen.max_ms)}"


def _duration(value_ms: float) -> str:
    return (
        f"{value_ms:.1f} ms"
        if value_ms < 100
        else f"{value_ms:.0f} ms"
        if value_ms < 10_000
        else f"{value_ms / 1e3:.1f} s"
    )
