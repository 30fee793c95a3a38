"""The record in memory: same answers as PostgreSQL, a clock that is passed in, nothing kept."""

from runtime.adapters.memory.broker import MemoryBroker, MemoryExchange
from runtime.adapters.memory.store import MemoryStore
from runtime.adapters.memory.views import MemoryCoordinator, MemoryViews

__all__ = ["MemoryBroker", "MemoryCoordinator", "MemoryExchange", "MemoryStore", "MemoryViews"]
