"""A job's results over HTTP: by page, and whole while it runs."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import msgspec
import pytest

from exchange import Exchange
from fake_cluster import gateway
from jobs_over_http import MSGPACK, events_of, site, submit, until_over
from over_http import JSONL, check_problem
from waiting import wait_until

pytestmark = pytest.mark.anyio


# Results: pages


async def test_pages_of_results() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        job = await submit(client, "picky", [0, 1, -2, 3, 4, -5, 6])
        await until_over(client, job["id"])
        path = job["links"]["results"]
        start, pages = 0, []
        while start is not None:
            response = await client.get(f"{path}?start={start}&limit=2")
            page = response.json()
            assert page["start"] == start
            pages.append(page)
            start = page["next"]
            assert ("next" in response.links) == (start is not None)
        assert [value for page in pages for value in page["values"]] == [0, 1, None, 3, 4, None, 6]
        errors = [error for page in pages for error in page["errors"]]
        assert [error["index"] for error in errors] == [2, 5]
        assert set(errors[0]) == {"index", "kind", "type", "message"}
        beyond = (await client.get(f"{path}?start=100")).json()
        assert beyond == {"start": 100, "values": [], "errors": [], "next": None}
        for query in ("start=-1", "limit=0", "limit=10001", "wait=x", "wait=-1", "order=input"):
            check_problem(await client.get(f"{path}?{query}"), 400, "bad-parameter")
        for accept in ("text/event-stream", "image/png"):
            refused = await client.get(path, headers={"accept": accept})
            detail = check_problem(refused, 406, "not-acceptable")["detail"]
            assert "application/msgpack" in detail and "/events" in detail
            assert "event-stream" not in detail
        either = {"accept": "text/event-stream, application/json;q=0.5"}
        assert (await client.get(path, headers=either)).json()["next"] is None


async def test_a_page_of_a_running_job_is_what_is_there() -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "echo", list(range(6)))
        path = job["links"]["results"]
        empty = await client.get(path)
        assert empty.json() == {"start": 0, "values": [], "errors": [], "next": 0}
        assert empty.headers["retry-after"] == "1"
        jobs.put(job["id"], 4, 4, 5)
        jobs.put(job["id"], 0, 0, 1)
        assert (await client.get(path)).json()["next"] == 2
        assert (await client.get(path + "?start=2")).json()["values"] == []
        assert (await client.get(path + "?start=4")).json() == {
            "start": 4,
            "values": [4, 5],
            "errors": [],
            "next": None,
        }
        waiting = asyncio.create_task(client.get(path + "?start=2&wait=30"))
        await wait_until(lambda: jobs.waiters > 0, "it waits")
        jobs.put(job["id"], 2, 2, 3)
        assert (await waiting).json()["values"] == [2, 3, 4, 5]
        short = (await client.get(path + "?start=2&wait=0.01")).json()
        assert short["next"] is None


async def test_pages_skip_what_a_cancelled_job_has_no_outcome_of() -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "echo", list(range(9)))
        jobs.put(job["id"], 5, 5, 6)
        jobs.put(job["id"], 0, 0, 1)
        await jobs.cancel(job["id"])
        start, seen = 0, {}
        while start is not None:
            page = (await client.get(f"{job['links']['results']}?start={start}")).json()
            seen |= dict(enumerate(page["values"], page["start"]))
            start = page["next"]
    assert seen == {0: 0, 1: 1, 5: 5, 6: 6}


# Results: the whole


async def test_json_lines_of_a_job_that_is_over() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        job = await submit(client, "picky", [0, -1, 2, 3, 4])
        await until_over(client, job["id"])
        response = await client.get(job["links"]["results"], headers=JSONL)
        later = await client.get(job["links"]["results"] + "?start=3", headers=JSONL)
        check_problem(
            await client.get(job["links"]["results"] + "?limit=3", headers=JSONL),
            *(400, "bad-parameter"),
        )
    assert response.headers["content-type"] == "application/jsonl"
    assert response.headers["cache-control"] == "no-store"
    found = [json.loads(line) for line in response.text.splitlines()]
    assert [line["index"] for line in found[:-1]] == [0, 1, 2, 3, 4]
    assert found[1]["error"]["kind"] == "raised"
    assert found[4] == {"index": 4, "value": 4}
    assert found[-1] == {"done": 5, "failed": 1}
    assert [json.loads(line) for line in later.text.splitlines()] == [
        {"index": 3, "value": 3},
        {"index": 4, "value": 4},
        {"done": 2, "failed": 0},
    ]


@pytest.mark.parametrize(
    ("accept", "query", "status"),
    [
        ("application/jsonl", "only=failed&limit=1", 400),
        ("application/jsonl", "only=failed&wait=1", 400),
        ("application/jsonl", "only=&limit=1", 400),
        ("application/jsonl", "only=failed&start=1&run=1", 200),
        ("application/jsonl", "only=&start=1&wait=0&run=1", 200),
        ("application/msgpack", "only=&limit=1", 400),
        ("application/msgpack", "only=failed&wait=1", 400),
        ("application/msgpack", "only=failed&start=1&limit=1&run=1", 200),
        ("application/json", "only=&limit=1", 200),
        ("application/json", "only=failed&limit=1", 200),
    ],
)
async def test_parameters_that_an_answer_does_not_have_are_refused(
    accept: str, query: str, status: int
) -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        job = await submit(client, "picky", [0, -1, 2])
        await until_over(client, job["id"])
        path = f"{job['links']['results']}?{query}"
        response = await client.get(path, headers={"accept": accept})
    assert response.status_code == status
    if status == 400:
        check_problem(response, 400, "bad-parameter")


async def test_json_lines_of_a_running_job() -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "echo", list(range(4)))
        jobs.put(job["id"], 0, 0, 1)
        jobs.put(job["id"], 3, 3)
        there = await client.get(job["links"]["results"], headers=JSONL)
        assert there.text.splitlines()[-1] == '{"done":2,"failed":0,"next":2}'
        bit = await client.get(job["links"]["results"] + "?wait=0.02", headers=JSONL)
        assert bit.text == there.text
        path = job["links"]["results"] + "?wait=30"
        exchange = Exchange(cluster, path, accept="application/jsonl", method="GET")
        await exchange.write(b"", more=False)
        await wait_until(lambda: len(exchange.output.splitlines()) == 2, "what is there")
        await wait_until(lambda: jobs.waiters > 0, "it waits")
        jobs.put(job["id"], 2, 2)
        await wait_until(lambda: len(exchange.output.splitlines()) == 4, "what came")
        assert not exchange.ended
        jobs.end(job["id"])
        await exchange.task
    assert exchange.lines[-1] == {"done": 4, "failed": 0}
    assert [line["index"] for line in exchange.lines[:-1]] == [0, 1, 2, 3]


async def test_json_lines_of_a_job_that_ended_early_end_with_a_problem() -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        for state, reason, slug in (
            ("cancelled", None, "job-cancelled"),
            ("failed", "it has outgrown its reservation", "job-failed"),
        ):
            job = await submit(client, "echo", list(range(6)))
            jobs.put(job["id"], 4, 4)
            jobs.put(job["id"], 0, 0, 1)
            jobs.end(job["id"], cast(Any, state), reason)
            response = await client.get(job["links"]["results"], headers=JSONL)
            found = [json.loads(line) for line in response.text.splitlines()]
            assert [line["index"] for line in found[:-1]] == [0, 1, 4]
            problem = found[-1]["problem"]
            assert problem["type"] == f"urn:jetmap:{slug}"
            assert reason is None or problem["detail"] == reason
            assert (problem["done"], problem["total"]) == (3, 6)


async def test_messagepack_is_written_while_the_job_runs() -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "echo", list(range(4)))
        path = job["links"]["results"]
        response = await client.get(f"{path}?limit=1", headers=MSGPACK)
        check_problem(response, 400, "bad-parameter")
        waiting = f"{path}?wait=30"
        exchange = Exchange(cluster, waiting, accept="application/msgpack", method="GET")
        await exchange.write(b"", more=False)
        jobs.put(job["id"], 2, 2, 3)
        jobs.put(job["id"], 0, 0, None, failed=[1])
        await wait_until(lambda: exchange.output.endswith(b"\x00\xc0\x02\x03"), "what is there")
        assert not exchange.ended
        jobs.end(job["id"])
        await exchange.task
    document = msgspec.msgpack.decode(exchange.output)
    assert document["values"] == [0, None, 2, 3]
    assert [error["index"] for error in document["errors"]] == [1]
    assert document["missing"] == [] and document["next"] is None


async def test_messagepack_of_what_is_there() -> None:
    """Without a wait, and behind one in which nothing came; then from there on."""
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "echo", list(range(5)))
        path = job["links"]["results"]
        jobs.put(job["id"], 0, 0, 1)
        for query in ("", "?wait=0.05"):
            response = await client.get(f"{path}{query}", headers=MSGPACK)
            document = msgspec.msgpack.decode(response.content)
            assert document == {
                "start": 0,
                "values": [0, 1, None, None, None],
                "errors": [],
                "missing": [[2, 5]],
                "next": 2,
            }
        jobs.put(job["id"], 2, 2, 3, 4)
        jobs.end(job["id"])
        response = await client.get(f"{path}?start=2", headers=MSGPACK)
    document = msgspec.msgpack.decode(response.content)
    assert (document["start"], document["values"]) == (2, [2, 3, 4])
    assert document["missing"] == [] and document["next"] is None


async def test_messagepack_says_what_is_missing() -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "echo", list(range(9)))
        jobs.put(job["id"], 2, 2, 3)
        jobs.put(job["id"], 6, 6)
        await jobs.cancel(job["id"])
        response = await client.get(job["links"]["results"], headers=MSGPACK)
    document = msgspec.msgpack.decode(response.content)
    assert document["values"] == [None, None, 2, 3, None, None, 6, None, None]
    assert document["missing"] == [[0, 2], [4, 6], [7, 9]]


async def test_results_that_somebody_has_removed_are_said_to_be() -> None:
    """Both by a gateway that has read the job before, and by another."""
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        for knows in (True, False):
            job = await submit(client, "echo", list(range(6)))
            jobs.put(job["id"], 0, 0, 1, 2)
            jobs.put(job["id"], 3, 3, 4, 5)
            jobs.end(job["id"])
            path = job["links"]["results"]
            assert (await client.get(path)).json()["values"] == list(range(6))
            del jobs.store.streams[f"jetmap.outcome.default.{job['id']}"][0]
            if not knows:
                jobs.forget()
            whole = await client.get(path, headers=JSONL)
            problem = json.loads(whole.text.splitlines()[-1])["problem"]
            assert (problem["type"], problem["status"]) == ("urn:jetmap:outcomes-removed", 410)
            check_problem(await client.get(path), 410, "outcomes-removed")
            events = events_of((await client.get(job["links"]["events"])).text)
            assert (events[-1].name, events[-1].data["status"]) == ("failed", 410)
