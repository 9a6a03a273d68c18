"""What travels: between dispatcher and agent over NATS, between agent and worker over a pipe.

All are MessagePack arrays (``array_like``), so that a field costs no name. A field may only
be added at the end, with a default. Items and values are bytes in the caller's format and
are passed on undecoded; only the worker and the caller decode them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# What this release speaks, and the oldest that it still understands. Raise PROTOCOL with every
# change that the other side must know of; a field at the end with a default is not one. Raise
# OLDEST_PROTOCOL when support for older releases is dropped: agents and dispatchers of those are
# then refused by name. Announcements and chunks without a number are of 1, before there was one.
PROTOCOL = 2
OLDEST_PROTOCOL = 1

# python: MessagePack whose extensions keep the types of values without an annotation.
Format = Literal["json", "msgpack", "python"]
Lane = Literal["express", "main"]


class Message(msgspec.Struct, array_like=True, omit_defaults=False, gc=False):
    """The base of everything that travels."""


class FunctionRef(Message):
    """Where a worker that trusts its callers finds a function that it has not imported yet.

    path: the file of a ``__main__`` script, else None. value: the cloudpickled function, for
    one that has no file (there). digest: of the source (or of the value): a worker that loaded
    another one is replaced before it computes. file: of the module, where the worker may have
    another module of that name, or a path that does not lead to it. pickles: the versions that
    can read the value.
    """

    module: str
    qualname: str
    path: str | None = None
    value: bytes | None = None
    digest: str = ""
    file: str | None = None
    pickles: str = ""


class ChunkHead(Message):
    """What an agent reads of a chunk: all but its items.

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


class ErrorRecord(Message):
    """The error of one item. index: the item's position in the map's input."""

    index: int
    kind: str
    type: str
    message: str
    traceback: str | None = None
    detail: dict[str, Any] | None = None


class Crash(Message):
    """How a worker died. item: the index in the map of the item that it was in. start_seconds:
    that such a worker takes to start."""

    item: int | None
    reason: Literal["died", "timeout", "stopped"]
    message: str
    signal: int | None = None
    exit_code: int | None = None
    peak_memory: int | None = None
    host: str = ""
    start_seconds: float = 0.0


class Final(Message):
    """Ends a chunk: items before ``end`` have been reported, the others were not computed."""

    end: int
    crash: Crash | None = None


class Rest(Message):
    """The items from ``start`` on are not begun and run elsewhere: their chunk has computed for
    ``seconds`` and is still in the item before."""

    start: int
    seconds: float


class ReportHead(Message):
    """What an agent reads of a report: which items it is about."""

    map: str
    number: int
    attempt: int
    start: int
    count: int


class ErrorKind(Message):
    """What an agent reads of an item's error."""

    index: int
    kind: str


class ReportCounts(ReportHead):
    """What an agent reads of a report to count outcomes, the values undecoded."""

    values: msgspec.Raw
    errors: list[ErrorKind]


class Report(ReportHead):
    """Outcomes of ``count`` consecutive items from ``start`` on.

    values: one encoded array of ``count`` values, null where the item failed. errors: a
    record for each failed item. seconds: compute time of these items. final: set on the last
    report of a chunk. stored: for a job, the sequence number under which the agent has stored
    the values, which are then left out here; size: their bytes. rest: the items that the chunk
    gives back while it goes on.
    """

    values: bytes
    errors: list[ErrorRecord]
    seconds: float
    final: Final | None = None
    stored: int = 0
    size: int = 0
    rest: Rest | None = None


class Delivery(Message):
    """Reports as an agent sends them.

    inbox: where the dispatcher confirms ``token``. pending: the consumer's backlog when the
    chunk was delivered (-1: the express lane, which says nothing of the backlog).
    """

    agent: str
    inbox: str
    token: int
    pending: int
    reports: list[Report]


class ForwardedDelivery(Message):
    """A ``Delivery`` whose reports are passed on as the worker encoded them."""

    agent: str
    inbox: str
    token: int
    pending: int
    reports: list[msgspec.Raw]


