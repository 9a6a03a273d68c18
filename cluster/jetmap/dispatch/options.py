"""The options of a dispatcher."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetmap.wire.pool_streams import StreamOptions
from jetmap.wire.seals import Sealer

from .costs import Cutting


@dataclass(frozen=True)
class DispatchOptions:
    """The options of a dispatcher."""

    pool: str = "default"
    cutting: Cutting = field(default_factory=Cutting)
    attempts: int = 2  # Workers that one item may kill, unless its function says otherwise.
    max_open_maps: int = 1000  # Further maps are refused.
    max_buffer: int = 16 << 20  # Bytes of unread results of one map.
    max_memory: int = 1 << 30  # Bytes that all maps hold, and a gateway for them.
    announce_seconds: float = 1.0  # Seconds to wait for an announcement of a function.
    stream: StreamOptions = field(default_factory=StreamOptions)
    sealer: Sealer | None = None  # Seals chunks that bring functions to this user's `jetmap up`.
