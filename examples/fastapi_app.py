"""FastAPI app with jetmap inside, and a page that shows results as they stream in.

    uvicorn examples.fastapi_app:app                then open http://127.0.0.1:8000
    uvicorn examples.fastapi_app:app --workers 4    the same; all four share one set of workers
    curl --json '[7, 8, 9]' http://127.0.0.1:8000/primes

There is no broker to install and nothing else to start: the lifespan starts a worker for every core
and ends them with the app. Set JETMAP_NATS_URL to use workers on other hosts instead. With a broker
that outlives the app, the page submits jobs: reload it, or kill this app and start it again.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.staticfiles import StaticFiles

from examples.primes import is_prime
from examples.source_metrics import Metrics, measure, source_files
from jetmap import ItemError
from jetmap_api import ClusterDep, create_app, lifespan

PAGE = Path(__file__).parent / "page"
MOST = 100_000

app = FastAPI(title="An app with jetmap inside", lifespan=lifespan)


@app.post("/primes")
async def primes(numbers: list[int], cluster: ClusterDep) -> list[bool]:
    """Say of each number whether it is a prime, using every core."""
    return await cluster.map(is_prime, numbers)


@app.get("/primes/{first}")
async def primes_from(first: int, cluster: ClusterDep, count: int = 1000) -> dict[str, list[int]]:
    """List the primes among ``count`` numbers from ``first`` on."""
    if not 0 < count <= MOST:
        raise HTTPException(422, f"count is between 1 and {MOST}")
    numbers = range(first, first + count)
    flags = await cluster.map(is_prime, numbers)
    return {"primes": [n for n, prime in zip(numbers, flags, strict=True) if prime]}


@app.get("/files")
def files() -> list[str]:
    """List the source files of this Python installation, the page's other input."""
    return list(source_files())


@app.post("/metrics-of")
async def metrics_of(paths: list[str], cluster: ClusterDep) -> list[Metrics | None]:
    """Measure source files; null for one that does not parse."""
    known = set(source_files())
    if unknown := [path for path in paths if path not in known]:
        raise HTTPException(422, f"not a source file of this installation: {unknown[0]}")
    values = await cluster.map(measure, paths, return_exceptions=True)
    return [None if isinstance(value, ItemError) else value for value in values]


app.mount("/jetmap", create_app())  # the whole HTTP gateway, for the page; it uses our cluster
app.mount("/", StaticFiles(directory=PAGE, html=True))
