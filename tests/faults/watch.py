"""Asks every node a few times a second what view and which slot table it goes by and how much memory it has, and notes
the answers in the history."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final, Self

from tests.faults.rig import Node, Rig
from tests.support.events import Installed, Memory

_EVERY_S: Final = 0.3
_MIB: Final = 2**20


class Watch:
    """For a block. Nodes that do not answer are asked again."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._stop = threading.Event()
        self._last: dict[int, tuple[int, str]] = {}
        self._threads = [threading.Thread(target=self._run, args=(node,)) for node in rig.nodes]

    def _run(self, node: Node) -> None:
        while not self._stop.wait(_EVERY_S):
            incarnation = node.incarnation
            ring = node.ring() if incarnation and node.alive else None
            if ring is not None and node.incarnation == incarnation:
                self._note(node, incarnation, (ring["view"] or 0, ring["table_hash"]))

    def _note(self, node: Node, incarnation: int, installed: tuple[int, str]) -> None:
        self._rig.note_seen(Memory(incarnation=incarnation, mib=memory_mib(node.process.pid)))
        if self._last.get(incarnation) != installed:
            self._last[incarnation] = installed
            self._rig.note_seen(
                Installed(incarnation=incarnation, view=installed[0], table_hash=installed[1])
            )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


def memory_mib(pid: int) -> float:
    """Resident memory; 0 of a process that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB
