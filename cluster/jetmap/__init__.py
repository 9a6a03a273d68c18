"""jetmap: one Python function over every item of a list, on every core of every host."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.cluster import Cluster
    from .client.stream import Stream
    from .client.sync import SyncCluster, SyncStream
    from .dispatch.outcome import Outcome
    from .errors import (
        BrokerUnreachable,
        ClusterClosed,
        ConfigurationError,
        DuplicateFunction,
        ItemError,
        ItemInvalid,
        ItemRaised,
        ItemTimeout,
        JetmapError,
        LimitExceeded,
        MapTimeout,
        NotImportable,
        NoWorkers,
        TooManyMaps,
        TopologyMismatch,
        Unencodable,
        UnknownFunction,
        WorkerLost,
        WorkerStartFailed,
    )
    from .tasks import task

__version__ = "0.1.0"

__all__ = [
    "BrokerUnreachable",
    "Cluster",
    "ClusterClosed",
    "ConfigurationError",
    "DuplicateFunction",
    "ItemError",
    "ItemInvalid",
    "ItemRaised",
    "ItemTimeout",
    "JetmapError",
    "LimitExceeded",
    "MapTimeout",
    "NoWorkers",
    "NotImportable",
    "Outcome",
    "Stream",
    "SyncCluster",
    "SyncStream",
    "TooManyMaps",
    "TopologyMismatch",
    "Unencodable",
    "UnknownFunction",
    "WorkerLost",
    "WorkerStartFailed",
    "task",
]

_HOMES = {
    "task": "tasks",
    "Cluster": "client.cluster",
    "Stream": "client.stream",
    "SyncCluster": "client.sync",
    "SyncStream": "client.sync",
    "Outcome": "dispatch.outcome",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: a worker that imports ``task`` needs none of the rest.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
