"""Presence: what agents announce of themselves, their workers and functions."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .messages import FunctionRef, understands


class FunctionInfo(msgspec.Struct, frozen=True):
    """A function as workers offer it; schemas are JSON Schema documents.

    untyped: which of item, value and kwargs have a part without an annotation; for these the
    workers understand the format "python". retries: calls for an item after the first one, while
    the function raises. refusal: where it was decorated, and why it cannot be called: it has a type
    that cannot travel, and no schemas; empty: it can.
    """

    name: str
    doc: str = ""
    item: dict[str, Any] = {}
    value: dict[str, Any] = {}
    kwargs: dict[str, Any] = {}
    timeout: float | None = None
    attempts: int | None = None
    module: str = ""
    untyped: list[str] = []
    retries: int = 0
    refusal: str = ""


class CoreStatus(msgspec.Struct, frozen=True):
    """A worker as ``GET /workers`` and ``jetmap status`` show it.

    cpu: the core it is pinned to, or None. seconds: time in ``state``.
    """

    pid: int | None
    cpu: int | None
    state: Literal["starting", "idle", "busy", "failed"]
    function: str | None = None
    map: str | None = None
    seconds: float = 0.0
    chunks: int = 0


class Presence(msgspec.Struct, frozen=True):
    """An agent's announcement, every two seconds and when something changes.

    offer: the digest that names the queue group; empty: it takes no chunks. rank: the broker's
    revision of the offer, which orders versions without a clock. pending: chunks that wait in the
    main lane. failure: why the workers cannot start, or None. trusts: whether chunks may name a
    function by its location, or carry it. local: the offer whose chunks may do so if they carry
    the seal of this agent's user; empty: none. broken: callers' modules and scripts that the
    workers cannot import, and functions whose loaders fail (``loader_home``), each with the reason.
    python, packages: the workers' versions; empty in
    announcements of older agents. items, crashes, recycled, start_failures: counters since the
    agent started, see ``jetmap.wire.counts``. machine: the boot id of its host. protocol,
    oldest_protocol: the protocol that the agent speaks, and the oldest that it understands.
    memory, memory_limit: bytes that its workers use, and those of the host or its cgroup; 0:
    unknown. loading: the ``per_worker`` loader that a worker is in before it is ready, or empty.
    memory_kills: workers that the kernel killed for want of memory.
    round_trip: seconds from the agent to its broker and back; 0: not measured. memory_socket: the
    abstract socket where dispatchers of its host introduce themselves; empty: it shares no memory.
    """

    agent: str
    host: str
    pid: int
    pool: str
    offer: str
    version: str
    rank: int
    cores: int
    ready: int
    busy: int
    draining: bool
    gone: bool
    functions: list[FunctionInfo]
    workers: list[CoreStatus]
    pending: int = 0
    embedded: bool = False
    failure: str | None = None
    trusts: bool = False
    local: str = ""
    broken: dict[str, str] = {}
    python: str = ""
    packages: dict[str, str] = {}
    items: list[tuple[str, str, int]] = []
    crashes: list[tuple[str, str, int]] = []
    recycled: int = 0
    start_failures: int = 0
    machine: str = ""
    protocol: int = 1
    oldest_protocol: int = 1
    memory: int = 0
    memory_limit: int = 0
    memory_kills: int = 0
    round_trip: float = 0.0
    loading: str = ""
    memory_socket: str = ""


class PresenceHead(msgspec.Struct, frozen=True):
    """The part of an announcement that every protocol has."""

    agent: str
    host: str
    protocol: int = 1
    oldest_protocol: int = 1
    packages: dict[str, str] = {}
    gone: bool = False


def loader_home(function: str, ref: FunctionRef | None, module: str = "") -> str:
    """Name a function in ``Presence.broken``, where its loaders fail.

    ref: where workers find it, if a caller brings it. module: its module, if workers offer it.
    """
    if ref is not None:
        module = ref.digest if ref.value is not None else ref.path or ref.module
    return f"{module}:{function}()"


_presence = msgspec.msgpack.Decoder(Presence).decode
_presence_head = msgspec.msgpack.Decoder(PresenceHead).decode


def read_presence(data: bytes) -> Presence:
    """Decode an announcement; from one of another protocol, only who sent it.

    Raises msgspec.DecodeError if it is malformed.
    """
    try:
        return _presence(data)
    except msgspec.ValidationError:
        head = _presence_head(data)
        if understands(head.protocol, head.oldest_protocol):
            raise
        return Presence(
            agent=head.agent,
            host=head.host,
            pid=0,
            pool="",
            offer="",
            version="",
            rank=0,
            cores=0,
            ready=0,
            busy=0,
            draining=False,
            gone=head.gone,
            functions=[],
            workers=[],
            packages=head.packages,
            protocol=head.protocol,
            oldest_protocol=head.oldest_protocol,
        )
