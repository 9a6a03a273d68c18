"""Jobs over HTTP: submitted, looked at, ended."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from exchange import Exchange
from fake_cluster import gateway
from jetmap.errors import BrokerUnreachable, JobsUnavailable, KeyBusy, StoreFull
from jobs_over_http import site, submit, until_over
from over_http import check_problem
from waiting import PATIENCE

pytestmark = pytest.mark.anyio


# Submitting


@pytest.mark.parametrize("media", ["application/json", "application/jsonl", "application/msgpack"])
async def test_a_job_of_any_body_is_accepted_and_runs(media: str) -> None:
    items = list(range(10))
    content = {
        "application/json": json.dumps(items).encode(),
        "application/jsonl": b"".join(b"%d\n" % item for item in items),
        "application/msgpack": msgspec.msgpack.encode(items),
    }[media]
    cluster, _ = site()
    async with gateway(cluster) as client:
        response = await client.post(
            "/jobs/double", content=content, headers={"content-type": media}
        )
        assert response.status_code == 202
        first = response.json()
        path = response.headers["location"]
        assert path == f"/jobs/{first['id']}" == first["links"]["self"]
        assert (first["function"], first["total"], first["state"]) == ("double", 10, "queued")
        assert response.headers["retry-after"] == "1"
        document = await until_over(client, first["id"])
        results = (await client.get(path + "/results")).json()
    assert (document["state"], document["done"], document["failed"]) == ("succeeded", 10, 0)
    assert results == {"start": 0, "values": [n * 2 for n in items], "errors": [], "next": None}


async def test_the_status_document() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        id = (await submit(client, "picky", [1, -1, 2, -2]))["id"]
        document = await until_over(client, id)
    assert list(document) == [
        *("id", "function", "state", "total", "done", "failed", "created", "started"),
        *("finished", "rate", "seconds_left", "waiting_for", "reason", "max_failed"),
        *("run", "labels", "max_parallel", "paused", "links"),
    ]
    assert (document["state"], document["total"], document["done"], document["failed"]) == (
        *("failed", 4, 4, 2),
    )
    for name in ("created", "started", "finished"):
        assert document[name].endswith("Z") and "T" in document[name]
    assert document["rate"] > 0
    assert document["seconds_left"] == 0
    assert document["links"] == {
        "self": f"/jobs/{id}",
        "results": f"/jobs/{id}/results",
        "events": f"/jobs/{id}/events",
        "cancel": f"/jobs/{id}/cancel",
        "retry": f"/jobs/{id}/retry",
    }


async def test_parameters_reach_the_job() -> None:
    cluster, jobs = site()
    query = '?kwargs={"more":5}&timeout=60&ttl=3600&reserve=100000'
    async with gateway(cluster) as client:
        job = await submit(client, "echo", [1], query)
        await until_over(client, job["id"])
        results = (await client.get(job["links"]["results"])).json()
        packed = await client.post(
            f"/jobs/echo{query}",
            content=msgspec.msgpack.encode([1]),
            headers={"content-type": "application/msgpack"},
        )
    assert results["values"] == [[1, 5]]
    assert jobs.begun[0] == {
        "caller": "anonymous",
        "key": None,
        "ttl": 3600,
        "timeout": 60,
        "reserve": 100_000,
    }
    assert packed.status_code == 202
    assert jobs.records[packed.json()["id"]].kwargs == msgspec.msgpack.encode({"more": 5})


async def test_refusals() -> None:
    cluster, jobs = site()
    async with gateway(cluster) as client:
        check_problem(await client.post("/jobs/nothing", json=[1]), 404, "unknown-function")
        plain = await client.post("/jobs/double", content=b"[1]")
        check_problem(plain, 415, "unsupported-media-type")
        jobs.refuse = StoreFull("the store is full", limit=1000, used=900, wanted=200)
        problem = check_problem(await client.post("/jobs/double", json=[1]), 507, "store-full")
        assert (problem["limit"], problem["used"], problem["wanted"]) == (1000, 900, 200)
        jobs.refuse = KeyBusy("it is uploading", retry_after=1.5)
        busy = await client.post("/jobs/double", json=[1])
        check_problem(busy, 409, "key-busy")
        assert busy.headers["retry-after"] == "2"
        jobs.refuse = BrokerUnreachable("it is away")
        check_problem(await client.post("/jobs/double", json=[1]), 503, "no-broker")
        jobs.refuse = JobsUnavailable("no store")
        check_problem(await client.post("/jobs/double", json=[1]), 501, "jobs-unavailable")
        cluster.service = None
        for method, path in (
            *(("POST", "/jobs/double"), ("GET", "/jobs"), ("GET", "/jobs/x")),
            *(("GET", "/jobs/x/results"), ("GET", "/jobs/x/events")),
            *(("POST", "/jobs/x/cancel"), ("DELETE", "/jobs/x")),
        ):
            headers = {"content-type": "application/json"}
            response = await client.request(method, path, headers=headers)
            check_problem(response, 501, "jobs-unavailable")


async def test_a_malformed_body_leaves_nothing() -> None:
    cluster, jobs = site()
    body = json.dumps(list(range(200_000))).encode()
    async with gateway(cluster) as client:
        for content, status in (
            (body[:-1] + b",", 400),
            (body[:-1] + b" nonsense]", 400),
            (body[:-2] + b'"\xff"]', 400),
            (body + b"]", 400),
            (b"", 400),
            (b"{}", 400),
            (body[:-1] + b',"' + b"x" * 1_000_000 + b'"]', 413),
        ):
            headers = {"content-type": "application/json"}
            response = await client.post("/jobs/double", content=content, headers=headers)
            assert response.status_code == status, response.text
            assert response.headers["content-type"] == "application/problem+json"
            assert jobs.uploads.pop().state == "aborted"
        assert (await client.get("/jobs")).json() == {"jobs": [], "next": None}


async def test_a_store_that_gets_full_midway_is_507() -> None:
    cluster, jobs = site()
    jobs.room = 1000
    async with gateway(cluster) as client:
        response = await client.post("/jobs/double", json=list(range(100_000)))
    check_problem(response, 507, "store-full")
    assert jobs.uploads[0].state == "aborted"


@pytest.mark.parametrize("behind", [b"[", b"[1,2", b"[" + b"123456," * 100_000])
async def test_a_client_that_leaves_midway_leaves_nothing(behind: bytes) -> None:
    cluster, jobs = site()
    exchange = Exchange(cluster, "/jobs/double")
    await exchange.write(behind)
    await exchange.leave()
    await exchange.task
    assert jobs.uploads[0].state == "aborted"
    assert not jobs.records
    assert exchange.status == 499


async def test_a_client_that_leaves_behind_the_end_has_submitted() -> None:
    cluster, jobs = site()
    exchange = Exchange(cluster, "/jobs/double")
    exchange.gone = True
    await exchange.write(b"[1,2]", more=False)
    await exchange.leave()
    await asyncio.gather(exchange.task, return_exceptions=True)
    assert len(jobs.records) == 1


async def test_a_long_body_is_stored_in_pieces_while_it_arrives() -> None:
    cluster, jobs = site(hold=True)
    exchange = Exchange(cluster, "/jobs/double", max_list=10, max_body_bytes=1000)
    await exchange.write(b"[0")
    upload = None
    for _ in range(200):
        await exchange.write(b",123456" * 5000)
        upload = jobs.uploads[0]
    assert upload is not None
    assert upload.count > 900_000
    upload.has_room.clear()
    for _ in range(20):
        async with asyncio.timeout(PATIENCE):
            try:
                await asyncio.wait_for(exchange.write(b",123456" * 5000), 0.05)
            except TimeoutError:
                break
    else:
        pytest.fail("the body is read though the store has no room")
    upload.has_room.set()
    await exchange.write(b"]", more=False)
    await exchange.task
    assert exchange.status == 202
    assert max(sum(map(len, piece)) for piece in upload.pieces) < 1 << 20
    assert (upload.count - 1) % 5000 == 0
    assert next(iter(jobs.records.values())).total == upload.count > 1_000_000


# Idempotency


async def test_an_idempotency_key_gives_the_same_job() -> None:
    cluster, jobs = site()
    async with gateway(cluster) as client:
        key = {"idempotency-key": '"a b"'}
        first = await submit(client, "double", [1, 2], **key)
        again = await submit(client, "double", [1, 2], **key)
        unquoted = await submit(client, "double", [1, 2], **{"idempotency-key": "a b"})
        other = await submit(client, "double", [1, 2], **{"idempotency-key": "c"})
        for path, body in (("double", [1, 3]), ("echo", [1, 2])):
            response = await client.post(f"/jobs/{path}", json=body, headers=key)
            check_problem(response, 422, "key-reused")
        for bad in ("", '""', "x" * 300):
            response = await client.post("/jobs/double", json=[1], headers={"idempotency-key": bad})
            check_problem(response, 400, "bad-parameter")
    assert first["id"] == again["id"] == unquoted["id"] != other["id"]
    assert {begun["caller"] for begun in jobs.begun} == {"anonymous"}


# Looking and ending


async def test_jobs_are_listed_by_page_state_and_function() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        ids = []
        for number in range(5):
            function = "never" if number % 2 else "double"
            ids.append((await submit(client, function, [number]))["id"])
        for id in ids[::2]:
            await until_over(client, id)
        everything = (await client.get("/jobs")).json()
        assert [job["id"] for job in everything["jobs"]] == ids[::-1]
        assert everything["next"] is None
        running = (await client.get("/jobs?state=queued,running")).json()
        assert {job["id"] for job in running["jobs"]} == set(ids[1::2])
        named = (await client.get("/jobs?function=double&state=succeeded")).json()
        assert [job["id"] for job in named["jobs"]] == ids[::-2]
        seen = []
        url = "/jobs?limit=2&function=double"
        while url:
            response = await client.get(url)
            page = response.json()
            seen += [job["id"] for job in page["jobs"]]
            url = page["next"]
            if url:
                assert response.headers["link"] == f'<{url}>; rel="next"'
        assert seen == ids[::-2]
        for query in ("state=uploading", "limit=0", "limit=x", "limit=1001", "what=1"):
            check_problem(await client.get(f"/jobs?{query}"), 400, "bad-parameter")


async def test_a_job_that_there_is_not_is_404() -> None:
    cluster, _ = site()
    async with gateway(cluster) as client:
        for method, path in (
            *(("GET", "/jobs/x"), ("GET", "/jobs/x/results"), ("GET", "/jobs/x/events")),
            *(("POST", "/jobs/x/cancel"), ("DELETE", "/jobs/x")),
        ):
            check_problem(await client.request(method, path), 404, "unknown-job")


async def test_cancel_and_delete() -> None:
    cluster, jobs = site()
    async with gateway(cluster) as client:
        job = await submit(client, "never", [1, 2])
        cancelled = await client.post(job["links"]["cancel"])
        again = await client.post(job["links"]["cancel"])
        assert (cancelled.status_code, again.status_code) == (202, 202)
        assert cancelled.json()["state"] == again.json()["state"] == "cancelled"
        removed = await client.delete(job["links"]["self"])
        assert (removed.status_code, removed.content) == (204, b"")
        check_problem(await client.get(job["links"]["self"]), 404, "unknown-job")
        check_problem(await client.delete(job["links"]["self"]), 404, "unknown-job")
    assert not jobs.records


async def test_an_expired_jobs_results_are_gone() -> None:
    cluster, jobs = site()
    async with gateway(cluster) as client:
        job = await submit(client, "double", [1])
        await until_over(client, job["id"])
        jobs.expire(job["id"])
        status = await client.get(job["links"]["self"])
        assert (status.status_code, status.json()["state"]) == (200, "expired")
        for kind in ("results", "events"):
            check_problem(await client.get(job["links"][kind]), 410, "job-expired")


async def test_failed_items_are_listed_and_run_again() -> None:
    cluster, jobs = site()
    jobs.hold = True
    async with gateway(cluster) as client:
        id = (await submit(client, "picky", [1, -1, 2, -2]))["id"]
        path = f"/jobs/{id}"
        check_problem(await client.post(f"{path}/retry"), 409, "job-not-retryable")
        jobs.put(id, 0, 1, -1, 2, -2, failed=[1, 3])
        jobs.end(id)
        failed = {"only": "failed", "limit": 1}
        page = await client.get(f"{path}/results", params=failed)
        assert [page.json()[name] for name in ("start", "values", "next")] == [0, [], 3]
        assert [error["index"] for error in page.json()["errors"]] == [1]
        first_events = (await client.get(f"{path}/events")).text
        again = await client.post(f"{path}/retry")
        assert (again.status_code, again.json()["run"], again.json()["done"]) == (202, 2, 2)
        jobs.put(id, 1, 11)
        jobs.put(id, 3, -2, failed=[3])
        jobs.end(id)
        follow = await client.get(page.links["next"]["url"])
        assert [error["index"] for error in follow.json()["errors"]] == [3]
        packed = await client.get(
            f"{path}/results?only=failed", headers={"accept": "application/msgpack"}
        )
        assert msgspec.msgpack.decode(packed.content)["run"] == 2
        lines = await client.get(
            f"{path}/results?only=failed&run=1", headers={"accept": "application/jsonl"}
        )
        assert [json.loads(line).get("index") for line in lines.text.splitlines()] == [1, 3, None]
        limited = await client.get(f"{path}/results?limit=2")
        assert limited.json()["values"] == [1, 11] and "run=2" in limited.links["next"]["url"]
        assert (await client.get(f"{path}/results?run=1")).json()["values"] == [1, None, 2, None]
        check_problem(await client.get(f"{path}/results?run=3"), 404, "unknown-job")
        check_problem(await client.get(f"{path}/results?only=x"), 400, "bad-parameter")
        # Events of the first run stay as they were; those of the second carry its number.
        assert (await client.get(f"{path}/events?run=1")).text == first_events
        second = (await client.get(f"{path}/events")).text
        ids = [line[4:] for line in second.splitlines() if line.startswith("id: ")]
        assert ids and all(found.startswith("2/") for found in ids)
        rest = await client.get(f"{path}/events", headers={"last-event-id": ids[0]})
        assert second.endswith(rest.text.split("\n\n", 1)[1])
        headers = {"last-event-id": ids[-1]}
        assert (await client.get(f"{path}/events", headers=headers)).status_code == 204
        # The event's id chooses the run, whatever the address says.
        assert (await client.get(f"{path}/events?run=1", headers=headers)).status_code == 204


async def test_labels_are_shown_and_filter() -> None:
    cluster, jobs = site()
    jobs.hold = True
    async with gateway(cluster) as client:
        ids = []
        for query in (
            "labels=customer=7,team=a&max_parallel=2",
            "labels=customer=8&max_parallel=0",
            "",
        ):
            response = await client.post(f"/jobs/double?{query}", json=[1])
            ids.append(response.json()["id"])
        first = (await client.get(f"/jobs/{ids[0]}")).json()
        assert first["labels"] == {"customer": "7", "team": "a"} and first["max_parallel"] == 2
        unlimited = (await client.get(f"/jobs/{ids[1]}")).json()
        assert unlimited["max_parallel"] is None
        for query, expected in (("customer=7", ids[:1]), ("team=a,customer=8", []), ("", ids)):
            listed = (await client.get("/jobs", params={"labels": query})).json()["jobs"]
            assert [job["id"] for job in listed] == expected[::-1]
        for path in ("/jobs/double", "/map/double"):
            for wrong in ("labels=x", "max_parallel=-1", "labels=ü=1"):
                refused = await client.post(f"{path}?{wrong}", json=[1])
                check_problem(refused, 400, "bad-parameter")
        check_problem(await client.get("/jobs?labels=x"), 400, "bad-parameter")


async def test_a_job_is_paused_limited_and_resumed() -> None:
    cluster, jobs = site()
    jobs.hold = True
    async with gateway(cluster) as client:
        path = f"/jobs/{(await submit(client, 'double', [1]))['id']}"
        for action, paused, limit in (
            ("pause", True, None),
            ("limit?max_parallel=3", True, 3),
            ("resume", False, 3),
            ("limit", False, None),
            ("limit?max_parallel=2", False, 2),
            ("limit?max_parallel=0", False, None),
        ):
            answer = await client.post(f"{path}/{action}")
            assert answer.status_code == 202
            assert (answer.json()["paused"], answer.json()["max_parallel"]) == (paused, limit)
        check_problem(await client.post(f"{path}/limit?max_parallel=-1"), 400, "bad-parameter")
        check_problem(await client.post("/jobs/nobody/pause"), 404, "unknown-job")