class ClaimedChunk(Message):
    """A chunk that an agent holds. item: the one in progress, or None. deliveries: how often the
    broker has delivered it."""

    map: str
    number: int
    attempt: int
    item: int | None = None
    deliveries: int = 1


class Claim(Message):
    """What an agent holds of one dispatcher; answered by a ``ClaimAnswer`` to ``inbox``."""

    agent: str
    host: str
    inbox: str
    sequence: int
    chunks: list[ClaimedChunk]


class ClaimAnswer(Message, tag_field="kind", tag="claim"):
    """The chunks of that claim that are no longer wanted, as (map, number)."""

    dispatcher: str
    sequence: int
    unwanted: list[tuple[str, int]]


class Confirmation(Message, tag_field="kind", tag="confirm"):
    """Tokens of deliveries that the dispatcher has taken over."""

    tokens: list[int]


AgentMail = ClaimAnswer | Confirmation


class Ping(Message, tag_field="kind", tag="ping"):
    """Asks every agent of the pool to announce itself now."""


class Withdraw(Message, tag_field="kind", tag="withdraw"):
    """Asks every agent of the pool to stop what it holds of this map."""

    map: str


Control = Ping | Withdraw


class FunctionInfo(msgspec.Struct, frozen=True):
    """A function as workers offer it; schemas are JSON Schema documents.

    untyped: those of item, value and kwargs that have a part without an annotation, for which
    these workers understand the format "python".
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

    cpu: the core that it is pinned to, or None. seconds: how long it has been in ``state``.
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
    revision of the offer, which orders versions without a clock. pending: chunks that wait in
    the main lane. failure: why the workers cannot start, or None. trusts: chunks may name a
    function where it lives, or carry it. local: the offer whose chunks may do so if they carry
    the seal of this agent's user; empty: there is none. broken: modules and scripts of callers
    that the workers cannot import, and why. python, packages: versions of its workers; empty
    in announcements of older agents. items, crashes, recycled, start_failures: counters since the
    agent started, see ``jetmap.wire.counts``. machine: the boot id of its host. protocol,
    oldest_protocol: what the agent speaks, and the oldest that it understands.
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


class Setup(msgspec.Struct, frozen=True):
    """The first frame to a worker: what to import, and how.

    tasks: ``TASKS`` arguments. modules: dotted names. main: the path of a script whose
    functions live in ``__main__``. trust: whether chunks may name modules or carry pickles.
    grows: whether what they brought is offered by its name from then on (embedded). key: chunks
    sealed with it may name modules and carry pickles, too; empty: there is no such key.
    output_bytes: that it may print a second. log_level: of functions that configure no logging.
    """

    tasks: list[str] = []
    modules: list[str] = []
    main: str | None = None
    trust: bool = False
    memory_limit: int | None = None
    max_value: int = 900_000
    max_report: int = 262_144
    report_seconds: float = 0.1
    grows: bool = False
    key: bytes = b""
    output_bytes: int = 1 << 20
    log_level: str = "info"


class Ready(msgspec.Struct, frozen=True):
    """A worker's answer to ``Setup``, again when it has imported more.

    source: digest of the source files that it loaded; files: their paths, to watch; digests: of
    each of these files. more: it takes no chunks yet, because it still imports ``modules``.
    """

    functions: list[FunctionInfo]
    source: str
    files: list[str]
    digests: list[str] = []
    more: bool = False


class Importing(msgspec.Struct, frozen=True):
    """A worker imports a module (by name) or a script (by path) for its callers; no home: it has
    done so. file: where it lies, if that is known."""

    home: str = ""
    file: str = ""


class Broken(msgspec.Struct, frozen=True):
    """A module or script that a worker cannot import, and why. files: to watch for changes."""

    home: str
    text: str
    files: list[str] = []


class StartFailed(msgspec.Struct, frozen=True):
    """Why a worker could not import its functions."""

    type: str
    message: str
    traceback: str


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
    """MessagePack bytes of any message above."""
    return msgspec.msgpack.encode(message)
