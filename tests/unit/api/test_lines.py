"""JSON lines, in and out."""

from __future__ import annotations

import pytest

from exchange import Exchange
from fake_cluster import FakeCluster, gateway
from over_http import (
    JSONL,
    check_problem,
    double,
    lines_of,
    picky,
)
from waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_lines_out_as_items_finish_or_in_input_order() -> None:
    async with gateway(FakeCluster(double, chunk=2, swap=True)) as client:
        finish = await client.post("/map/double", json=list(range(8)), headers=JSONL)
        ordered = await client.post("/map/double?order=input", json=list(range(8)), headers=JSONL)
    assert finish.headers["content-type"] == "application/jsonl"
    assert finish.headers["cache-control"] == "no-store"
    assert finish.headers["x-accel-buffering"] == "no"
    *rows, last = lines_of(finish)
    assert last == {"done": 8, "failed": 0}
    assert [row["index"] for row in rows] == [2, 3, 0, 1, 6, 7, 4, 5]
    assert all(row["value"] == row["index"] * 2 for row in rows)
    assert lines_of(ordered) == [{"index": n, "value": n * 2} for n in range(8)] + [last]


@pytest.mark.parametrize("errors", ["", "errors=fail&"])
async def test_lines_end_with_the_first_failing_item(errors: str) -> None:
    url = f'/map/picky?{errors}kwargs={{"bad":[4,7]}}'
    cluster = FakeCluster(picky, chunk=2)
    async with gateway(cluster) as client:
        late = await client.post(url, json=list(range(9)), headers=JSONL)
        first = await client.post(url, json=[4], headers=JSONL)
    *rows, last = lines_of(late)
    assert late.status_code == 200
    assert rows == [{"index": n, "value": n} for n in range(4)]
    error = {"index": 4, "kind": "raised", "type": "ValueError", "message": "no 4"}
    assert list(last) == ["problem"]
    assert (last["problem"]["status"], last["problem"]["error"]) == (500, error)
    assert cluster.runs[0].withdrawn.is_set()
    assert cluster.runs[0].taken == 6
    assert check_problem(first, 500, "item-raised")["error"] == error | {"index": 0}


async def test_an_invalid_item_before_the_first_line_is_422() -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", json=[1, "x"], headers=JSONL)
    assert check_problem(response, 422, "item-invalid")["error"]["index"] == 1


async def test_a_bad_line_before_the_first_byte_is_400_and_in_band_after_it() -> None:
    lines = "application/jsonl"
    async with gateway(FakeCluster(double)) as client:
        early = await client.post(
            "/map/double", content=b"1x\n2", headers=JSONL | {"content-type": lines}
        )
    assert check_problem(early, 400, "malformed-body")["line"] == 1
    late = Exchange(FakeCluster(double), "/map/double", lines, lines)
    await late.write(b"1\n2\n")
    await wait_until(lambda: late.output.count(b"\n") == 2, "what the first lines gave")
    await late.write(b"\n\xff\n", more=False)
    await late.task
    assert late.status == 200
    *rows, last = late.lines
    assert [row["value"] for row in rows] == [2, 4]
    assert (last["problem"]["status"], last["problem"]["line"]) == (400, 4)


async def test_lines_in_and_a_list_out() -> None:
    headers = {"content-type": "application/jsonl"}
    url = '/map/picky?kwargs={"bad":[1]}'
    async with gateway(FakeCluster(double, picky, swap=True)) as client:
        good = await client.post(
            "/map/double", content="\n".join(map(str, range(20))), headers=headers
        )
        failing = await client.post(url, content=b"0\n1\n2", headers=headers)
        malformed = await client.post("/map/double", content=b"0\n1\n2]", headers=headers)
        empty = await client.post("/map/double", content=b"", headers=headers)
    assert good.json() == [n * 2 for n in range(20)]
    assert check_problem(failing, 500, "item-raised")["error"]["index"] == 1
    assert check_problem(malformed, 400, "malformed-body")["line"] == 3
    assert empty.json() == []
