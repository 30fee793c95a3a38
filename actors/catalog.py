"""Handlers that other nodes have loaded, as the record's catalog shows them: with these, any node accepts for all.

Law: a copy that may be some seconds old; what it lets pass is checked again by the node that runs the task. The record
is asked at most once a second, and only while somebody submits for handlers that this node does not have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from actors.authoring.options import HandlerOptions
from actors.authoring.schema import PublishedSchema
from runtime.core.limits import Per
from runtime.core.task import HandlerEntry
from runtime.errors import InvalidInput
from runtime.ports import Catalog

log = logging.getLogger(__name__)

_AGAIN_S: Final = 1.0  # for names that are not in the copy
_OLD_S: Final = 10.0
_ENTRIES_MAX: Final = 10_000  # of a few KB each


@dataclass(frozen=True, slots=True)
class ForeignHandler:
    """What a node knows of a handler, or of a version of one, that it cannot run."""

    name: str
    digest: str
    options: HandlerOptions  # priority, timeout_s, max_attempts and unique as published
    schema: PublishedSchema
    actor_type: str | None = None  # of the actor whose method it is
    needs_limit_key: bool = False
    is_limited: bool = False

    @classmethod
    def of(cls, entry: HandlerEntry) -> ForeignHandler:
        """Raises InvalidInput where another release of Noria published what this one cannot read."""
        try:
            known = {name: entry.defaults[name] for name in _OPTIONS if name in entry.defaults}
            schema = PublishedSchema(entry.name, entry.schema)
            actor = entry.defaults.get("actor")
            limits = (entry.defaults.get("limit_per") == Per.KEY, "limit_per" in entry.defaults)
            return cls(entry.name, entry.digest, HandlerOptions.make(**known), schema, actor, *limits)
        except Exception as error:
            detail = f"what other nodes published of {entry.name} cannot be read here; send it to one of them"
            log.warning("%s: %s: %s", detail, type(error).__name__, str(error)[:200])
            raise InvalidInput(detail, (("#/handler", detail),)) from error

    def accept(self, payload: Mapping[str, Any], *, exact: bool = False) -> tuple[bytes, dict[str, Any]]:
        """The bytes to keep, and no arguments: it is never run here. Raises InvalidInput."""
        return self.schema.accept(payload), {}


_OPTIONS: Final = ("priority", "timeout_s", "max_attempts", "unique")


class Published:
    """The copy. `now_s` is a clock that only moves forward."""

    def __init__(self, catalog: Catalog, now_s: Callable[[], float]) -> None:
        self._catalog = catalog
        self._now_s = now_s
        self._entries: dict[str, HandlerEntry] = {}
        self._made: dict[tuple[str, str], ForeignHandler] = {}  # by name and digest
        self._read_at_s: float | None = None
        self._reading = asyncio.Lock()

    @property
    def names(self) -> Iterable[str]:
        return self._entries.keys()

    def get(self, name: str) -> ForeignHandler | None:
        """Raises InvalidInput where its entry cannot be read."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        made = self._made.get((name, entry.digest))
        if made is None:
            made = self._made[name, entry.digest] = ForeignHandler.of(entry)
        return made

    async def look(self, names: Iterable[str], *, newest: bool = False) -> None:
        """Read the record's catalog again if the copy is old, or lacks one of these, or the `newest` version of them
        is asked for. Raises Unavailable.
        """
        wanted = frozenset(names)
        if self._is_due(wanted, newest=newest):
            async with self._reading:
                if self._is_due(wanted, newest=newest):  # others may have read it meanwhile
                    await self._read()

    def _is_due(self, names: frozenset[str], *, newest: bool) -> bool:
        if self._read_at_s is None:
            return True
        after_s = _OLD_S if names <= self._entries.keys() and not newest else _AGAIN_S
        return self._now_s() - self._read_at_s >= after_s

    async def _read(self) -> None:
        read_at_s = self._now_s()
        entries = await self._catalog.handlers()
        if len(entries) > _ENTRIES_MAX:
            log.warning(
                "%d handlers are published; only the first %d are known here", len(entries), _ENTRIES_MAX
            )
        self._entries = {entry.name: entry for entry in entries[:_ENTRIES_MAX]}
        current = {(entry.name, entry.digest) for entry in self._entries.values()}
        self._made = {key: made for key, made in self._made.items() if key in current}
        self._read_at_s = read_at_s
