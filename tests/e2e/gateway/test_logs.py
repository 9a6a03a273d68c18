"""Logs: a line a request and a crash, none that a client can forge, and none with a secret."""

from __future__ import annotations

import asyncio
import json
import os
import re
import urllib.error
import urllib.request
from typing import Any, cast

import pytest

from fake_cluster import FakeCluster, gateway
from house import UP, House, Up
from jetmap.settings import Settings
from jetmap_api import create_app
from jetmap_api.access_log import AccessLog, RequestLines, Requests, reason_of
from jetmap_api.asgi import AsgiMessage, Scope
from served import gateway as served_gateway
from waiting import PATIENCE, wait_until_sync

pytestmark = pytest.mark.anyio


def double(n: int) -> int:
    return 2 * n


# Deciding


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "not-found"), (429, "too-many-requests"), (499, "client-left"), (599, "other")],
)
def test_refusals_that_name_no_reason(status: int, reason: str) -> None:
    assert reason_of(status) == reason


# Requests


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "jetmap_api.access"]


async def test_a_line_a_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        async with gateway(FakeCluster(double)) as client:
            await client.post("/map/double", json=[1, 2])
            await client.post("/map/nothing?timeout=3", json=[1])
            await client.get("/no/such/place")
            await client.get("/healthz")
            await client.get("/metrics")
    found = lines(caplog)
    assert len(found) == 3  # Probes and scrapes are for --log-level debug.
    assert re.fullmatch(r"\S+ POST /map/double 200 \d+\.\d ms", found[0])
    assert re.fullmatch(r"\S+ POST /map/nothing 404 unknown-function \d+\.\d ms", found[1])
    assert re.fullmatch(r"\S+ GET /no/such/place 404 not-found \d+\.\d ms", found[2])


async def test_nothing_secret_and_nothing_forged(caplog: pytest.LogCaptureFixture) -> None:
    secret = "s3cr3t-t0ken"
    with caplog.at_level("DEBUG"):
        async with gateway(FakeCluster(double), token=secret) as client:
            bearer = {"authorization": f"Bearer {secret}"}
            await client.post("/map/double", json=[1], headers=bearer)
            await client.post("/map/double", json=[1], headers={"authorization": "Bearer wr0ng"})
            await client.get(f"/jobs/x/events?signature={secret}&token={secret}")
            await client.get("/functions/x%0A12:00:00%20INFO%20forged%1B[2J", headers=bearer)
            await client.get("/" + "x" * 5000)
            await client.post("/login", data={"token": secret})
    ours = [record for record in caplog.records if record.name.startswith("jetmap")]
    text = "\n".join(record.getMessage() for record in ours)
    assert secret not in text and "wr0ng" not in text and "signature" not in text
    assert "\x1b" not in text and r"x\n12:00:00 INFO forged\x1b[2J" in text
    assert len(lines(caplog)) == 6
    assert max(map(len, lines(caplog))) < 300


async def test_a_flood_of_requests_does_not_fill_the_disk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]

    async def send(message: AsgiMessage) -> None:
        pass

    async def receive() -> AsgiMessage:
        raise AssertionError

    requests = Requests()
    request_lines = RequestLines(5)
    log = AccessLog(app, requests, request_lines)
    scope = {"type": "http", "method": "GET", "path": "/x", "client": ("1.2.3.4", 5)}
    with caplog.at_level("INFO"):
        for _ in range(10_000):
            await log(dict(scope), receive, send)
        request_lines.report_left_out()
    assert requests.answered[200] == 10_000
    found = lines(caplog)
    assert len(found) < 100
    told = sum(int(line.split()[0]) for line in found if "not shown here" in line)
    shown = sum("GET /x" in line for line in found)
    assert told + shown == 10_000


async def test_what_the_server_itself_refuses(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before there is a request: it is logged and counted like others, within the same rate."""
    settings = Settings(header_timeout=1.0, access_log=5)
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    asked = {
        "head-too-large": head + b"x: " + b"y" * 100_000,
        "too-many-headers": head + b"x: y\r\n" * 300,
        "uri-too-long": b"GET /?token=s3cr3t" + b"x" * 100_000,
        "not-http": b"\x16\x03\x01 hello\r\n\r\n",
        "slow-head": head,
    }
    app = create_app(cast(Any, FakeCluster(double)), settings)
    with caplog.at_level("INFO"):
        async with served_gateway(app, settings) as (server, port):

            async def ask(data: bytes) -> None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(data)
                assert b"application/problem+json" in await asyncio.wait_for(
                    reader.read(), PATIENCE
                )
                writer.close()

            for data in asked.values():
                await ask(data)
            with monkeypatch.context() as patch:
                patch.setattr(server.guard, "admit", lambda newcomer, open: False)
                await ask(b"")
            for _ in range(50):
                await ask(asked["not-http"])
    refused = app.state.requests.refused
    expected = dict.fromkeys(asked, 1) | {"too-many-connections": 1, "not-http": 51}
    assert {name: refused[name] for name in expected} == expected
    assert app.state.requests.answered[431] == 2
    found = lines(caplog)
    for name in expected:
        assert any(re.fullmatch(rf"127\.0\.0\.1 - - \d+ {name}", line) for line in found), found
    assert len(found) < 30 and "s3cr3t" not in str(found)


# For real

CRASHES = """
import os, signal, time
from jetmap import task

@task(timeout=0.3)
def hurt(how: str) -> str:
    if how == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "sleep":
        time.sleep(600)
    return how
"""


def test_crashes_leave_a_trace_under_up(house: House) -> None:
    """Each process of `up` logs them at its level, with the facts to look for."""
    house.tasks.write_text(CRASHES)
    up = house.up("--log-level", "info", "--cores", "1")
    try:
        for how in ("fine", "sleep", "segv"):  # A worker's first call may take longer.
            request = urllib.request.Request(
                f"{up.url}/map/hurt",
                json.dumps([how]).encode(),
                {"content-type": "application/json"},
            )
            try:
                urllib.request.urlopen(request, timeout=PATIENCE).close()
            except urllib.error.HTTPError as error:
                assert how != "fine", error.read()
        for pattern in (
            r"WARNING jetmap\.agent\.\w+: hurt, item 0 of map \S+: the worker was killed by "
            r"SIGSEGV in this item; its memory peaked at \d+ MiB",
            r"WARNING jetmap\.agent\.\w+: hurt, item 0 of map \S+: it computed for longer than "
            r"its timeout of 0\.3 s",
            r"INFO +jetmap_api\.access: \S+ POST /map/hurt 200 ",
            r"INFO +jetmap_api\.access: \S+ POST /map/hurt [45]\d\d ",
        ):
            wait_until_sync(lambda p=pattern: re.search(p, house.said), pattern)  # type: ignore[misc]
    finally:
        house.close()


# A reader that does not read


def test_a_log_that_nobody_reads_stops_nobody(house: House) -> None:
    reader, writer = os.pipe()
    process = house.start(*UP, stderr_fd=writer, JETMAP_ACCESS_LOG="10000")
    up = Up(house, process)
    # Each a line of 200 characters: more than the pipe's 64 KiB, and as much as the gateway keeps.
    for number in range(1000):
        assert up.get(f"/{number:0150}")[0] == 404
    with os.fdopen(reader, encoding="utf-8") as log:
        found = next(line for line in log if "more log lines are not shown here" in line)
        assert re.search(r"WARNING jetmap.logs: \d+ more", found)
        process.terminate()
        log.read()  # To its end: all processes of this log have ended.
    assert process.wait() == 0
