"""Tasks that make tasks: children are committed together with their parent's outcome, or not at all.

    noria dev examples/06_children.py

    noria submit walk path=examples --wait
    noria tasks --handler measure

A parent that fails after `submit` leaves no child behind, and one that runs twice does not make them twice. The
idempotency key goes further: one key is one task, whoever asks for it.
"""

from __future__ import annotations

from pathlib import Path

from actors import Context, handler, task


@handler
def walk(ctx: Context, path: str) -> int:
    """One task per file of a folder; folders walk themselves."""
    entries = sorted(Path(path).iterdir())
    for entry in entries:
        make = task(walk, path=str(entry)) if entry.is_dir() else task(measure, path=str(entry))
        ctx.submit(make.options(idempotency_key=f"{ctx.task_id}:{entry}", priority="low"))
    return len(entries)


@handler
def measure(ctx: Context, path: str) -> int:
    """Bytes of a file."""
    return Path(path).stat().st_size
