"""Which versions of a handler cannot bind a task: marks among the tags that its band requires.

Law: nodes choose by bands, never by rows. So what a node cannot bind moves to a band that its version does not
serve: each version looks at it once, and nobody hands it to and fro. A mark counts for starts up to a number: a later
start may have the same schema and a mended body behind it, so it tries again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from runtime.core.task import BandKey

OWN_TAGS: Final = "noria:"  # tags that begin like this are ours
_MARK: Final = f"{OWN_TAGS}not:"
_CHARS: Final = 16  # of a version's digest


def left_to_others(key: BandKey, version: str, up_to: int) -> BandKey:
    """The band for what this version cannot bind, as far as incarnations up to this number run it."""
    stem = f"{_MARK}{version[:_CHARS]}:"
    kept = [tag for tag in key.requires if not tag.startswith(stem)]
    return replace(key, requires=tuple(sorted([*kept, f"{stem}{up_to}"])))


def tags_in(requires: Iterable[str]) -> tuple[str, ...]:
    """What callers asked for, without the marks."""
    return tuple(tag for tag in requires if not tag.startswith(_MARK))


def may_serve(requires: Collection[str], tags: Collection[str], version: str, incarnation: int) -> bool:
    """Whether a node with these tags, this version and this incarnation may take what requires that."""
    stem = f"{_MARK}{version[:_CHARS]}:"
    for tag in requires:
        if tag.startswith(stem):
            if incarnation <= int(tag[len(stem) :]):
                return False
        elif not tag.startswith(_MARK) and tag not in tags:
            return False
    return True
