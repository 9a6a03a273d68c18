"""Messages: between dispatcher and agent over NATS, between agent and worker over a pipe.

All are MessagePack arrays (``array_like``), so that a field costs no name. A field may only
be added at the end, with a default. Items and values are bytes in the caller's format and
are passed on undecoded; only the worker and the caller decode them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# The protocol of this release, and the oldest that it understands. Raise PROTOCOL with every change
# that the other side must know about; a new last field with a default is not one. Raise
# OLDEST_PROTOCOL to drop support for older releases: their agents and dispatchers are then refused
# by name. Announcements and chunks without a number have protocol 1, from before the number.
PROTOCOL = 2
OLDEST_PROTOCOL = 1

# python: MessagePack whose extensions keep the types of values without an annotation.
Format = Literal["json", "msgpack", "python"]
Lane = Literal["express", "main"]


class WireMessage(msgspec.Struct, array_like=True, omit_defaults=False, gc=False):
    """The base of everything that travels."""


class FunctionRef(WireMessage):
    """Directions to a function, for a worker that trusts its callers and has not imported it yet.

    path: the file of a ``__main__`` script, else None. value: the cloudpickled function, if the
    worker has no file of it. digest: of the source (or of the value); a worker that loaded another
    one is replaced before it computes. file: the module's file, if the worker may have another
    module of that name, or a path that does not lead to it. pickles: the versions that can read
    the value.
    """

    module: str
    qualname: str
    path: str | None = None
    value: bytes | None = None
    digest: str = ""
    file: str | None = None
    pickles: str = ""


class ChunkHead(WireMessage):
    """The part of a chunk that an agent reads: everything but its items.

    start, count: the items' positions in the map. inbox: the dispatcher's inbox. timeout:
    seconds an item may compute. budget: seconds after which the worker hands back the items
    that it has not begun.
    """

    map: str
    number: int
    attempt: int
    function: str
    format: Format
    start: int
    count: int
    inbox: str
    timeout: float | None
    budget: float


class Chunk(ChunkHead):
    """Consecutive items of one map.

    items: one encoded array of ``count`` items. kwargs: an encoded object, or nothing. seal:
    proof that ``ref`` comes from the user of a `jetmap up`, on its machine (see ``seals``). each:
    seconds that the budget grows with every item begun. protocol: what the dispatcher speaks.
    """

    items: bytes
    kwargs: bytes = b""
    ref: FunctionRef | None = None
    seal: bytes = b""
    each: float = 0.0
    protocol: int = 1


class ErrorRecord(WireMessage):
    """The error of one item. index: the item's position in the map's input."""

    index: int
    kind: str
    type: str
    message: str
    traceback: str | None = None
    detail: dict[str, Any] | None = None


class Crash(WireMessage):
    """The death of a worker.

    item: the index in the map of the item in progress. start_seconds: how long such a worker takes
    to start.
    """

    item: int | None
    reason: Literal["died", "timeout", "stopped"]
    message: str
    signal: int | None = None
    exit_code: int | None = None
    peak_memory: int | None = None
    host: str = ""
    start_seconds: float = 0.0


class Final(WireMessage):
    """The end of a chunk: items before ``end`` are reported, the others were not computed."""

    end: int
    crash: Crash | None = None


class Rest(WireMessage):
    """Items that a chunk gives back while it goes on.

    They begin at ``start`` and are not begun; the chunk has computed for ``seconds`` and is still
    in the item before them.
    """

    start: int
    seconds: float


class ReportHead(WireMessage):
    """The part of a report that an agent reads: its items' positions."""

    map: str
    number: int
    attempt: int
    start: int
    count: int


class ErrorKind(WireMessage):
    """The part of an item's error that an agent reads."""

    index: int
    kind: str


class ReportCounts(ReportHead):
    """The part of a report that an agent reads to count outcomes; values stay encoded."""

    values: msgspec.Raw
    errors: list[ErrorKind]


class Report(ReportHead):
    """Outcomes of ``count`` consecutive items from ``start`` on.

    values: one encoded array of ``count`` values, null where the item failed. errors: a
    record for each failed item. seconds: compute time of these items. final: set on the last
    report of a chunk. stored: for a job, the sequence number under which the agent has stored
    the values, which are then omitted here; size: their bytes. rest: the items that the chunk
    gives back while it goes on.
    """

    values: bytes
    errors: list[ErrorRecord]
    seconds: float
    final: Final | None = None
    stored: int = 0
    size: int = 0
    rest: Rest | None = None


