"""Any list over HTTP, in every encoding, gives what ``[f(x) for x in items]`` gives."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from any_list import in_a_loop, lists, same
from functions import Parcel
from hypotheses import examples
from jetmap import Cluster
from over_http import events_of, lines_of
from served import served
from waiting import PATIENCE

pytestmark = pytest.mark.anyio

STATUS = {"raised": 500, "invalid": 422}
BODIES = {
    "application/json": msgspec.json.encode,
    "application/jsonl": lambda items: b"".join(msgspec.json.encode(i) + b"\n" for i in items),
    "application/msgpack": msgspec.msgpack.encode,
}
# Accept, and the order that is asked for.
ANSWERS = [
    ("application/json", "finish"),
    ("application/msgpack", "finish"),
    ("application/jsonl", "finish"),
    ("application/jsonl", "input"),
    ("text/event-stream", "finish"),
]

Outcome = tuple[str, Any]


@pytest.fixture(scope="module")
async def client(shared: Cluster) -> AsyncIterator[httpx.AsyncClient]:
    async with served(shared) as port, httpx.AsyncClient(timeout=PATIENCE) as client:
        client.base_url = httpx.URL(f"http://127.0.0.1:{port}")
        yield client


def told(record: dict[str, Any]) -> Outcome:
    return record["kind"], record["message"]


def check_failure(problem: dict[str, Any], expected: list[Outcome], *, first: bool) -> None:
    """The problem is of an item that fails; of the first one, if the answer has an order."""
    error = problem["error"]
    index = error["index"]
    assert same(told(error), expected[index])
    assert problem["status"] == STATUS[expected[index][0]]
    if first:
        assert index == next(i for i, (kind, _) in enumerate(expected) if kind != "value")


def check_list(
    response: httpx.Response, expected: list[Outcome], *, packed: bool, collect: bool
) -> None:
    fails = any(kind != "value" for kind, _ in expected)
    if fails and not collect:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code
        check_failure(response.json(), expected, first=True)
        return
    assert response.status_code == 200
    decode: Any = msgspec.msgpack.decode if packed else json.loads
    document = decode(response.content)
    values = document["values"] if collect else document
    failed = [index for index, (kind, _) in enumerate(expected) if kind != "value"]
    errors = {}
    if collect:
        errors = {error["index"]: error for error in document["errors"]}
        assert len(errors) == len(document["errors"])
    assert sorted(errors) == failed
    assert all(values[index] is None for index in failed)
    found = [
        told(errors[index]) if index in errors else ("value", value)
        for index, value in enumerate(values)
    ]
    check_outcomes(dict(enumerate(found)), expected, whole=True)


def check_outcomes(found: dict[int, Outcome], expected: list[Outcome], *, whole: bool) -> None:
    if whole:
        assert sorted(found) == list(range(len(expected)))
    wrong = {i: o for i, o in found.items() if not same(o, expected[i])}
    assert not wrong


def check_lines(
    response: httpx.Response, expected: list[Outcome], *, ordered: bool, collect: bool
) -> None:
    if response.status_code != 200:  # The first thing that came was a failure.
        assert not collect
        check_failure(response.json(), expected, first=ordered)
        return
    *lines, last = lines_of(response)
    indices = [line["index"] for line in lines]
    assert len(set(indices)) == len(indices)
    if ordered:
        assert indices == list(range(len(indices)))
    found = {
        line["index"]: told(line["error"]) if "error" in line else ("value", line["value"])
        for line in lines
    }
    check_end(last.get("problem"), last, found, expected, collect=collect, ordered=ordered)


def check_events(response: httpx.Response, expected: list[Outcome], *, collect: bool) -> None:
    assert response.status_code == 200
    (first, _), *results, (kind, last) = events_of(response)
    assert first == "start"
    found: dict[int, Outcome] = {}
    for name, data in results:
        assert name == "results"
        errors = {error["index"]: told(error) for error in data["errors"]}
        for index, value in enumerate(data["values"], data["start"]):
            assert index not in found
            assert index not in errors or value is None
            found[index] = errors.get(index, ("value", value))
        assert data["done"] == len(found)
    problem = last if kind == "failed" else None
    check_end(problem, last, found, expected, collect=collect, ordered=False)


def check_end(
    problem: dict[str, Any] | None,
    last: dict[str, Any],
    found: dict[int, Outcome],
    expected: list[Outcome],
    *,
    collect: bool,
    ordered: bool,
) -> None:
    failing = sum(kind != "value" for kind, _ in expected)
    assert (problem is not None) == (failing > 0 and not collect)
    check_outcomes(found, expected, whole=problem is None)
    if problem is not None:
        assert all(kind == "value" for kind, _ in found.values())
        check_failure(problem, expected, first=ordered)
    else:
        assert (last["done"], last["failed"]) == (len(expected), failing)


async def in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("collect", [False, True], ids=["fail", "collect"])
@pytest.mark.parametrize(("accept", "order"), ANSWERS)
@pytest.mark.parametrize("media", BODIES)
@examples(12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parcels=lists, size=st.sampled_from([0, 0, 100, 10_000]))
async def test_any_list_over_http_is_what_a_loop_returns(
    client: httpx.AsyncClient,
    media: str,
    accept: str,
    order: str,
    collect: bool,
    parcels: list[Parcel],
    size: int,
) -> None:
    body = BODIES[media](parcels)
    query = {"errors": "collect" if collect else "fail", "order": order}
    response = await client.post(
        "/map/weigh",
        content=in_pieces(body, size) if size else body,
        headers={"content-type": media, "accept": accept},
        params=query,
    )
    expected = in_a_loop(parcels)
    if accept == "text/event-stream":
        check_events(response, expected, collect=collect)
    elif accept == "application/jsonl":
        check_lines(response, expected, ordered=order == "input", collect=collect)
    else:
        packed = accept == "application/msgpack"
        check_list(response, expected, packed=packed, collect=collect)


async def test_lists_are_cut_into_several_chunks(
    client: httpx.AsyncClient, shared: Cluster
) -> None:
    """The lists are those that the test above draws."""
    before = shared.stats.chunks
    parcels = [Parcel(float(n), 1000 if n % 10 == 0 else 0) for n in range(2000)]
    body = msgspec.json.encode(parcels)
    response = await client.post(
        "/map/weigh", content=body, headers={"content-type": "application/json"}
    )
    assert response.json() == list(itertools.islice(itertools.count(0.0), 2000))
    assert shared.stats.chunks - before > 3
