"""Tools for your own tests: a broker in memory, and a clock that a test advances."""

from jetmap.nats.clock import ManualClock
from jetmap.nats.memory import MemoryBroker, MemoryConnection

__all__ = ["ManualClock", "MemoryBroker", "MemoryConnection"]
