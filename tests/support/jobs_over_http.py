"""Requests, functions and readers of answers for tests of jobs over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from fake_cluster import FakeCluster
from fake_jobs import FakeJobs
from waiting import wait_for

MSGPACK = {"accept": "application/msgpack"}


def double(n: int) -> int:
    return n * 2


def picky(n: int) -> int:
    if n < 0:
        raise ValueError(f"no {n}")
    return n


def echo(value: Any, *, more: Any = None) -> Any:
    return value if more is None else [value, more]


async def never(value: Any) -> Any:
    await asyncio.Event().wait()


async def slow_after_two(n: int) -> int:
    if n > 2:
        await asyncio.Event().wait()
    return n


def site(*functions: Any, **options: Any) -> tuple[FakeCluster, FakeJobs]:
    cluster = FakeCluster(*(functions or (double, picky, echo, never, slow_after_two)))
    return cluster, FakeJobs(cluster, **options)


async def submit(
    client: httpx.AsyncClient, function: str, items: Any, query: str = "", **headers: str
) -> dict[str, Any]:
    response = await client.post(f"/jobs/{function}{query}", json=items, headers=headers)
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    assert response.headers["location"] == document["links"]["self"]
    return document


async def until_over(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        response = await client.get(f"/jobs/{id}")
        document: dict[str, Any] = response.json()
        if document["finished"] is not None:
            assert "retry-after" not in response.headers
            return document
        assert int(response.headers["retry-after"]) >= 1
        return None

    found = await wait_for(over, "the job is over")
    assert found is not None
    return found


class Event:
    def __init__(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        self.id = fields.get("id")
        self.name = fields["event"]
        self.data = json.loads(fields["data"])


def events_of(text: str) -> list[Event]:
    assert text.endswith("\n\n") or not text
    return [Event(b) for b in text.split("\n\n") if b and not b.startswith(":")]


def values_of(events: list[Event]) -> dict[int, Any]:
    """Every item once."""
    found: dict[int, Any] = {}
    for event in events:
        if event.name == "results":
            for index, value in enumerate(event.data["values"], event.data["start"]):
                assert index not in found
                found[index] = value
    return found
