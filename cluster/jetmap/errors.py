"""Every error that jetmap raises, under one root.

Families by what the caller should do: fix the item (``ItemError``), fix the call
(``UnknownFunction``, ``NotImportable``, ``LimitExceeded``, ``ConfigurationError``), or try
again later (``NoWorkers``, ``BrokerUnreachable``, ``MapTimeout``). Facts are attributes.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar


class JetmapError(Exception):
    """The root of every error that jetmap raises on purpose."""


class ItemError(JetmapError):
    """One item has no value.

    index: the item's position in the input. kind: one of raised, invalid, timeout, lost,
    unencodable. type: the name of the exception's class. message: its text. traceback: the
    worker's formatted traceback, or None. detail: what is known of a lost worker (signal,
    exit_code, peak_memory in bytes, attempts, host), else empty.
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
        # One argument: several would make a TimeoutError take the index for an errno.
        super().__init__(f"item {index}: {type}: {message}")
        self.index = index
        self.type = type
        self.message = message
        self.traceback = traceback
        self.detail: dict[str, Any] = detail or {}

    def __reduce__(self) -> tuple[Any, ...]:
        facts = (self.index, self.type, self.message, self.traceback, self.detail)
        return self.__class__, facts

    def __str__(self) -> str:
        text = f"item {self.index}: {self.type}: {self.message}"
        return f"{text}\n\n{self.traceback}" if self.traceback else text


class ItemRaised(ItemError):
    """The function raised an exception for this item."""

    kind = "raised"


class ItemInvalid(ItemError):
    """The item does not fit the function's annotated type."""

    kind = "invalid"


class ItemTimeout(ItemError, TimeoutError):
    """The item computed for longer than the function's ``timeout``; its worker was replaced."""

    kind = "timeout"


class WorkerLost(ItemError, BrokenProcessPool):
    """The worker died in this item as often as the item may be tried.

    The attributes signal, exit_code, peak_memory (bytes), attempts and host say what is
    known of the last death.
    """

    kind = "lost"

    @property
    def signal(self) -> int | None:
        return self.detail.get("signal")

    @property
    def exit_code(self) -> int | None:
        return self.detail.get("exit_code")

    @property
    def peak_memory(self) -> int | None:
        return self.detail.get("peak_memory")

    @property
    def attempts(self) -> int | None:
        return self.detail.get("attempts")

    @property
    def host(self) -> str | None:
        return self.detail.get("host")


class Unencodable(ItemError):
    """An item or a value that cannot travel: no known type, NaN in JSON, or too large."""

    kind = "unencodable"


ITEM_ERRORS: dict[str, type[ItemError]] = {
    cls.kind: cls for cls in (ItemRaised, ItemInvalid, ItemTimeout, WorkerLost, Unencodable)
}


class MapTimeout(JetmapError, TimeoutError):
    """The map did not end within its ``timeout``; what was left of it is withdrawn."""


class UnknownFunction(JetmapError, LookupError):
    """No agent ever announced a function of this name to this cluster."""


class NoWorkers(JetmapError):
    """The function is known, but no worker that has it is alive now."""


class WorkerStartFailed(JetmapError):
    """The workers cannot start; the message holds the traceback of the import."""


class NotImportable(JetmapError):
    """A worker process could not import this function from where it is defined."""


class DuplicateFunction(JetmapError, ValueError):
    """Two different functions were registered under one name."""


class BrokerUnreachable(JetmapError, ConnectionError):
    """No NATS server answers at this address, or it refuses the credentials."""


class BrokerRefused(JetmapError):
    """The broker answered, and refused what was asked of it."""


class TopologyMismatch(JetmapError):
    """A stream or consumer on the server differs from what jetmap needs.

    It is never altered; the message names each setting that differs.
    """


class LimitExceeded(JetmapError):
    """Something is larger than its limit.

    setting: the name of the limit's setting; limit: its value; value: what was asked for;
    index: of the item that is too large, if it is one.
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

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made anew from its args alone, which lack what is given by name.
        return _again, (self.__class__, self.args, self.__dict__)


class TooManyMaps(LimitExceeded):
    """The limit of open maps is reached; try again when some have ended."""


class Malformed(JetmapError, ValueError):
    """Input is not what its format says.

    position: in bytes, from the start of ``line`` where there is one (counted from 1).
    """

    def __init__(self, message: str, position: int, line: int | None = None) -> None:
        super().__init__(message)
        self.position = position
        self.line = line

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.__class__, self.args, self.__dict__)


class ClusterClosed(JetmapError, RuntimeError):
    """The cluster is not started, is closed, or belongs to another process or event loop."""


class ConfigurationError(JetmapError, ValueError):
    """Settings, options or task files are wrong; ``problems`` lists all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.problems,)


class JobError(JetmapError):
    """The root of what can be wrong with a job."""


class JobsUnavailable(JobError):
    """This cluster has no store that lasts, which jobs need."""


class UnknownJob(JobError, KeyError):
    """There is no such job, or no longer."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreFull(JobError):
    """The store has no room for the job. limit, used, wanted: bytes."""

    def __init__(self, message: str, *, limit: int, used: int, wanted: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.used = used
        self.wanted = wanted

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.__class__, self.args, self.__dict__)


class NoRoom(StoreFull):
    """The broker, or its disk, has no room. limit is as much as used where it is not known."""


class KeyBusy(JobError):
    """The first job of this idempotency key is still being uploaded. retry_after: seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.__class__, self.args, self.__dict__)


class UploadLost(KeyBusy):
    """The upload of a job was given up by others, for too long nothing was heard of it."""


class KeyReused(JobError):
    """The idempotency key was used for another body, function or parameters."""


class JobUnreadable(JobError):
    """Another version of jetmap wrote the job, or its record is damaged; it can be deleted."""


class JobEnded(JobError):
    """The job ended without all its outcomes. state: failed, cancelled or expired."""

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message)
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.__class__, self.args, self.__dict__)


def _again(cls: type[JetmapError], args: tuple[Any, ...], facts: dict[str, Any]) -> JetmapError:
    """An error as it was before it was pickled."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error
