"""The record in memory: same answers as PostgreSQL, a clock that is passed in, nothing kept."""

from runtime.adapters.memory.store import MemoryStore

__all__ = ["MemoryStore"]
