"""The announcement of a dispatcher, every two seconds: its maps, functions, waits and failures.

Nothing in it decides anything: it is for people, metrics and scalers. Times are ages in seconds at
the moment of sending, so that no two clocks are compared. A field may only be added at the end,
with a default.
"""

from __future__ import annotations

import msgspec

from .messages import WireMessage

# Counts by the bins of ``jetmap.wire.counts.LogBins``.
Bins = dict[int, int]


class MapActivity(WireMessage):
    """An open map or job, or one that has ended within ten minutes.

    Attributes:
        kind: "map" or "job".
        total: Items, once known.
        rate: Items a second, over the last beats.
        left: Seconds to its end by that rate; None: unknown.
        cores: Cores at work for it.
        weight: Share of the cores beside other maps.
        limit: Cores that it may use at most.
        waits: Why it does not go faster: "workers", "a limit", "a limit of its function",
            "a pause", "a pause of its function", "a pause of the pool", "its reader", "its input",
            "room", "cores" or "".
        age: Seconds since its start; of a job without a map, since its process has had it.
        oldest: Seconds that its oldest unanswered chunk has been out; before the first chunk, that
            the map has waited. A pause does not count.
        ended: Seconds since its end; None while it is open.
        outcome: How it ended.
    """

    id: str
    function: str
    kind: str
    state: str
    total: int | None
    done: int
    failed: int
    rate: float
    left: float | None
    cores: float
    weight: float
    limit: int | None
    waits: str
    age: float
    oldest: float
    labels: dict[str, str] = {}
    ended: float | None = None
    outcome: str = ""
    seconds: float = 0.0


class FunctionActivity(WireMessage):
    """The items of one function that a dispatcher has had answered.

    Attributes:
        items: Items answered since the dispatcher started.
        seconds: Their seconds of compute.
        rate: Items a second, over the last beats.
        failed: Items that failed.
        bins: Seconds of an item; those of one chunk count as its mean.
        item_bytes: Mean bytes of an item.
        value_bytes: Mean bytes of a value.
        waiting: Items that wait.
        waiting_seconds: Their estimated compute.
    """

    name: str
    items: int
    seconds: float
    rate: float
    failed: int
    bins: Bins
    item_bytes: float
    value_bytes: float
    waiting: int = 0
    waiting_seconds: float = 0.0
    is_known: bool = True


class FailureActivity(WireMessage):
    """Failures of one cause.

    Attributes:
        key: Digest of function, kind, type and message without its numbers.
        message: Message of the first, cut.
        first: Seconds since the first.
        last: Seconds since the latest.
        counts: Failures in each two minutes of the last hour, the latest last.
        hosts: Hosts they happened on, if known; at most eight.
        indexes: Items of the first few.
        job: Job of the latest, if it was one.
    """

    key: str
    function: str
    kind: str
    type: str
    message: str
    count: int
    first: float
    last: float
    counts: list[int]
    hosts: list[str] = []
    indexes: list[int] = []
    job: str = ""


class Activity(WireMessage):
    """Everything that one dispatcher does.

    Attributes:
        sequence: Grows with each announcement, so that a late one is known as such.
        inbox: Subject prefix on which it answers an ``Ask``, as ``<inbox>.ask``.
        owner: Program and host, for people.
        more: Maps that are not listed, because the announcement would be too large.
        more_done, more_total: Sums of their items.
        items: Items with an outcome since it started.
        rate: Items a second, over the last beats.
        express: Seconds that chunks of short maps waited, in the last minute.
        waiting: Items that wait.
        waiting_seconds: Their estimated compute.
        unknown: Items that wait whose cost nobody knows yet.
        refused: Maps refused in the last minute, by reason.
        gone: Whether it is about to end.
    """

    dispatcher: str
    pool: str
    sequence: int
    inbox: str
    owner: str
    host: str
    pid: int
    maps: list[MapActivity]
    functions: list[FunctionActivity]
    failures: list[FailureActivity]
    more: int
    more_done: int
    more_total: int
    items: int
    rate: float
    express: Bins
    waiting: int
    waiting_seconds: float
    unknown: int
    refused: dict[str, int]
    gone: bool = False


class Ask(WireMessage):
    """A request to one dispatcher: a detail to look at, or something to do to one of its maps.

    Attributes:
        what: "announce", "map", "failure", "cancel", "pause", "resume" or "limit".
        id: Id of the map, or key of the failure.
        value: Cores at most, for "limit"; 0: no limit.
    """

    what: str
    id: str = ""
    value: int = 0


class SlowItem(WireMessage):
    """One of the slowest items of a map, or of the chunks of several items.

    Attributes:
        count: Items of its chunk; ``seconds`` is their mean.
        tries: Chunks that held it.
    """

    index: int
    seconds: float
    host: str
    count: int = 1
    attempt: int = 1


class MapDetails(WireMessage):
    """One map, for whoever looks at it.

    Attributes:
        wait: Seconds that its answered chunks waited for a core and travelled.
        compute: Seconds that they computed.
        again: Seconds of compute that were lost, because workers died or chunks ran twice.
        tail: Seconds for which its last items have been out, with none left to send.
        parallel: Cores at work, in equal steps since its start.
        step: Seconds of one step.
        way: Part of ``wait`` that its chunks spent on the way at least: each takes as long as the
            fastest. No two clocks are compared.
    """

    id: str
    wait: float
    compute: float
    again: float
    tail: float
    bins: Bins
    slow: list[SlowItem]
    parallel: list[float]
    step: float
    failures: list[FailureActivity] = []
    way: float = 0.0


class FailureDetails(WireMessage):
    """The first failure of a cause."""

    key: str
    traceback: str | None
    maps: list[str]


class ActivityAnswer(WireMessage):
    """The answer to an ``Ask``: one of these, or why not."""

    map: MapDetails | None = None
    failure: FailureDetails | None = None
    refusal: str = ""


read_activity = msgspec.msgpack.Decoder(Activity).decode
read_ask = msgspec.msgpack.Decoder(Ask).decode
read_answer = msgspec.msgpack.Decoder(ActivityAnswer).decode
