"""What a dispatcher is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetmap.wire.pool_streams import StreamOptions
from jetmap.wire.seals import Sealer

from .costs import Cutting


@dataclass(frozen=True)
class DispatchOptions:
    """cutting: of chunks. attempts: of an item that kills its worker, unless its function says
    otherwise. max_open_maps: more are refused. max_buffer: bytes of unread results a map;
    max_memory: of all maps, with what a gateway holds for them.
    announce_seconds: how long to wait for a function that nobody has announced yet. sealer: of
    chunks that bring their function to the `jetmap up` of this user."""

    pool: str = "default"
    cutting: Cutting = field(default_factory=Cutting)
    attempts: int = 2
    max_open_maps: int = 1000
    max_buffer: int = 16 << 20
    max_memory: int = 1 << 30
    announce_seconds: float = 1.0
    stream: StreamOptions = field(default_factory=StreamOptions)
    sealer: Sealer | None = None
