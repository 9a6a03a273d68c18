"""What an agent is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetmap.wire.messages import Setup


@dataclass(frozen=True)
class AgentOptions:
    """setup: what the workers import. cores: None, a count, or a list as in "0,2-3".

    version: names the offer together with its functions; None: the digest of their source.
    embedded: the agent belongs to a keeper: chunks may name modules, source is watched.
    sys_path, cwd: of the workers. withdraw_grace: seconds that the worker of a chunk that is no
    longer wanted has to end. recycle_*: chunks, seconds and bytes after which a worker's
    successor is started; it goes when that is ready. nice: added to the workers' niceness.
    local: the offer of sealed chunks, see ``seals``. code: where to write down which source the
    workers have loaded, for who seals. start_timeout: seconds that the import of a caller's module
    may take, and a function to load what it needs, at its first call in a worker, beside the
    timeout of its item.
    """

    pool: str
    setup: Setup
    sys_path: tuple[str, ...]
    cwd: str
    cores: str | int | None = None
    version: str | None = None
    embedded: bool = False
    reload: bool = False
    withdraw_grace: float = 0.5
    recycle_chunks: int | None = None
    recycle_age: float | None = None
    recycle_memory: int | None = None
    nice: int = 0
    work_storage: str = "memory"
    work_replicas: int = 0
    work_max_messages: int = 100_000
    work_max_bytes: int = 1 << 30
    start_timeout: float = 60.0
    local: str = ""
    code: str | None = None
    host: str = field(default="")
