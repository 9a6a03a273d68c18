"""Litestar app with jetmap inside.

    uvicorn examples.litestar_app:app --workers 4
    curl --json '[7, 8, 9]' http://127.0.0.1:8000/primes

All processes of the server share one set of workers, with a worker for every core.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, MediaType, Request, Response, post
from litestar.datastructures import State

from examples.primes import is_prime
from jetmap import BadInput, Cluster


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """Start the cluster with the app, and end it with the app."""
    async with Cluster() as app.state.cluster:
        yield


@post("/primes", status_code=200)
async def primes(data: list[int], state: State) -> list[bool]:
    """Say of each number whether it is a prime, using every core."""
    cluster: Cluster = state.cluster
    return await cluster.map(is_prime, data)


def refuse(request: Request, error: BadInput) -> Response[dict[str, str]]:
    """Answer a list that does not fit the function."""
    return Response({"error": str(error)}, media_type=MediaType.JSON, status_code=422)


app = Litestar([primes], lifespan=[lifespan], exception_handlers={BadInput: refuse})
