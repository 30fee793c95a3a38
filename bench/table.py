"""Goals beside figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """`met` None: there is no goal, it is shown for comparison."""

    what: str
    goal: str
    figure: str
    met: bool | None
    detail: str = ""


def print_table(title: str, rows: Sequence[Row]) -> None:
    head = Row(title, "goal", "figure", None)
    wide = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    for row in (head, *rows):
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        texts = (
            row.what.ljust(wide[0]),
            row.goal.rjust(wide[1]),
            row.figure.rjust(wide[2]),
            verdict.ljust(6),
        )
        print("  ".join((*texts, row.detail)).rstrip(), flush=True)
