"""What tests of your own can use: a broker in memory, and a clock that they turn."""

from jetmap.nats.clock import ManualClock
from jetmap.nats.memory import MemoryBroker, MemoryConnection

__all__ = ["ManualClock", "MemoryBroker", "MemoryConnection"]