class Delivery(WireMessage):
    """Reports on their way from an agent to a dispatcher.

    inbox: where the dispatcher confirms ``token``. pending: the consumer's backlog when the
    chunk was delivered (-1: the express lane, where it says nothing).
    """

    agent: str
    inbox: str
    token: int
    pending: int
    reports: list[Report]


class ForwardedDelivery(WireMessage):
    """A ``Delivery`` whose reports are passed on as the worker encoded them."""

    agent: str
    inbox: str
    token: int
    pending: int
    reports: list[msgspec.Raw]


class ClaimEntry(WireMessage):
    """What a claim says of one chunk.

    item: the one in progress, or None. deliveries: how many times the broker has delivered it.
    """

    map: str
    number: int
    attempt: int
    item: int | None = None
    deliveries: int = 1


class Claim(WireMessage):
    """The chunks that an agent holds for one dispatcher, which answers to ``inbox``."""

    agent: str
    host: str
    inbox: str
    sequence: int
    chunks: list[ClaimEntry]


ChunkKey = tuple[str, int]  # A chunk: its map's id and its number.


class ClaimAnswer(WireMessage, tag_field="kind", tag="claim"):
    """The chunks of a claim that are no longer wanted."""

    dispatcher: str
    sequence: int
    unwanted: list[ChunkKey]


class Confirmation(WireMessage, tag_field="kind", tag="confirm"):
    """Tokens of the deliveries that the dispatcher has accepted."""

    tokens: list[int]


AgentMail = ClaimAnswer | Confirmation


class Ping(WireMessage, tag_field="kind", tag="ping"):
    """A request to every agent of the pool to announce itself now."""


class Withdraw(WireMessage, tag_field="kind", tag="withdraw"):
    """A request to every agent of the pool to stop its chunks of this map."""

    map: str


Control = Ping | Withdraw


class FunctionInfo(msgspec.Struct, frozen=True):
    """A function as workers offer it; schemas are JSON Schema documents.

    untyped: which of item, value and kwargs have a part without an annotation; for these the
    workers understand the format "python".
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
    workers cannot import, each with the reason. python, packages: the workers' versions; empty in
    announcements of older agents. items, crashes, recycled, start_failures: counters since the
    agent started, see ``jetmap.wire.counts``. machine: the boot id of its host. protocol,
    oldest_protocol: the protocol that the agent speaks, and the oldest that it understands.
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


class PresenceHead(msgspec.Struct, frozen=True):
    """The part of an announcement that every protocol has."""

    agent: str
    host: str
    protocol: int = 1
    oldest_protocol: int = 1
    packages: dict[str, str] = {}
    gone: bool = False


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame to a worker: what to import, and its limits.

    tasks: ``TASKS`` arguments. modules: dotted names. main: the path of a script whose
    functions live in ``__main__``. trust: whether chunks may name modules or carry pickles.
    grows: whether functions that chunks brought are offered by name from then on (embedded). key:
    chunks sealed with it may name modules and carry pickles, too; empty: none may. output_bytes:
    the most that it may print a second. log_level: for functions that configure no logging.
    """

    tasks: list[str] = []
    modules: list[str] = []
    main: str | None = None
    trust: bool = False
    memory_limit: int | None
    max_value: int
    max_report: int
    grows: bool = False
    key: bytes = b""
    output_bytes: int
    log_level: str


class Ready(msgspec.Struct, frozen=True):
    """A worker's answer to ``Setup``, again when it has imported more.

    source: digest of the source files that it loaded; files: their paths, to watch; digests: one
    for each file. more: it takes no chunks yet, because it is still importing ``modules``.
    """

    functions: list[FunctionInfo]
    source: str
    files: list[str]
    digests: list[str] = []
    more: bool = False


class Importing(msgspec.Struct, frozen=True):
    """Notice that a worker imports a module (by name) or a script (by path) for its callers.

    home: empty once it has done so. file: its path, if known.
    """

    home: str = ""
    file: str = ""


class Broken(msgspec.Struct, frozen=True):
    """A module or script that a worker cannot import, and why. files: to watch for changes."""

    home: str
    text: str
    files: list[str] = []


class StartFailed(msgspec.Struct, frozen=True):
    """The exception that kept a worker from importing its functions.

    files: those whose change may mend it.
    """

    type: str
    message: str
    traceback: str
    files: list[str] = []


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


def understands(protocol: int, oldest: int = OLDEST_PROTOCOL) -> bool:
    """Whether this release works with one that speaks ``protocol`` and understands ``oldest``."""
    return protocol >= OLDEST_PROTOCOL and oldest <= PROTOCOL


def encode(message: object) -> bytes:
    """Encode any message above as MessagePack."""
    return msgspec.msgpack.encode(message)
