"""Clients that stop sending in the middle of an upload."""

from __future__ import annotations

import asyncio

import pytest

from exchange import Exchange
from jobs_over_http import site
from waiting import PATIENCE

pytestmark = pytest.mark.anyio


async def test_a_client_that_says_nothing_more_frees_its_key() -> None:
    cluster, jobs = site()
    headers = {"idempotency-key": "k"}
    exchange = Exchange(cluster, "/jobs/double", headers=headers, job_upload_idle=0.2)
    await exchange.write(b"[1, 2")
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.status == 408
    [problem] = exchange.lines
    assert problem["type"] == "urn:jetmap:upload-idle" and "0.2" in problem["detail"]
    assert [found.state for found in jobs.uploads] == ["aborted"]
    again = exchange.beside("/jobs/double", headers=headers)
    await again.write(b"[1, 2]", more=False)
    await again.task
    assert again.status == 202
