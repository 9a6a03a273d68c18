"""A caller over HTTP, in a process of its own: post maps to the gateway until told to stop.

It knows nothing of jetmap but the HTTP interface.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from .plans import Plan
from .record import Record, error, value
from .until import until_told

REFUSED_PAUSE = 0.5
SLOWLY = 0.05  # Seconds that a slow reader rests after each line.
REFUSALS = (404, 429, 503)
PATIENCE = httpx.Timeout(120, connect=30)


class Ended(Exception):
    """A map came to an end that is not a whole list: how, and what was said."""

    def __init__(self, how: str, what: str = "") -> None:
        self.how, self.what = how, what


async def main(family: str, url: str, name: str, seed: int, directory: str, at_once: int) -> None:
    record = Record(Path(directory) / f"{name}.maps")
    limits = httpx.Limits(max_keepalive_connections=2)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:

        async def one(plan: Plan) -> None:
            await Requests(client, record, directory).run(plan)

        await until_told(name, seed, family, one, at_once)


class Requests:
    """Posts one map after the other, each the way that its plan says."""

    def __init__(self, client: httpx.AsyncClient, record: Record, log: str) -> None:
        self._client = client
        self._record = record
        self._log = log

    async def run(self, plan: Plan) -> None:
        self._record.begin(plan)
        how, what = "done", ""
        try:
            async with asyncio.timeout(plan.leaves):
                await self._post(plan)
        except Ended as ended:
            how, what = ended.how, ended.what
        except TimeoutError:
            how = "left"
        except httpx.TransportError as caught:
            how, what = "broken", f"{type(caught).__name__}: {caught}"
        except Exception as caught:
            logging.exception("map %s failed", plan.name)
            how, what = "failed", f"{type(caught).__name__}: {caught}"
        self._record.end(plan, how, what)
        if how in ("refused", "broken"):
            await asyncio.sleep(REFUSED_PAUSE)

    async def _post(self, plan: Plan) -> None:
        # A connection is hung up on in every one of the ways to read an answer.
        ways = ("collect", "jsonl", "sse")
        way = ways[plan.items[0][0] % 3] if plan.way == "hangup" else plan.way
        params = {"kwargs": json.dumps(plan.kwargs(self._log))}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        content: bytes | AsyncIterator[bytes] = json.dumps(plan.sent()).encode()
        if plan.timeout is not None:
            params["timeout"] = str(plan.timeout)
        if way == "collect":
            params["errors"] = "collect"
        elif way == "sse":
            headers["Accept"] = "text/event-stream"
            params["errors"] = "collect"
        elif "jsonl" in way:
            headers = dict.fromkeys(("Content-Type", "Accept"), "application/jsonl")
            params["errors"] = "collect"
            if way == "jsonl-ordered":
                params["order"] = "input"
            content = lines(plan)
        request = self._client.stream(
            "POST", f"/map/{plan.function}", params=params, headers=headers, content=content
        )
        async with request as answer:
            if answer.status_code != 200:
                await self._refused(plan, answer)
            elif way == "sse":
                await self._events(plan, answer)
            elif "jsonl" in way:
                await self._lines(plan, answer)
            else:
                await self._list(plan, json.loads(await answer.aread()), way)

    async def _refused(self, plan: Plan, answer: httpx.Response) -> None:
        said = await answer.aread()
        problem = json.loads(said)
        if "error" in problem:
            self._record.outcomes(plan, [failed(problem["error"])])
            raise Ended("raised")
        if answer.status_code == 504:
            raise Ended("timeout", said.decode())
        how = "refused" if answer.status_code in REFUSALS else "failed"
        raise Ended(how, said.decode())

    async def _list(self, plan: Plan, body: Any, way: str) -> None:
        values, errors = (body, []) if way == "fail" else (body["values"], body["errors"])
        self._record.outcomes(plan, merged(0, values, errors))

    async def _lines(self, plan: Plan, answer: httpx.Response) -> None:
        last = None
        async for text in answer.aiter_lines():
            if last is not None:
                raise Ended("failed", f"a line after the last one: {text}")
            if plan.way.startswith("slow"):
                await asyncio.sleep(SLOWLY)  # It reads no faster.
            line = json.loads(text)
            if "value" in line:
                self._record.outcomes(plan, [value(line["index"], line["value"])])
            elif "error" in line:
                self._record.outcomes(plan, [failed(line["error"] | {"index": line["index"]})])
            else:
                last = line
        judged(last)

    async def _events(self, plan: Plan, answer: httpx.Response) -> None:
        last, event = None, ""
        async for text in answer.aiter_lines():
            name, _, rest = text.partition(": ")
            if name == "event":
                event = rest
            elif name == "data":
                data = json.loads(rest)
                if event == "results":
                    outcomes = merged(data["start"], data["values"], data["errors"])
                    self._record.outcomes(plan, outcomes)
                elif event != "start":
                    last = data if event == "done" else {"problem": data}
        judged(last)


def judged(last: Any) -> None:
    """Raise Ended unless the last line says that the map is complete."""
    if last is None:
        raise Ended("failed", "the answer ended without its last line")
    if problem := last.get("problem"):
        how = "timeout" if problem.get("status") == 504 else "failed"
        raise Ended(how, json.dumps(problem))


def merged(start: int, values: list[Any], errors: list[Any]) -> list[list[Any]]:
    """Outcomes of consecutive items: an item's error instead of its null."""
    failures = {record["index"]: failed(record) for record in errors}
    outcomes = []
    for index, found in enumerate(values, start):
        failure = failures.pop(index, None)
        outcomes.append(value(index, found) if failure is None else failure)
    return outcomes + list(failures.values())


def failed(record: Any) -> list[Any]:
    return error(record["index"], record["kind"], record["type"], record["message"])


async def lines(plan: Plan) -> AsyncIterator[bytes]:
    """The items as JSON lines, in pieces that arrive one after the other."""
    items = plan.sent()
    for start in range(0, len(items), 100):
        yield b"".join(json.dumps(i).encode() + b"\n" for i in items[start : start + 100])
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(main(*json.loads(sys.argv[1])))
