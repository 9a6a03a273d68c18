"""Presence: what agents announce of themselves, their workers and functions."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from .messages import FunctionRef, WireMessage
from .protocol import understands

CoreState = Literal["starting", "idle", "busy", "failed"]
Counts = list[tuple[str, str, int]]

# Bytes of ``Presence.cells``: the state of a core that does not compute, else FIRST_RUNNING and the
# number of its function in ``Presence.running``; LAST_RUNNING stands for all functions beyond it.
RESTING: tuple[CoreState, ...] = ("starting", "idle", "failed")
FIRST_RUNNING = len(RESTING)
LAST_RUNNING = 255
# MessagePack of an empty list, and bytes of the last field of an announcement, its time.
EMPTY = msgspec.Raw(b"\x90")
TIME_BYTES = 8


class FunctionInfo(msgspec.Struct, frozen=True):
    """A function as workers offer it; schemas are JSON Schema documents.

    untyped: which of item, value and kwargs have a part without an annotation; for these the
    workers understand the format "python". retries: calls for an item after the first one, while
    the function raises. refusal: where it was decorated, and why it cannot be called: it has a type
    that cannot travel, and no schemas; empty: it can. batch: items of one call of a function that
    takes a list; 0: it takes a single item. linger: seconds that a batch waits for more items.
    max_parallel: cores that it may use at most, over the whole pool.
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
    batch: int = 0
    linger: float = 0.0
    max_parallel: int | None = None


class CoreStatus(msgspec.Struct, frozen=True):
    """A worker as ``GET /workers`` and ``jetmap status`` show it.

    cpu: the core it is pinned to, or None. seconds: time in ``state``.
    """

    pid: int | None
    cpu: int | None
    state: CoreState
    function: str | None = None
    map: str | None = None
    seconds: float = 0.0
    chunks: int = 0


class CoreDetail(WireMessage):
    """The part of a core that ``Presence.cells`` leaves out.

    since: when its state began, by ``now``.
    """

    pid: int | None
    cpu: int | None
    map: str | None
    since: float
    chunks: int


class Presence(msgspec.Struct, omit_defaults=True):
    """An agent's announcement, every two seconds and when something changes.

    What only some readers want stays undecoded until they ask: ``workers`` and ``items``. Functions
    are announced when they change and when a ``Ping`` asks for them; otherwise by their digest.

    offer: the digest that names the queue group; empty: it takes no chunks. rank: the broker's
    revision of the offer, which orders versions without a clock. pending: chunks that wait in the
    main lane. failure: why the workers cannot start, or None. trusts: whether chunks may name a
    function by its location, or carry it. local: the offer whose chunks may do so if they carry
    the seal of this agent's user; empty: none. broken: callers' modules and scripts that the
    workers cannot import, and functions whose loaders fail (``loader_home``), each with the reason.
    python, packages: the workers' versions; empty in
    announcements of older agents. crashes, recycled, start_failures: counters since the
    agent started, see ``jetmap.wire.counts``. machine: the boot id of its host. protocol,
    oldest_protocol: the protocol that the agent speaks, and the oldest that it understands.
    memory, memory_limit: bytes that its workers use, and those of the host or its cgroup; 0:
    unknown. loading: the ``per_worker`` loader that a worker is in before it is ready, or empty.
    memory_kills: workers that the kernel killed for want of memory.
    round_trip: seconds from the agent to its broker and back; 0: not measured. memory_socket: the
    abstract socket where dispatchers of its host introduce themselves; empty: it shares no memory.
    room: bytes of the largest value that could be put on its host; negative: unknown.

    functions: may be empty where ``digest`` names them. listed: the cores, for and from releases
    before DIGEST_PROTOCOL. running: functions that cores compute now. cells: one byte a core, its
    state or function. details: a ``CoreDetail`` for each core; empty if it would be too large.
    now: the agent's own clock, which counts from anywhere.
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
    listed: list[CoreStatus] = msgspec.field(name="workers")
    pending: int = 0
    embedded: bool = False
    failure: str | None = None
    trusts: bool = False
    local: str = ""
    broken: dict[str, str] = {}
    python: str = ""
    packages: dict[str, str] = {}
    counted: msgspec.Raw = msgspec.field(name="items", default=EMPTY)
    crashes: Counts = []
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
    digest: str = ""
    running: list[str] = []
    cells: bytes = b""
    details: msgspec.Raw = EMPTY
    room: int = -1
    now: float = 0.0

    def __post_init__(self) -> None:
        if self.listed and not self.cells:
            cores = ((core.state, core.function) for core in self.listed)
            self.running, self.cells = pack_cells(cores)

    @property
    def items(self) -> Counts:
        """Outcomes since the agent started, by function and kind."""
        return _counts(self.counted)

    @property
    def workers(self) -> list[CoreStatus]:
        """Each core; empty for an agent with more than fit into a message."""
        if self.listed:
            return self.listed
        found = []
        for cell, core in zip(self.cells, _details(self.details), strict=False):
            function = None
            state: CoreState = "busy"
            if cell < FIRST_RUNNING:
                state = RESTING[cell]
            else:
                function = self.running[cell - FIRST_RUNNING]
            seconds = round(max(0.0, self.now - core.since), 3)
            found.append(
                CoreStatus(core.pid, core.cpu, state, function, core.map, seconds, core.chunks)
            )
        return found


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


def pack_cells(cores: Iterable[tuple[CoreState, str | None]]) -> tuple[list[str], bytes]:
    """Return ``Presence.running`` and ``Presence.cells`` for cores: states and functions."""
    numbers: dict[str, int] = {}
    cells = bytearray()
    for state, function in cores:
        if state == "busy":
            number = numbers.setdefault(function or "", FIRST_RUNNING + len(numbers))
            cells.append(min(number, LAST_RUNNING))
        else:
            cells.append(RESTING.index(state))
    return list(numbers)[: LAST_RUNNING - FIRST_RUNNING + 1], bytes(cells)


def offer_digest(functions: Mapping[str, FunctionInfo]) -> str:
    """Return the digest that stands for functions in announcements; empty for none."""
    if not functions:
        return ""
    content = msgspec.msgpack.encode([functions[name] for name in sorted(functions)])
    return hashlib.sha256(content).hexdigest()[:16]


def differ_in_time(data: bytes, last: bytes) -> bool:
    """Return whether two announcements with a time at their end are the same otherwise."""
    return data[:-TIME_BYTES] == last[:-TIME_BYTES]


def at_time(data: bytes, now: float) -> bytes:
    """Return an announcement that ends with a time, at another time."""
    return data[:-TIME_BYTES] + _time.pack(now)


def time_of(data: bytes) -> float:
    """Return the time at the end of an announcement."""
    (now,) = _time.unpack_from(data, len(data) - TIME_BYTES)
    return float(now)


_time = struct.Struct(">d")
_counts = msgspec.msgpack.Decoder(Counts).decode
_details = msgspec.msgpack.Decoder(list[CoreDetail]).decode
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
            listed=[],
            packages=head.packages,
            protocol=head.protocol,
            oldest_protocol=head.oldest_protocol,
        )
