"""A cluster in the user's own application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from jetmap.client.cluster import Cluster
from jetmap.errors import ClusterClosed

from .asgi import Scope

HINT = (
    "no cluster is started: pass lifespan=jetmap_api.lifespan to your FastAPI(), or start one in "
    "your own lifespan and keep it as app.state.cluster"
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Starts a Cluster as the settings say, and keeps it as ``app.state.cluster``.

    FastAPI(lifespan=jetmap_api.lifespan); or, in a lifespan of your own,
    ``async with jetmap_api.lifespan(app): ...``.
    """
    async with Cluster() as cluster:
        app.state.cluster = cluster
        try:
            yield
        finally:
            del app.state.cluster


def find_cluster(scope: Scope) -> Cluster | None:
    """The cluster of the application that serves this request, or of its lifespan's state."""
    found: Any = getattr(getattr(scope.get("app"), "state", None), "cluster", None)
    if found is None:
        found = (scope.get("state") or {}).get("cluster")
    return found if found is None else _checked(found)


def cluster_of(connection: HTTPConnection) -> Cluster:
    """The cluster of a request or a websocket. Raises ClusterClosed, saying what to do."""
    cluster = find_cluster(connection.scope)
    if cluster is None:
        raise ClusterClosed(HINT)
    return cluster


ClusterDep = Annotated[Cluster, Depends(cluster_of)]
"""``async def endpoint(numbers: list[int], cluster: ClusterDep)``"""


def _checked(found: Any) -> Cluster:
    cluster: Cluster = found
    return cluster
