"""Somebody else's file fills the disk of the store, and goes away again."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from house import House, Up
from small_disk import disk, fill
from waiting import PATIENCE, wait_until_sync

__all__ = ["disk"]  # A fixture.

TASKS = """
import time
from jetmap import task

@task
def zeros(size: int) -> str:
    time.sleep(0.2)  # So that the job is on its way for ten seconds.
    return "0" * size
"""
COUNT = 100


def ask(url: str, method: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)


def over(up: Up, job: Any) -> bool:
    """Return whether a job has succeeded; the broker may be away while it starts again."""
    return bool(up.get(f"/jobs/{job['id']}")[1].get("state") == "succeeded")


@pytest.mark.slow
def test_a_job_outlives_a_full_disk(house: House, disk: Path) -> None:
    house.tasks.write_text(TASKS, encoding="utf-8")
    up = house.up("--store", str(disk / "store"))
    server = up.child("nats-server").pid
    status, old = ask(f"{up.url}/jobs/zeros", "POST", [1000] * 3)
    assert status == 202
    wait_until_sync(lambda: over(up, old), "a job succeeds")
    status, job = ask(f"{up.url}/jobs/zeros", "POST", [100_000] * COUNT)
    assert status == 202
    job_url = f"/jobs/{job['id']}"

    def shown() -> dict[str, Any]:
        status, record = up.get(job_url)
        assert status == 200, record
        return dict(record)

    wait_until_sync(lambda: shown()["done"] > 4, "the job is on its way")
    other = disk / "other"
    fill(other)

    wait_until_sync(lambda: shown()["waiting_for"] == "room", "the job waits for room")
    assert shown()["state"] == "waiting"
    status, problem = ask(f"{up.url}/jobs/zeros", "POST", [1] * 9000)
    assert (status, problem.get("type")) == (507, "urn:jetmap:store-full"), problem
    assert "room" in problem["detail"]
    wait_until_sync(lambda: "is full" in house.said, "the log says so")
    status, problem = ask(f"{up.url}/jobs/{old['id']}", "DELETE")
    assert status in (204, 507), problem
    assert up.get("/readyz")[0] == 200
    assert up.get("/map/zeros", "[3]") == (200, ["000"])
    assert up.child("nats-server").pid == server

    other.unlink()
    wait_until_sync(lambda: over(up, job), "the job goes on to its end")
    record = shown()
    assert (record["done"], record["failed"], record["waiting_for"]) == (COUNT, 0, None)
    found = up.get(f"{job_url}/results?limit=1000")[1]
    assert found["values"] == ["0" * 100_000] * COUNT and not found["errors"]
    assert up.child("nats-server").pid != server
    assert "has room again; restarting nats-server" in house.said
    if status == 507:
        assert ask(f"{up.url}/jobs/{old['id']}", "DELETE")[0] == 204
    assert up.get(f"/jobs/{old['id']}")[0] == 404
    status, new = ask(f"{up.url}/jobs/zeros", "POST", [1] * 20)
    assert status == 202
    wait_until_sync(lambda: over(up, new), "a new job succeeds")
    assert up.stop() == 0
    assert "Traceback" not in house.said


@pytest.mark.slow
def test_an_up_that_was_started_on_a_full_disk_has_jobs_once_there_is_room(
    house: House, disk: Path
) -> None:
    house.tasks.write_text(TASKS, encoding="utf-8")
    other = disk / "other"
    fill(other)
    up = house.up("--store", str(disk / "store"))
    assert up.get("/map/zeros", "[3]") == (200, ["000"])
    status, problem = ask(f"{up.url}/jobs/zeros", "POST", [1])
    assert (status, problem.get("type")) == (507, "urn:jetmap:store-full"), problem
    wait_until_sync(lambda: "is full" in house.said, "the log says so")

    other.unlink()
    jobs: list[Any] = []

    def accepted() -> bool:
        # Its values need more than the server allowed itself when it started.
        status, job = ask(f"{up.url}/jobs/zeros", "POST", [100_000] * 20)
        jobs.append(job)
        return status == 202

    wait_until_sync(accepted, "a job is accepted")
    wait_until_sync(lambda: over(up, jobs[-1]), "the job succeeds")
    assert "has room again; restarting nats-server" in house.said
    assert up.stop() == 0
    assert "Traceback" not in house.said
