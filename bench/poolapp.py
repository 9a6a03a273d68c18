"""The web app that jetmap replaces: a process pool made at start-up, awaited for each item."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from time import sleep

from fastapi import FastAPI

from . import tasks

FUNCTIONS: dict[str, Callable[[int], int]] = {
    f.__name__: f for f in (tasks.even, tasks.uneven, tasks.tiny, tasks.nothing, tasks.increment)
}


CORES = int(os.environ.get("BENCH_CORES", "2"))


def compute(f: Callable[[int], int], items: list[int]) -> list[int]:
    return [f(item) for item in items]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with ProcessPoolExecutor(CORES) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, sleep, 0.2) for _ in range(CORES)))
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/map/{function}")
async def all_at_once(function: str, items: list[int]) -> list[int]:
    loop = asyncio.get_running_loop()
    f = FUNCTIONS[function]
    return await asyncio.gather(*(loop.run_in_executor(app.state.pool, f, item) for item in items))


@app.post("/each/{function}")
async def one_after_the_other(function: str, items: list[int]) -> list[int]:
    loop = asyncio.get_running_loop()
    f = FUNCTIONS[function]
    return [await loop.run_in_executor(app.state.pool, f, item) for item in items]


@app.post("/chunked/{function}")
async def in_chunks(function: str, items: list[int]) -> list[int]:
    """Await chunks cut by hand, four for each core."""
    loop, f = asyncio.get_running_loop(), FUNCTIONS[function]
    size = max(1, -(-len(items) // (4 * CORES)))
    cut = [items[start : start + size] for start in range(0, len(items), size)]
    done = await asyncio.gather(
        *(loop.run_in_executor(app.state.pool, compute, f, chunk) for chunk in cut)
    )
    return [value for values in done for value in values]


@app.get("/healthz")
async def healthz() -> str:
    return "ok"
