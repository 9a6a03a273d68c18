"""jetmap: one Python function over every item of a list, on every core of every host."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .collector import without_collector
from .version import __version__ as __version__

if TYPE_CHECKING:
    from jetmap.client._sync.cluster import SyncCluster
    from jetmap.client._sync.job import SyncJob, SyncJobStream
    from jetmap.client._sync.stream import SyncStream
    from jetmap.client.cluster import Cluster
    from jetmap.client.job import Job, JobStream
    from jetmap.client.job_status import JobStatus
    from jetmap.client.progress import Progress
    from jetmap.client.refs import Ref
    from jetmap.client.stream import Stream
    from jetmap.dispatch.outcomes import Outcome
    from jetmap.executor.executor import Executor
    from jetmap.functions.per_worker import per_worker
    from jetmap.functions.task import task

    from .errors import (
        BadInput,
        BrokerRefused,
        BrokerUnreachable,
        ClusterClosed,
        ConfigurationError,
        DuplicateFunction,
        ExecutorBroken,
        Fault,
        HostsFull,
        ItemError,
        ItemInvalid,
        ItemRaised,
        ItemTimeout,
        JetmapError,
        JobEnded,
        JobError,
        JobNotRetryable,
        JobOver,
        JobsUnavailable,
        JobUnreadable,
        KeyBusy,
        KeyReused,
        LimitExceeded,
        Malformed,
        MapCancelled,
        MapTimeout,
        NoRoom,
        NotImportable,
        NoWorkers,
        Retryable,
        StoreFull,
        TooLarge,
        TooManyFailed,
        TooManyMaps,
        TopologyMismatch,
        Unencodable,
        UnknownFunction,
        UnknownJob,
        Unpicklable,
        UploadLost,
        WorkerLost,
        WorkerStartFailed,
    )


__all__ = [
    "BadInput",
    "BrokerRefused",
    "BrokerUnreachable",
    "Cluster",
    "ClusterClosed",
    "ConfigurationError",
    "DuplicateFunction",
    "Executor",
    "ExecutorBroken",
    "Fault",
    "HostsFull",
    "ItemError",
    "ItemInvalid",
    "ItemRaised",
    "ItemTimeout",
    "JetmapError",
    "Job",
    "JobEnded",
    "JobError",
    "JobNotRetryable",
    "JobOver",
    "JobStatus",
    "JobStream",
    "JobUnreadable",
    "JobsUnavailable",
    "KeyBusy",
    "KeyReused",
    "LimitExceeded",
    "Malformed",
    "MapCancelled",
    "MapTimeout",
    "NoRoom",
    "NoWorkers",
    "NotImportable",
    "Outcome",
    "Progress",
    "Ref",
    "Retryable",
    "StoreFull",
    "Stream",
    "SyncCluster",
    "SyncJob",
    "SyncJobStream",
    "SyncStream",
    "TooLarge",
    "TooManyFailed",
    "TooManyMaps",
    "TopologyMismatch",
    "Unencodable",
    "UnknownFunction",
    "UnknownJob",
    "Unpicklable",
    "UploadLost",
    "WorkerLost",
    "WorkerStartFailed",
    "per_worker",
    "task",
]

_HOMES = {
    "per_worker": "functions.per_worker",
    "task": "functions.task",
    "Cluster": "client.cluster",
    "Job": "client.job",
    "JobStatus": "client.job_status",
    "JobStream": "client.job",
    "Progress": "client.progress",
    "Ref": "client.refs",
    "Stream": "client.stream",
    "SyncCluster": "client._sync.cluster",
    "SyncJob": "client._sync.job",
    "SyncJobStream": "client._sync.job",
    "SyncStream": "client._sync.stream",
    "Outcome": "dispatch.outcomes",
    "Executor": "executor.executor",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: a worker that imports ``task`` needs none of the rest.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        with without_collector():
            home = import_module(f".{_home(name)}", __name__)
    except (AttributeError, ImportError) as error:
        raise _failed(name, error) from error
    value = getattr(home, name)
    globals()[name] = value
    return value


def _home(name: str) -> str:
    import sys

    process = sys.modules.get("jetmap.worker.main")
    if name == "Cluster" and getattr(process, "in_worker", False):
        return "worker.stand_ins"
    return _HOMES.get(name, "errors")


def _failed(name: str, error: Exception) -> ImportError:
    """Make the error for a name that cannot be loaded: Python would only say that it is missing."""
    import sys

    from .import_path import hiding_advice

    advice = hiding_advice(sys.path)
    because = f": {advice}" if advice else ""
    return ImportError(f"jetmap cannot load {name} ({type(error).__name__}: {error}){because}")


def __dir__() -> list[str]:
    return __all__
