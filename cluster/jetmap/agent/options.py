"""The options of an agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetmap.wire.messages import Setup


@dataclass(frozen=True)
class AgentOptions:
    """The options of an agent."""

    pool: str
    setup: Setup  # Modules that the workers import, and their limits.
    sys_path: tuple[str, ...]  # Of the workers.
    cwd: str  # Of the workers.
    cores: str | int | None = None  # None for all, a count, or a list as in "0,2-3".
    version: str | None = None  # Names the offer, with its functions; None: digest of their source.
    embedded: bool = False  # Belongs to a keeper: chunks may name modules, source is watched.
    reload: bool = False  # Source is watched.
    withdraw_grace: float = 0.5  # Seconds for the worker of an unwanted chunk to end it.
    recycle_chunks: int | None = None  # Chunks after which a worker is replaced.
    recycle_age: float | None = None  # Seconds after which a worker is replaced.
    recycle_memory: int | None = None  # Bytes at which a worker is replaced.
    nice: int = 0  # Added to the workers' niceness.
    work_storage: str = "memory"
    work_replicas: int = 0
    work_max_messages: int = 100_000
    work_max_bytes: int = 1 << 30
    # Seconds that the import of a caller's module may take, and a function's first call in a worker
    # on top of its item's timeout.
    start_timeout: float = 60.0
    local: str = ""  # Offer of sealed chunks, see ``wire/seals.py``.
    code: str | None = None  # File in which to write down the source that the workers have loaded.
    host: str = field(default="")
