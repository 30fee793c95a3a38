"""One task of its kind at a time: what becomes of a new one is said by its mode.

noria dev examples/10_unique.py

noria submit index document=a                    # ten times within a second: it runs once, with the newest arguments
noria submit statement month=05 --unique reject     # refused (exit code 5) while the first one is there
noria submit statement month=05                     # answered with the one that is there
noria submit nudge user=ann --unique throttle --unique-key ann --unique-for 1h    # at most one per hour
"""

from __future__ import annotations

from actors import Context, Task, Unique, handler, task


@handler(unique=Unique(mode="debounce", for_s=2, max_s=30))
async def index(ctx: Context, document: str, revision: int = 0) -> str:
    """Every save posts one; it runs when two seconds have passed without another, at the latest after thirty."""
    return f"indexed {document}, revision {revision}"


@handler(unique=Unique(mode="existing"))
async def statement(ctx: Context, month: str) -> str:
    """Whoever asks while it waits or runs gets the same task."""
    return f"statement of {month}"


@handler
async def nudge(ctx: Context, user: str) -> str:
    return f"reminded {user}"


def saved(document: str, revision: int) -> Task[str]:
    """By key: whatever the revision, it is the same document. The handler's own rule goes by all arguments."""
    rule = Unique(mode="debounce", for_s=2, max_s=30, key=document)
    return task(index, document=document, revision=revision).options(unique=rule)
