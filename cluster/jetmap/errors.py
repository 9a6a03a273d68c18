"""Every error that jetmap raises, under one root.

What to do about an error is its family: ``Retryable`` (try again later), ``BadInput`` (change the
call, its items or the configuration) or ``Fault`` (something broke; look at the cause). An error
belongs to exactly one family. ``ItemError``, ``JobError`` and ``LimitExceeded`` group errors by
subject; their subclasses have the family.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar


class JetmapError(Exception):
    """The root of every error that jetmap raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made again from its args alone, without what was named.
        return _restore, (self.__class__, self.args, self.__dict__)


class Retryable(JetmapError):
    """Family: the same call may succeed later, without a change.

    Attributes:
        retry_after: Seconds to wait before the next attempt; None if nobody can tell.
    """

    retry_after: float | None = 1.0


class BadInput(JetmapError):
    """Family: the same call fails again until the caller changes it, its items or its settings."""


class Fault(JetmapError):
    """Family: the function, a worker, the store or the server failed; look at the cause."""


class ItemError(JetmapError):
    """One item has no value. Groups the errors of items; the subclasses have a family.

    Attributes:
        index: The item's position in the input, from 0.
        kind: "raised", "invalid", "timeout", "lost" or "unencodable".
        type: Name of the exception's class.
        message: Text of the exception.
        traceback: The worker's formatted traceback; None if there is none.
        detail: What is known of a lost worker (signal, exit_code, peak_memory in bytes, attempts,
            host), or of a function with retries (tries); empty otherwise.
    """

    kind: ClassVar[str] = "raised"

    def __init__(
        self,
        index: int,
        type: str,
        message: str,
        traceback: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        # One argument: with several, a TimeoutError would take the index for an errno.
        super().__init__(f"item {index}: {type}: {message}")
        self.index = index
        self.type = type
        self.message = message
        self.traceback = traceback
        self.detail: dict[str, Any] = detail or {}

    @property
    def tries(self) -> int:
        """Number of times that the function was called for the item and raised."""
        return int(self.detail.get("tries", 1))

    def __str__(self) -> str:
        tried = f" ({self.tries} tries)" if self.tries > 1 else ""
        text = f"item {self.index}: {self.type}: {self.message}{tried}"
        # Python prints the notes of a cause above this error: the traceback is among them.
        return text if self.__cause__ or not self.traceback else f"{text}\n\n{self.traceback}"


class ItemRaised(ItemError, Fault):
    """The function raised an exception for this item.

    ``__cause__`` is that exception if this process loads pickles of its workers, which is so in an
    embedded cluster and with ``Cluster(trust_pickle=True)``. Elsewhere, and where it cannot be
    made again, it is an instance of the exception's nearest base that can be had. The worker's
    traceback is a note of it.
    """

    kind = "raised"


class ItemInvalid(ItemError, BadInput):
    """The item does not fit the function's annotated type."""

    kind = "invalid"


class ItemTimeout(ItemError, Fault, TimeoutError):
    """The item computed for longer than the function's ``timeout``; its worker was replaced."""

    kind = "timeout"


class WorkerLost(ItemError, Fault, BrokenProcessPool):
    """The worker died in this item, as often as an item may be tried.

    The properties describe the last death; they are None if unknown.
    """

    kind = "lost"

    @property
    def signal(self) -> int | None:
        """Number of the signal that killed the worker."""
        return self.detail.get("signal")

    @property
    def exit_code(self) -> int | None:
        """Exit code of a worker that was not killed."""
        return self.detail.get("exit_code")

    @property
    def peak_memory(self) -> int | None:
        """Most bytes of memory that the worker used."""
        return self.detail.get("peak_memory")

    @property
    def attempts(self) -> int | None:
        """Number of times that the item was tried."""
        return self.detail.get("attempts")

    @property
    def host(self) -> str | None:
        """Name of the worker's host."""
        return self.detail.get("host")


class Unencodable(ItemError, BadInput):
    """An item or a value cannot travel: it has an unknown type, is NaN in JSON, or is too large."""

    kind = "unencodable"


class Unpicklable(Fault, BrokenProcessPool):
    """A call of an ``Executor``, or its result, raised while it was unpickled; others go on."""


class ExecutorBroken(Fault, BrokenProcessPool):
    """An ``Executor`` has no workers: they cannot start, its initializer raised, or they were
    ended.
    """


ITEM_ERRORS: dict[str, type[ItemError]] = {
    cls.kind: cls for cls in (ItemRaised, ItemInvalid, ItemTimeout, WorkerLost, Unencodable)
}


class MapTimeout(Retryable, TimeoutError):
    """The map did not end within its ``timeout``; what was not done is withdrawn."""

    retry_after = None


class MapCancelled(Retryable):
    """Somebody who watches the pool cancelled the map."""


class TooManyFailed(Fault):
    """More items failed than ``max_failed`` allows; what was not done is withdrawn.

    Attributes:
        failed: Number of items that failed.
        done: Number of items that had an outcome.
        total: Number of items; None if unknown.
        errors: The first few of the errors, in input order.
    """

    def __init__(
        self, message: str, *, failed: int, done: int, total: int | None, errors: list[ItemError]
    ) -> None:
        super().__init__(message)
        self.failed = failed
        self.done = done
        self.total = total
        self.errors = errors


class UnknownFunction(BadInput, LookupError):
    """No agent ever announced a function of this name to this cluster."""


class NoWorkers(Retryable):
    """The function is known, but no worker that has it is alive now."""


class WorkerStartFailed(Fault):
    """The workers cannot start; the message holds the traceback of the import."""


class NotImportable(BadInput):
    """A worker process cannot import this function from where it is defined."""


class DuplicateFunction(BadInput, ValueError):
    """Two different functions were registered under one name."""


class BrokerUnreachable(Retryable, ConnectionError):
    """No NATS server answers at this address, or it refuses the credentials."""


class BrokerRefused(Fault):
    """The broker answered, and refused the request."""


class TopologyMismatch(Fault):
    """A stream or consumer on the server differs from what jetmap needs.

    jetmap never alters it; the message names each setting that differs.
    """


class LimitExceeded(JetmapError):
    """Something is over its limit. Groups ``TooLarge`` and ``TooManyMaps``, which have a family.

    Attributes:
        setting: Name of the limit's setting.
        limit: Value of the limit.
        value: What was asked for; None if unknown.
        index: Position of the item that is too large; None if it is not an item.
    """

    def __init__(
        self,
        message: str,
        *,
        setting: str,
        limit: float,
        value: float | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(message)
        self.setting = setting
        self.limit = limit
        self.value = value
        self.index = index


class TooLarge(LimitExceeded, BadInput):
    """A list, an item or a message is over its limit."""


class TooManyMaps(LimitExceeded, Retryable):
    """The limit of open maps is reached; try again when some have ended."""


class Malformed(BadInput, ValueError):
    """Input does not follow its format.

    Attributes:
        position: Offset in bytes, from the start of ``line`` if there is one.
        line: Number of the line, from 1; None if the format has no lines.
    """

    def __init__(self, message: str, position: int, line: int | None = None) -> None:
        super().__init__(message)
        self.position = position
        self.line = line


class ClusterClosed(BadInput, RuntimeError):
    """The cluster is not started, is closed, or belongs to another process or event loop."""


class ConfigurationError(BadInput, ValueError):
    """Settings, options or task files are wrong.

    Attributes:
        problems: A message for each of them.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class JobError(JetmapError):
    """A job cannot be submitted, read or finished. Its subclasses have a family."""


class JobsUnavailable(JobError, BadInput):
    """This cluster has no store that lasts, which jobs need."""


class UnknownJob(JobError, BadInput, KeyError):
    """There is no such job, or no longer."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreFull(JobError, Retryable):
    """The store has no room for the job.

    Attributes:
        limit: Bytes that the store may hold.
        used: Bytes that it holds.
        wanted: Bytes that the job needs.
    """

    retry_after = None

    def __init__(self, message: str, *, limit: int, used: int, wanted: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.used = used
        self.wanted = wanted


class NoRoom(StoreFull):
    """The broker, or its disk, has no room. ``limit`` equals ``used`` where it is not known."""


class HostsFull(Retryable):
    """No host of the pool has room for a value that was to be put.

    Attributes:
        size: Bytes of the value.
        room: Bytes for which the host with the most room has any.
    """

    def __init__(self, message: str, *, size: int, room: int) -> None:
        super().__init__(message)
        self.size = size
        self.room = room


class KeyBusy(JobError, Retryable):
    """The first job with this idempotency key is still being uploaded."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UploadLost(KeyBusy):
    """Another process has removed the upload, because its uploader was silent for too long."""


class KeyReused(JobError, BadInput):
    """The idempotency key was used for another body, function or parameters."""


class JobOver(JobError, BadInput):
    """The job is over, so that nothing of it can be changed any more."""


class JobNotRetryable(JobError, BadInput):
    """The failed items cannot run again: the job is not over, has none, or its input is gone."""


class JobUnreadable(JobError, Fault):
    """Another version of jetmap wrote the job, or its record is damaged. It can be deleted."""


class JobEnded(JobError, Fault):
    """The job ended without all its outcomes.

    Attributes:
        state: "failed", "cancelled" or "expired"; "removed" if outcomes that it had are not in the
            store any more.
    """

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message)
        self.state = state


def _restore(cls: type[JetmapError], args: tuple[Any, ...], facts: dict[str, Any]) -> JetmapError:
    """Make an error again as it was before it was pickled."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error
