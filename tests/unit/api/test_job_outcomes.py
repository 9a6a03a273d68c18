"""A job's outcomes over HTTP: pages, whole lists, events that go on where they ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import msgspec
import pytest

from exchange import Exchange
from fake_cluster import FakeCluster, gateway
from fake_jobs import FakeJobs
from jetmap.jobs import readers
from jobs_over_http import MSGPACK, events_of, site, submit, until_over, values_of
from over_http import JSONL, SSE, check_problem
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
        check_problem(await client.get(path, headers=SSE), 406, "not-acceptable")


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


# Events


async def test_events_of_a_job() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        job = await submit(client, "picky", [0, -1, 2, 3, 4, 5, 6])
        await until_over(client, job["id"])
        response = await client.get(job["links"]["events"], headers=SSE)
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        found = events_of(response.text)
        assert [event.name for event in found] == ["start", *["results"] * 3, "done"]
        assert found[0].data == {"job": job["id"], "total": 7}
        assert found[0].id is None
        first = found[1].data
        assert list(first) == ["start", "values", "errors", "done", "total"]
        assert (first["start"], first["values"], first["done"]) == (0, [0, None, 2], 3)
        assert [error["index"] for error in first["errors"]] == [1]
        assert found[3].data["done"] == 7
        assert set(found[-1].data) == {"done", "failed", "seconds"}
        assert (found[-1].data["done"], found[-1].data["failed"]) == (7, 1)
        assert found[-1].id == f"{found[-2].id}-end"
        for last in (found[-1].id, "0-end"):
            gone = await client.get(job["links"]["events"], headers={"last-event-id": str(last)})
            assert (gone.status_code, gone.content) == (204, b"")


@asynccontextmanager
async def overlapping() -> AsyncIterator[tuple[FakeCluster, FakeJobs, httpx.AsyncClient, str]]:
    """A job of two owners that cut differently: messages win several ranges, or nothing."""
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        id = (await submit(client, "echo", list(range(12))))["id"]
        jobs.put(id, 2, 2, 3)
        jobs.put(id, 6, 6)
        jobs.put(id, 0, *(f"again {n}" for n in range(9)))
        jobs.put(id, 1, *(f"late {n}" for n in range(3)))
        jobs.put(id, 9, 9, None, 11, failed=[10])
        yield cluster, jobs, client, id


async def test_events_go_on_behind_any_event_without_a_gap_or_a_repeat() -> None:
    async with overlapping() as (_, jobs, client, id):
        jobs.end(id)
        path = f"/jobs/{id}/events"
        whole = events_of((await client.get(path)).text)
        values = values_of(whole)
        assert sorted(values) == list(range(12))
        assert (values[2], values[4], values[6]) == (2, "again 4", 6)
        counts = [event.data["done"] for event in whole if event.name == "results"]
        assert counts == [2, 3, 5, 7, 9, 12]
        assert len({event.id for event in whole}) == len(whole)
        for at, event in enumerate(whole[1:-1], 1):
            # another gateway, that has read nothing of this job yet
            jobs.forget()
            assert event.id is not None
            for request in (
                {"headers": {"last-event-id": event.id}},
                {"params": {"last_event_id": event.id}},
                {"headers": {"last-event-id": event.id}, "params": {"last_event_id": "0"}},
            ):
                response = await client.get(path, **cast(Any, request))
                rest = events_of(response.text)
                assert rest[0].name == "start"
                assert [(e.id, e.name, e.data) for e in rest[1:]] == [
                    (e.id, e.name, e.data) for e in whole[at + 1 :]
                ]
        for bad in ("x", "1.2.3", "-1", "5-start", "\u0661"):
            response = await client.get(path, params={"last_event_id": bad})
            check_problem(response, 400, "bad-parameter")
        again = events_of((await client.get(path, params={"last_event_id": ""})).text)
        assert len(again) == len(whole)


async def test_events_follow_a_running_job() -> None:
    async with overlapping() as (cluster, jobs, _, id):
        first = Exchange(cluster, f"/jobs/{id}/events", method="GET")
        await first.write(b"", more=False)
        await wait_until(lambda: first.output.count(b"event: results") == 6, "what is there")
        last = events_of(first.output.decode())[3].id
        await first.leave()
        await first.task
        assert not first.ended
        headers = {"last-event-id": str(last)}
        second = Exchange(cluster, f"/jobs/{id}/events", method="GET", headers=headers)
        await second.write(b"", more=False)
        await wait_until(lambda: second.output.count(b"event: results") == 3, "the rest")
        await wait_until(lambda: jobs.waiters > 0, "it waits")
        jobs.end(id)
        await second.task
    both = [*events_of(first.output.decode())[:4], *events_of(second.output.decode())]
    assert sorted(values_of(both)) == list(range(12))
    assert both[-1].name == "done"
    assert both[-1].data["done"] == 12


async def test_events_of_a_job_that_ends_early() -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "echo", [1, 2, 3])
        seq = jobs.put(job["id"], 1, 2)
        jobs.end(job["id"], "failed", "it has outgrown its reservation")
        found = events_of((await client.get(job["links"]["events"])).text)
        assert [event.name for event in found] == ["start", "results", "failed"]
        assert found[-1].id == f"{seq}-end"
        assert found[-1].data["type"] == "urn:jetmap:job-failed"
        assert found[-1].data["detail"] == "it has outgrown its reservation"
        empty = await submit(client, "echo", [])
        jobs.end(empty["id"])
        nothing = events_of((await client.get(empty["links"]["events"])).text)
        assert [(e.name, e.id) for e in nothing] == [("start", None), ("done", "0-end")]


async def test_events_break_off_while_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser comes again, to any gateway, and goes on."""
    monkeypatch.setattr(readers, "LOOK_SECONDS", 0.01)
    async with overlapping() as (cluster, jobs, _, id):
        exchange = Exchange(cluster, f"/jobs/{id}/events", method="GET")
        await exchange.write(b"", more=False)
        await wait_until(lambda: jobs.waiters > 0, "it waits")

        monkeypatch.setattr(readers, "AWAY_SECONDS", 0)
        jobs.store.away = 1 << 30
        await exchange.task
    assert exchange.ended
    assert events_of(exchange.output.decode())[-1].name == "results"


@pytest.mark.parametrize("kind", ["events", "results", "lines", "msgpack"])
async def test_a_client_that_leaves_ends_the_reading(kind: str) -> None:
    cluster, jobs = site(hold=True)
    async with gateway(cluster) as client:
        job = await submit(client, "echo", [1, 2])
    path = f"/jobs/{job['id']}/{'events' if kind == 'events' else 'results'}"
    accept = {"lines": "application/jsonl", "msgpack": "application/msgpack"}.get(kind, "*/*")
    if kind != "events":
        path += "?wait=300"
    exchange = Exchange(cluster, path, accept=accept, method="GET")
    await exchange.write(b"", more=False)
    await wait_until(lambda: jobs.waiters > 0, "it waits")
    await exchange.leave()
    async with asyncio.timeout(20):
        await exchange.task
    assert jobs.waiters == 0
    assert exchange.ended == (exchange.status == 499), "an answer that has begun has no end"
