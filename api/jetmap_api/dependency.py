"""A cluster in the user's own application."""

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
    return cast("Cluster | None", found)


def cluster_of(connection: HTTPConnection) -> Cluster:
    """The cluster of a request or a websocket. Raises ClusterClosed, saying what to do."""
    cluster = find_cluster(connection.scope)
    if cluster is None:
        raise ClusterClosed(HINT)
    return cluster


ClusterDep = Annotated[Cluster, Depends(cluster_of)]
"""``async def endpoint(numbers: list[int], cluster: ClusterDep)``"""


@contextmanager
def until_disconnect(request: Request) -> Iterator[None]:
    """``with until_disconnect(request): await cluster.map(...)`` in an endpoint of your own: the
    block is cancelled, and its map withdrawn, when the client leaves; frameworks do not do that.

    The request's body must have been read, as FastAPI does for declared parameters. Raises
    HTTPException(499), which nobody sees.
    """
    with DisconnectWatcher() as watcher:
        watcher.watch(request.receive)
        yield
    if watcher.left:
        raise HTTPException(499, "the client has left")
