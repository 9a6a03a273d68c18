"""A job's events, which go on where the reader left off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from exchange import Exchange
from fake_cluster import FakeCluster, gateway
from fake_jobs import FakeJobs
from jetmap.jobs import readers
from jetmap_api.job_events import EventId
from jetmap_api.problems import Problem
from jobs_over_http import events_of, site, submit, until_over, values_of
from over_http import SSE, check_problem
from waiting import PATIENCE, wait_until


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", EventId()),
        ("7", EventId(7, run=1)),
        ("7.2", EventId(7, 2, run=1)),
        ("7-end", EventId(7, 0, True, 1)),
        ("3/7.2-end", EventId(7, 2, True, 3)),
    ],
)
def test_ids_of_events(text: str, expected: EventId) -> None:
    assert EventId.read(text) == expected


@pytest.mark.parametrize(
    "text", ["x", "-1", "7.", "7-END", " 7", "1" * 19, "\N{ARABIC-INDIC DIGIT SEVEN}"]
)
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        EventId.read(text)
    assert caught.value.members["parameter"] == "Last-Event-ID"


@pytest.mark.anyio
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


@pytest.mark.anyio
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
        for bad in ("x", "1.2.3", "-1", "5-start", "\u0661", "8", "9999", "9" * 18):
            for forget in (jobs.forget, bool):  # This gateway has read nothing, or everything.
                forget()
                response = await client.get(path, params={"last_event_id": bad})
                check_problem(response, 400, "bad-parameter")
        again = events_of((await client.get(path, params={"last_event_id": ""})).text)
        assert len(again) == len(whole)


@pytest.mark.anyio
async def test_the_last_event_of_a_job_that_goes_on_is_refused() -> None:
    async with overlapping() as (_, _jobs, client, id):
        path = f"/jobs/{id}/events"
        response = await client.get(path, headers={"last-event-id": "7-end"})
        check_problem(response, 400, "bad-parameter")
        await client.delete(f"/jobs/{id}")
        assert (await client.get(path, headers={"last-event-id": "7-end"})).status_code == 204


@pytest.mark.anyio
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


@pytest.mark.anyio
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


@pytest.mark.anyio
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


@pytest.mark.anyio
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
    async with asyncio.timeout(PATIENCE):
        await exchange.task
    assert jobs.waiters == 0
    assert exchange.ended == (exchange.status == 499), "an answer that has begun has no end"
