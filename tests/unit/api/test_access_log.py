"""The log of requests, and their counters."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from jetmap_api.access_log import AccessLog, Refusals, RequestLines, Requests
from jetmap_api.problems import Problem

pytestmark = pytest.mark.anyio


async def ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


async def drop(*message: Any) -> None:
    """Send or receive nothing."""


async def test_requests_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jetmap_api.access")
    requests = Requests()
    scope = {"type": "http", "method": "GET", "path": "/jobs", "query_string": b"secret=1"}
    await AccessLog(ok, requests, RequestLines(10))(scope, drop, drop)
    assert requests.answered == {200: 1} and not requests.refused
    assert "GET /jobs 200" in caplog.text and "secret" not in caplog.text


def test_refusals_of_the_server_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jetmap_api.access")
    requests = Requests()
    Refusals(requests, RequestLines(10))("10.0.0.1", Problem(431, "head-too-large", "Too large"))
    assert requests.refused == {"head-too-large": 1}
    assert "10.0.0.1 - - 431 head-too-large" in caplog.text


def test_a_rate_of_zero_logs_nothing() -> None:
    assert not RequestLines(0).passes(logging.ERROR)
