"""Messages of maps: between dispatcher and agent over NATS, agent and worker over a pipe.

All are MessagePack arrays (``array_like``), so that a field costs no name. A field may only
be added at the end, with a default. Items and values are bytes in the caller's format and
are passed on undecoded; only the worker and the caller decode them. Which changes need another
version is in ``protocol.py``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# Bytes of an announcement without functions, of an agent or a dispatcher; beyond that, sums.
ANNOUNCEMENT_BYTES = 256 << 10
# The first byte of keyword parameters that have constants among them (``wire/constants.py``).
CONSTANTS_MARK = b"\xc1"
# Bytes of one part, and of items or values that travel in their message; less if the broker's
# messages are smaller.
PART_BYTES = 512 << 10
# Bytes of items or values above which they go through shared memory, within one host; below, the
# bookkeeping costs more than the copies. Chunks and reports are larger there, by the factor.
SHARE_BYTES = 32 << 10
SHARED_FACTOR = 4

# python: MessagePack whose extensions keep the types of values without an annotation.
# pickle: MessagePack in which values without an annotation are pickled (see ``runs``), between a
# caller and workers that trust each other.
Format = Literal["json", "msgpack", "python", "pickle"]
Lane = Literal["express", "main"]

_NIL, _NOTHING = msgspec.Raw(b"\xc0"), msgspec.Raw(b"\xc4\x00")
# Bytes of an undecoded field of bytes that has none.
EMPTY_BYTES = len(_NOTHING)


class WireMessage(msgspec.Struct, array_like=True, omit_defaults=False, gc=False):
    """The base of everything that travels."""


class FunctionRef(WireMessage):
    """Directions to a function, for a worker that trusts its callers and has not imported it yet.

    path: the file of a ``__main__`` script, else None. value: the cloudpickled function, if the
    worker has no file of it. digest: of the source (or of the value); a worker that loaded another
    one is replaced before it computes. file: the module's file, if the worker may have another
    module of that name, or a path that does not lead to it. pickles: the versions that can read
    the value, and pickled items. An empty module says no more than that: the worker has the
    function by its name. items: whether items are pickled, which agents before
    ``PICKLES_PROTOCOL`` do not read.
    """

    module: str
    qualname: str
    path: str | None = None
    value: bytes | None = None
    digest: str = ""
    file: str | None = None
    pickles: str = ""
    items: bool = False


class Region(WireMessage):
    """A region of memory that processes of one host share.

    generation: the number at its start, for as long as it is this one.
    """

    offset: int
    size: int
    generation: int


class Place(WireMessage):
    """The place of a chunk's items that do not travel with it.

    inbox: of the dispatcher that holds them until the chunk ends. size: their bytes. region: in
    the memory of that dispatcher, for workers of its host.
    """

    inbox: str
    size: int
    region: Region | None = None


class ValuesPlace(WireMessage):
    """The region of a report's values in one of its agent's arenas."""

    arena: int
    region: Region


class BatchTerms(WireMessage):
    """The terms on which a chunk's items share a call with those of other chunks.

    size: items of a call, at most. linger: seconds that a call with fewer items waits for more.
    """

    size: int
    linger: float


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


class ArrivedHead(ChunkHead):
    """The part that an agent reads of a chunk that arrives.

    Items, kwargs, ref, seal and at stay encoded.
    """

    items: msgspec.Raw
    kwargs: msgspec.Raw = _NOTHING
    ref: msgspec.Raw = _NIL
    seal: msgspec.Raw = _NOTHING
    each: float = 0.0
    protocol: int = 1
    causes: bool = False
    tries: int = -1
    at: msgspec.Raw = _NIL
    values: bool = True
    traceparent: str = ""
    batch: BatchTerms | None = None
    stretches: bool = False

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the items are at the chunk's ``at``: empty ones take two bytes."""
        return len(self.items) == 2


