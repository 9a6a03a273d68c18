"""A caller in a process of its own: run maps with the library until told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jetmap import Cluster, ItemError, MapTimeout, NoWorkers, Outcome, UnknownFunction
from jetmap.errors import BrokerUnreachable

from . import functions
from .plans import Plan
from .record import Record, error, value
from .until import until_told

REFUSED_PAUSE = 0.5
SLOWLY = 0.1  # Seconds that a slow reader rests after each of its batches.

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "steady": functions.steady,
    "fragile": functions.fragile,
    "bounded": functions.bounded,
    "together": functions.together,
}


async def main(family: str, url: str, name: str, seed: int, directory: str, at_once: int) -> None:
    record = Record(Path(directory) / f"{name}.maps")
    async with Cluster(url) as cluster:

        async def one(plan: Plan) -> None:
            await Maps(cluster, record, directory).run(plan)

        await until_told(name, seed, family, one, at_once)
        assert cluster.stats.maps_open == 0, f"{cluster.stats.maps_open} maps are still open"


class Maps:
    """Runs one map after the other, each the way that its plan says."""

    def __init__(self, cluster: Cluster, record: Record, log: str) -> None:
        self._cluster = cluster
        self._record = record
        self._log = log

    async def run(self, plan: Plan) -> None:
        record = self._record
        record.begin(plan)
        try:
            match plan.way:
                case "map" | "strict":
                    await self._map(plan, return_exceptions=plan.way == "map")
                    how = "done"
                case "cancel":
                    how = await self._cancelled(plan)
                case _:
                    how = await self._stream(plan)
        except MapTimeout as caught:
            record.end(plan, "timeout", str(caught))
        except ItemError as caught:
            record.outcomes(plan, [described(caught.index, caught)])
            record.end(plan, "raised")
        except (NoWorkers, BrokerUnreachable, UnknownFunction) as caught:
            record.end(plan, "refused", f"{type(caught).__name__}: {caught}")
            await asyncio.sleep(REFUSED_PAUSE)
        except Exception as caught:
            logging.exception("map %s failed", plan.name)
            record.end(plan, "failed", f"{type(caught).__name__}: {caught}")
        else:
            record.end(plan, how)

    async def _options(self, plan: Plan) -> dict[str, Any]:
        kwargs: dict[str, Any] = plan.kwargs(self._log)
        if plan.table:
            kwargs["table"] = await self._cluster.put(functions.TABLE)
        return {"kwargs": kwargs, "timeout": plan.timeout}

    async def _map(self, plan: Plan, return_exceptions: bool) -> None:
        f = FUNCTIONS[plan.function]
        found = await self._cluster.map(
            f, plan.sent(), return_exceptions=return_exceptions, **await self._options(plan)
        )
        self._record.outcomes(plan, [described(i, value) for i, value in enumerate(found)])

    async def _cancelled(self, plan: Plan) -> str:
        running = asyncio.ensure_future(self._map(plan, return_exceptions=True))
        await asyncio.wait([running], timeout=plan.leaves)
        if running.done():
            await running
            return "done"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return "left"

    async def _stream(self, plan: Plan) -> str:
        f = FUNCTIONS[plan.function]
        stream = self._cluster.stream(
            f, plan.sent(), ordered=plan.way == "ordered", **await self._options(plan)
        )
        async with stream:
            try:
                async with asyncio.timeout(plan.leaves):
                    while batch := await stream.next_batch():
                        self._record.outcomes(plan, [outcome(o) for o in batch])
                        if plan.way == "slow":
                            await asyncio.sleep(SLOWLY)  # It reads no faster.
            except MapTimeout:
                raise
            except TimeoutError:
                return "left"
        return "done"


def outcome(outcome: Outcome[Any, Any]) -> list[Any]:
    return described(outcome.index, outcome.error if outcome.error is not None else outcome.value)


def described(index: int, found: Any) -> list[Any]:
    if isinstance(found, ItemError):
        assert found.index == index, f"the error at {index} says that it is of {found.index}"
        return error(index, found.kind, found.type, found.message)
    return value(index, found)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(main(*json.loads(sys.argv[1])))
