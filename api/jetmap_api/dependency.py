"""A cluster in an application of the user's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, cast

from fastapi import Depends
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from jetmap.client.cluster import Cluster
from jetmap.errors import ClusterClosed

from .asgi import Scope
from .disconnect import DisconnectWatcher

HINT = (
    "no cluster is started: pass lifespan=jetmap_api.lifespan to your FastAPI(), or start one in "
    "your own lifespan and keep it as app.state.cluster"
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Start a cluster as the settings say, and keep it as ``app.state.cluster``.

    Use it as ``FastAPI(lifespan=jetmap_api.lifespan)`` or, in a lifespan of your own, ``async with
    jetmap_api.lifespan(app): ...``.
    """
    async with Cluster() as cluster:
        app.state.cluster = cluster
        try:
            yield
        finally:
            del app.state.cluster


def find_cluster(scope: Scope) -> Cluster | None:
    """Find the cluster in the application that serves the request, or in its lifespan's state."""
    found: Any = getattr(getattr(scope.get("app"), "state", None), "cluster", None)
    if found is None:
        found = (scope.get("state") or {}).get("cluster")
    return cast("Cluster | None", found)


def cluster_of(connection: HTTPConnection) -> Cluster:
    """Find the cluster of a request or a websocket. Raises ClusterClosed, saying what to do."""
    cluster = find_cluster(connection.scope)
    if cluster is None:
        raise ClusterClosed(HINT)
    return cluster


ClusterDep = Annotated[Cluster, Depends(cluster_of)]
"""``async def endpoint(numbers: list[int], cluster: ClusterDep)``"""


@contextmanager
def until_disconnect(request: Request) -> Iterator[None]:
    """Cancel a block of your endpoint when the client leaves; frameworks do not do that.

    In ``with until_disconnect(request): await cluster.map(...)`` the map is then withdrawn. The
    request's body must have been read, as FastAPI does for declared parameters.

    Raises:
        HTTPException: 499, after the client has left; it is seen by middleware only.
    """
    with DisconnectWatcher() as watcher:
        watcher.watch(request.receive)
        yield
    if watcher.left:
        raise HTTPException(499, "the client has left")
