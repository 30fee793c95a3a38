"""What there is without any service: a record in memory, for tests and simulation.

Law: this module and `node` are the only ones outside runtime.adapters that know an adapter. Who needs a record and
has no service asks here, gets the port, and never learns what is behind it; so `actors` stays free of adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from runtime.adapters.memory import MemoryStore
from runtime.adapters.memory.objects import MemoryObjects
from runtime.ports import Objects, Store


def memory_store(now: Callable[[], datetime]) -> Store:
    """A record that lives as long as this process. `now` returns aware datetimes and may stand still."""
    return MemoryStore(now)


def memory_objects(now: Callable[[], datetime]) -> Objects:
    """A place for large results that lives as long as this process."""
    return MemoryObjects(now)