class Chunk(ChunkHead):
    """Consecutive items of one map.

    items: one encoded array of ``count`` items. kwargs: an encoded object, or nothing. seal:
    proof that ``ref`` comes from the user of a `jetmap up`, on its machine (see ``seals``). each:
    seconds that the budget grows with every item begun. protocol: what the dispatcher speaks.
    causes: whether the caller unpickles exceptions. tries: earlier tries of these items, which
    all raised; -1: the dispatcher cannot send them once more. at: where the items are; then
    ``items`` is empty. values: whether the function's values are wanted; else null is reported.
    traceparent: the span that the chunk belongs to, as W3C Trace Context writes it; empty: none.
    batch: None if its items share no call with those of other chunks. stretches: whether the worker
    may enter several tiny items at once; its death then names no single one.
    """

    items: bytes
    kwargs: bytes = b""
    ref: FunctionRef | None = None
    seal: bytes = b""
    each: float = 0.0
    protocol: int = 1
    causes: bool = False
    tries: int = -1
    at: Place | None = None
    values: bool = True
    traceparent: str = ""
    batch: BatchTerms | None = None
    stretches: bool = False


class Together(WireMessage):
    """A request of an agent to compute the next ``count`` chunks of the pipe in shared calls.

    skip: items of the first chunk that have their outcome already. runs: how many of the items,
    in the order of the chunks, may share calls with each other; together they are all that is left.
    A run of more than one call's items takes several calls.
    """

    count: int
    skip: int
    runs: list[int]


class Cause(WireMessage):
    """A function's exception.

    classes: its own class and its bases, as "module:qualname", the nearest first. pickled: the
    exception itself, if its caller unpickles it.
    """

    classes: list[str]
    pickled: bytes = b""


class ErrorRecord(WireMessage):
    """The error of one item. index: the item's position in the map's input. cause: if raised.

    The kind "again" is not an outcome: the item is to be sent once more, ``detail["wait"]`` seconds
    later, after ``detail["tries"]`` tries. Such records are in reports without outcomes.
    """

    index: int
    kind: str
    type: str
    message: str
    traceback: str | None = None
    detail: dict[str, Any] | None = None
    cause: Cause | None = None


class Crash(WireMessage):
    """The death of a worker.

    item: the index in the map of the item in progress, or of the first that was entered with it.
    start_seconds: how long such a worker takes to start. items: how many were entered together; one
    of them was in progress.
    """

    item: int | None
    reason: Literal["died", "timeout", "stopped"]
    message: str
    signal: int | None = None
    exit_code: int | None = None
    peak_memory: int | None = None
    host: str = ""
    start_seconds: float = 0.0
    items: int = 1


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
    seconds: float


class Report(ReportHead):
    """Outcomes of ``count`` consecutive items from ``start`` on.

    values: one encoded array of ``count`` values, null where the item failed. errors: a
    record for each failed item. seconds: compute time of these items. final: set on the last
    report of a chunk. stored: for a job, the sequence number under which the agent has stored
    the values, which are then omitted here; size: their bytes. Values with a size that are not
    stored came in parts, before. rest: the items that the chunk gives back while it goes on.
    tries: how many tries these outcomes took. parts: in the store of jobs, the sequence numbers
    of the values' parts. at: where the values are, if in memory that the dispatcher shares.
    """

    values: bytes
    errors: list[ErrorRecord]
    seconds: float
    final: Final | None = None
    stored: int = 0
    size: int = 0
    rest: Rest | None = None
    tries: int = 1
    parts: list[int] = []
    at: ValuesPlace | None = None


class PartRequest(WireMessage):
    """A request of an agent for ``length`` bytes of a chunk's items, from ``offset`` on.

    size: all bytes of the items, as the chunk's ``at`` says.
    """

    map: str
    number: int
    size: int
    offset: int
    length: int


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
    """A chunk of a claim.

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
    """A request to every agent of the pool to announce itself now.

    protocol: the sender's. agent: the only one that is asked, for its functions, too; empty: all.
    shards: the number of work streams that the pool has from now on; 0: unchanged.
    """

    protocol: int = 1
    agent: str = ""
    shards: int = 0


class Withdraw(WireMessage, tag_field="kind", tag="withdraw"):
    """A request to every agent of the pool to stop its chunks of this map."""

    map: str


class Hurry(WireMessage, tag_field="kind", tag="hurry"):
    """A request to every agent of the pool to end long chunks of a map early.

    Somebody else waits for a core. What is being computed ends before its next item, what begins
    later after ``seconds``. The items that were not begun come back.

    chunk: the last chunk that is meant.
    """

    map: str
    chunk: int
    seconds: float


Control = Ping | Withdraw | Hurry


def encode(message: object) -> bytes:
    """Encode any message above as MessagePack."""
    return msgspec.msgpack.encode(message)
