"""``Prefer`` on a map: a job from the start, whose answer may be awaited."""

from __future__ import annotations

import json

import msgspec
import pytest

from exchange import Exchange
from fake_cluster import gateway
from jetmap.errors import JobsUnavailable, StoreFull
from jobs_over_http import MSGPACK, site, until_over
from over_http import check_problem
from waiting import wait_until

pytestmark = pytest.mark.anyio


# Prefer


async def test_respond_async_is_a_job() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        for accept in ("application/json", "text/event-stream", "application/jsonl"):
            headers = {"prefer": "respond-async", "accept": accept}
            response = await client.post("/map/double", json=[1, 2], headers=headers)
            assert response.status_code == 202
            assert response.headers["preference-applied"] == "respond-async"
            path = response.headers["location"]
            await until_over(client, response.json()["id"])
            assert (await client.get(path + "/results")).json()["values"] == [2, 4]
    assert not cluster.runs


@pytest.mark.parametrize("prefer", ["wait=30", "respond-async, wait=30", "Wait = 30; x=y"])
async def test_an_answer_in_time_is_that_of_the_map(prefer: str) -> None:
    cluster, jobs = site()
    headers = {"prefer": prefer}
    packed = {"content-type": "application/msgpack", "accept": "application/msgpack"}
    async with gateway(cluster) as client:
        for path, body, more in (
            ("/map/double", json.dumps(list(range(10))).encode(), {}),
            ("/map/double", b"[]", {}),
            ("/map/double", b"[1,2]", MSGPACK),
            ("/map/double", msgspec.msgpack.encode([1, 2]), packed),
            ("/map/double", msgspec.msgpack.encode([1, 2]), packed | {"accept": "*/*"}),
            ("/map/double", b"1\n2\n", {"content-type": "application/jsonl"}),
            ("/map/picky?errors=collect", b"[1,-2,3,-4]", {}),
            ("/map/picky?errors=collect", b"[1,-2,3,-4]", MSGPACK),
        ):
            usual = {"content-type": "application/json"} | more
            plain = await client.post(path, content=body, headers=usual)
            response = await client.post(path, content=body, headers=usual | headers)
            assert (plain.status_code, response.status_code) == (200, 200)
            assert response.headers["content-type"] == plain.headers["content-type"]
            assert "wait=30" in response.headers["preference-applied"]
            assert "preference-applied" not in plain.headers
            if "collect" in path:
                decode = msgspec.msgpack.decode if more else msgspec.json.decode
                assert decode(response.content)["values"] == decode(plain.content)["values"]
                assert [e["index"] for e in decode(response.content)["errors"]] == [1, 3]
            else:
                assert response.content == plain.content
        problem = await client.post("/map/picky", json=[1, -1, 2, -2], headers=headers)
        assert check_problem(problem, 500, "item-raised")["error"]["index"] == 1
        late = await client.post("/map/never?timeout=0.05", json=[1], headers=headers)
        check_problem(late, 504, "timeout")
        malformed = await client.post(
            "/map/double",
            content=b"[1,",
            headers=headers | {"content-type": "application/json"},
        )
        check_problem(malformed, 400, "malformed-body")
    # answered jobs are of no use any more
    await wait_until(lambda: not jobs.records, "they are removed")


@pytest.mark.parametrize(
    ("query", "items", "failed"),
    [("0", [1, -1, 2], 1), ("1", [-1, -2, -4], 3), ("50%25", [-1, -2, 3], 2)],
)
async def test_too_many_failed_items_are_named_as_by_a_map(
    query: str, items: list[int], failed: int
) -> None:
    cluster, jobs = site(chunk=100)
    path = f"/map/picky?max_failed={query}"
    async with gateway(cluster) as client:
        plain = await client.post(path, json=items)
        awaited = await client.post(path, json=items, headers={"prefer": "wait=30"})
        for answer in (plain, awaited):
            document = check_problem(answer, 500, "too-many-failed")
            assert (document["failed"], document["done"], document["total"]) == (failed, 3, 3)
            indices = [error["index"] for error in document["errors"]]
            assert indices == [index for index, item in enumerate(items) if item < 0]
        tolerated = f"/map/picky?max_failed={failed}"
        answer = await client.post(tolerated, json=items, headers={"prefer": "wait=30"})
        assert (answer.status_code, len(answer.json()["errors"])) == (200, failed)
    await wait_until(lambda: not jobs.records, "they are removed")


