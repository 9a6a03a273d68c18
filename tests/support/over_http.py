"""Requests, functions and readers of answers for tests of maps over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

JSONL = {"accept": "application/jsonl"}
SSE = {"accept": "text/event-stream"}
MSGPACK = {"accept": "application/msgpack", "content-type": "application/msgpack"}


def double(n: int) -> int:
    """Twice as much."""
    return n * 2


def picky(n: int, *, bad: list[int] | None = None) -> int:
    if n in (bad or []):
        raise ValueError(f"no {n}")
    return n


def echo(value: Any) -> Any:
    return value


async def never(value: Any) -> Any:
    await asyncio.Event().wait()


def lines_of(response: httpx.Response) -> list[Any]:
    assert response.text.endswith("\n")
    # Not splitlines(), which also ends a line within a text that holds a U+2028.
    return [json.loads(line) for line in response.text.split("\n")[:-1]]


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    events = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def check_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"]) == (status, status), problem
    assert problem["type"] == f"urn:jetmap:{slug}", problem
    assert problem["title"]
    return problem
