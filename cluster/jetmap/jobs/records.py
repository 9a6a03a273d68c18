"""What is stored of a job. All times are seconds since 1970, by the clock of who wrote them."""

from __future__ import annotations

from typing import Literal

import msgspec

from jetmap.messages import Format

State = Literal[
    "uploading", "queued", "running", "succeeded", "failed", "cancelled", "expired", "deleted"
]
OVER: frozenset[State] = frozenset(("succeeded", "failed", "cancelled", "expired", "deleted"))


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job's state, one message in the state stream.

    owner: the dispatcher that carries it, or nobody. epoch: grows with each owner; it is part
    of the work subjects. caller: who submitted it. key: of its idempotency record; digest: of
    its function, parameters and items. total: items, once all are stored. parts, input_bytes:
    messages and bytes of its input. reserved: bytes of the store that
    are kept for its input and outcomes; stored: that they take. ttl: seconds that it is kept
    after its end. timeout: seconds for the whole job, while somebody carries it; elapsed: those
    that have passed, each owner's by its own clock. reason: why it failed. is_fixed: its
    submitter has said how much to reserve, and it gets no more. claimed: bytes of ``reserved``
    that this record asks for, and that were not granted before it.
    """

    id: str
    function: str
    format: Format
    state: State = "uploading"
    kwargs: bytes = b""
    caller: str = ""
    key: str = ""
    owner: str = ""
    epoch: int = 0
    digest: str = ""
    total: int | None = None
    parts: int = 0
    input_bytes: int = 0
    done: int = 0
    failed: int = 0
    reserved: int = 0
    stored: int = 0
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    updated: float = 0.0
    ttl: float = 0.0
    timeout: float | None = None
    elapsed: float = 0.0
    reason: str | None = None
    is_fixed: bool = False
    claimed: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in OVER

    @property
    def rate(self) -> float | None:
        """Items a second since the start; None before the first."""
        if self.started is None or not self.done:
            return None
        until = self.finished if self.finished is not None else self.updated
        return self.done / max(1e-3, until - self.started)

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the rate; None while nothing is known, 0 when it is over."""
        if self.is_over:
            return 0.0
        rate = self.rate
        return None if rate is None or self.total is None else (self.total - self.done) / rate


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An idempotency key. owner: the dispatcher that uploads, or did."""

    job: str
    owner: str


class Part(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Consecutive items of a job's input: one message of the input stream.

    items: one encoded array of ``count`` items.
    """

    start: int
    count: int
    items: bytes