async def test_an_answer_that_is_not_in_time_is_a_job() -> None:
    cluster, jobs = site()
    async with gateway(cluster, max_list=1000) as client:
        for prefer in ("respond-async,wait=1",):
            response = await client.post(
                "/map/slow_after_two", json=[0, 1, 2, 3], headers={"prefer": prefer}
            )
            assert response.status_code == 202
            assert response.headers["preference-applied"] == prefer.replace(",", ", ")
            document = response.json()
            assert response.headers["location"] == document["links"]["self"]
            assert document["done"] == 3
            assert int(response.headers["retry-after"]) >= 1
        first = await client.post(
            "/map/picky", json=[-1, *range(50)], headers={"prefer": "respond-async, wait=0"}
        )
        assert first.status_code == 202
    assert len(jobs.records) == 2


async def test_an_answered_job_of_a_key_stays() -> None:
    cluster, jobs = site()
    headers = {"prefer": "wait=30", "idempotency-key": "k"}
    async with gateway(cluster) as client:
        for _ in range(2):
            response = await client.post("/map/double", json=[1, 2], headers=headers)
            assert (response.status_code, response.json()) == (200, [2, 4])
        headers["prefer"] = "respond-async"
        job = await client.post("/map/double", json=[1, 2], headers=headers)
        assert job.headers["location"] == f"/jobs/{next(iter(jobs.records))}"
        other = await client.post("/map/double", json=[3], headers=headers)
        check_problem(other, 422, "key-reused")
    assert len(jobs.records) == 1
    assert not jobs.deleted


@pytest.mark.parametrize("key", [{}, {"idempotency-key": "k"}])
async def test_who_leaves_while_the_answer_is_awaited_withdraws_the_job(
    key: dict[str, str],
) -> None:
    cluster, jobs = site()
    exchange = Exchange(cluster, "/map/never", headers={"prefer": "wait=60"} | key)
    await exchange.write(b"[1]", more=False)
    await wait_until(lambda: jobs.waiters > 0, "it waits")
    await exchange.leave()
    await exchange.task
    await wait_until(lambda: bool(key) or jobs.deleted != [], "it is removed")
    assert len(jobs.records) == len(key)
    for task in jobs.tasks.values():
        task.cancel()


async def test_preferences_that_are_ignored() -> None:
    cluster, jobs = site()
    async with gateway(cluster) as client:
        for prefer in (
            "return=minimal",
            "wait",
            "wait=x",
            "wait=-1",
            "",
            "handling=strict; wait=3",
        ):
            response = await client.post("/map/double", json=[1], headers={"prefer": prefer})
            assert (response.status_code, response.json()) == (200, [2])
            assert "preference-applied" not in response.headers
        # a stream has begun long before
        headers = {"prefer": "wait=5", "accept": "application/jsonl"}
        response = await client.post("/map/double", json=[1], headers=headers)
        assert response.text.splitlines() == ['{"index":0,"value":2}', '{"done":1,"failed":0}']
        assert not jobs.begun
        jobs.refuse = StoreFull("it is full", limit=1, used=1, wanted=1)
        response = await client.post("/map/double", json=[1], headers={"prefer": "respond-async"})
        assert (response.status_code, response.json()) == (200, [2])
        jobs.refuse = JobsUnavailable("there is none")
        response = await client.post("/map/double", json=[1], headers={"prefer": "wait=3"})
        assert (response.status_code, response.json()) == (200, [2])
