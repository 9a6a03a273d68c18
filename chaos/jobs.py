"""Callers of jobs, in a process of their own: with the library, or over HTTP by two gateways.

A job has one end only: all its outcomes. Whatever fails meanwhile, the caller asks again, with
the same key, and reads on behind what it has read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from jetmap import Cluster, JetmapError, Job

from . import functions
from .caller import FUNCTIONS, outcome
from .plans import Plan
from .record import Record
from .until import until_told
from .web import merged

PAUSE = 0.5
PATIENCE = httpx.Timeout(30, connect=5)  # A stream has a comment every 15 seconds.
AWAY = (404, 503)  # While a gateway starts, it knows neither functions nor jobs.


async def main(family: str, url: str, name: str, seed: int, directory: str, at_once: int) -> None:
    record = Record(Path(directory) / f"{name}.maps")
    if family.endswith("http"):
        async with httpx.AsyncClient(timeout=PATIENCE) as client:

            async def over_http(plan: Plan) -> None:
                await watched(plan, record, Requests(client, url, record, directory).run)

            await until_told(name, seed, family, over_http, at_once)
    else:
        async with Cluster(url) as cluster:

            async def one(plan: Plan) -> None:
                await watched(plan, record, Library(cluster, record, directory).run)

            await until_told(name, seed, family, one, at_once)


async def watched(plan: Plan, record: Record, run: Any) -> None:
    record.begin(plan)
    try:
        await run(plan)
    except Exception as caught:
        logging.exception("job %s failed", plan.name)
        record.end(plan, "failed", f"{type(caught).__name__}: {caught}")
    else:
        record.end(plan, "done")


class Library:
    """Submits with ``Cluster.submit``, reads with ``Job.stream``."""

    def __init__(self, cluster: Cluster, record: Record, log: str) -> None:
        self._cluster = cluster
        self._record = record
        self._log = log

    async def run(self, plan: Plan) -> None:
        job = await self._submit(plan)
        self._record.ticket(plan, job.id)
        stream = job.stream()
        while True:
            try:
                batch = await stream.next_batch()
            except JetmapError as error:
                logging.warning("job %s is read on later: %s", plan.name, error)
                await asyncio.sleep(PAUSE)
                continue
            if not batch:
                return
            self._record.outcomes(plan, [outcome(found) for found in batch])

    async def _submit(self, plan: Plan) -> Job[Any, Any]:
        kwargs: dict[str, Any] = plan.kwargs(self._log)
        while True:
            try:
                if plan.table:
                    kwargs["table"] = await self._cluster.put(functions.TABLE)
                return await self._cluster.submit(
                    FUNCTIONS[plan.function], plan.sent(), kwargs=kwargs, key=plan.name
                )
            except JetmapError as error:
                logging.warning("job %s is submitted again: %s", plan.name, error)
                await asyncio.sleep(PAUSE)


class Requests:
    """Asks one gateway, and where that fails the next. urls: with commas between."""

    def __init__(self, client: httpx.AsyncClient, urls: str, record: Record, log: str) -> None:
        self._client = client
        self._urls = cycle(urls.split(","))
        self._url = next(self._urls)
        self._record = record
        self._log = log

    async def run(self, plan: Plan) -> None:
        job = await self._submit(plan)
        self._record.ticket(plan, job)
        last = ""
        while True:
            try:
                async for id, event, data in self._events(job, last):
                    last = id or last
                    if event == "results":
                        found = merged(data["start"], data["values"], data["errors"])
                        self._record.outcomes(plan, found)
                    elif event == "done":
                        return
                    elif event == "failed":
                        raise AssertionError(f"it ended early: {data}")
            except httpx.TransportError as error:
                logging.warning("job %s is read on elsewhere: %r", plan.name, error)
            await self._elsewhere()

    async def _elsewhere(self) -> None:
        self._url = next(self._urls)
        await asyncio.sleep(PAUSE)

    async def _submit(self, plan: Plan) -> str:
        params = {"kwargs": json.dumps(plan.kwargs(self._log))}
        while True:
            try:
                answer = await self._client.post(
                    f"{self._url}/jobs/{plan.function}",
                    params=params,
                    headers={"Idempotency-Key": plan.name},
                    json=plan.sent(),
                )
            except httpx.TransportError as error:
                logging.warning("job %s is submitted again: %r", plan.name, error)
            else:
                if answer.status_code == 202:
                    return str(answer.json()["id"])
                assert answer.status_code in (409, *AWAY), answer.text
            await self._elsewhere()

    async def _events(self, job: str, last: str) -> AsyncIterator[tuple[str, str, Any]]:
        """Yield each event of one connection: its id, name and data."""
        headers = {"Last-Event-ID": last} if last else {}
        url = f"{self._url}/jobs/{job}/events"
        async with self._client.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 200:
                await answer.aread()
                assert answer.status_code in AWAY, answer.text
                return
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                if line:
                    name, _, rest = line.partition(":")
                    fields[name] = rest.strip()
                    continue
                if "data" in fields:
                    data = json.loads(fields["data"])
                    yield fields.get("id", ""), fields["event"], data
                fields = {}


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("jetmap.jobs").setLevel(logging.INFO)
    asyncio.run(main(*json.loads(sys.argv[1])))
