"""Tools for your own tests: a broker in memory, and a clock that a test advances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jetmap.nats.clock import ManualClock
    from jetmap.nats.memory import MemoryBroker, MemoryConnection

__all__ = ["ManualClock", "MemoryBroker", "MemoryConnection"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: pytest loads this package with its plug-in.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jetmap.nats import clock, memory

    return getattr(clock if name == "ManualClock" else memory, name)
