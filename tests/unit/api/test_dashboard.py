"""The dashboard's endpoints: the page, its stream, its details, and who may act."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import jetmap_api
from activities import activity, failure, map_of
from fake_cluster import FakeCluster, gateway
from fake_jobs import FakeJobs
from jetmap.wire.activity import ActivityAnswer, FailureDetails, MapDetails, SlowItem
from jetmap_api.dashboard import framed

pytestmark = pytest.mark.anyio

UI = Path(jetmap_api.__file__).parent / "static" / "ui"
HTML = {"accept": "text/html"}
OWN = {"origin": "http://localhost"}


def double(n: int) -> int:
    """Twice <b>as</b> much."""
    return 2 * n


async def test_the_page_needs_nothing_from_elsewhere_and_no_inline_code() -> None:
    async with gateway(FakeCluster(double), root_path="/a") as client:
        page = await client.get("/ui", headers=HTML)
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy and "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=", page.text)
        assert 'data-root="/a"' in page.text and 'logout" hidden' in page.text
        for name in re.findall(r'(?:src|href)="/a(/assets/[^"]+)"', page.text):
            assert (await client.get(name)).status_code == 200, name
    assert "Twice &lt;b&gt;as&lt;/b&gt; much." in page.text, "a table, for browsers without scripts"


def test_the_page_is_small() -> None:
    files = [path.read_bytes() for path in UI.iterdir()]
    assert sum(map(len, files)) <= 150_000
    assert sum(len(gzip.compress(file)) for file in files) <= 50_000


async def test_the_stream_begins_with_all_and_goes_on_with_changes() -> None:
    cluster = FakeCluster(double)
    cluster.watch.hear(activity(maps=[map_of("m1", function="constructor")]))
    async with gateway(cluster) as client:
        answer = await client.get("/ui/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [part.split("\n") for part in answer.text.strip().split("\n\n")]
    assert [event[0] for event in events] == ["event: snapshot", "event: change"]
    document = msgspec.json.decode(events[0][1].removeprefix("data: "))
    assert document["maps"]["m1"]["function"] == "constructor"


async def test_a_stream_ends_now_and_then_so_that_the_login_is_checked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jetmap_api.dashboard.STREAM_SECONDS", 0.0)
    async with gateway(FakeCluster()) as client:
        answer = await client.get("/ui/events")
    assert answer.text.count("event: ") == 1


async def test_only_a_whole_view_is_a_snapshot() -> None:
    async def changes() -> Any:
        yield b'{"maps":{},"whole":true}'
        yield b'{"maps":{"whole":null}}'

    names = [event.split(b"\n")[0] async for event in framed(changes())]
    assert names == [b"event: snapshot", b"event: change"]


async def test_the_details_of_a_map_are_asked_of_whoever_has_it() -> None:
    cluster = FakeCluster()
    slow = [SlowItem(7, 1.5, "host-a")]
    details = MapDetails("m1", 1.0, 2.0, 0.0, 0.0, {50: 3}, slow, [1.0], 2.0, [failure()])
    cluster.watch.answer = ActivityAnswer(map=details)
    async with gateway(cluster) as client:
        found = (await client.get("/ui/maps/m1")).json()
        cluster.watch.answer = ActivityAnswer(refusal="map m1 is not here")
        gone = await client.get("/ui/maps/m1")
    assert cluster.watch.asked[0] == ("map", "m1", 0)
    assert found["bins"] == {"50": 3} and found["slow"][0]["host"] == "host-a"
    assert found["failures"][0]["type"] == "E"
    assert (gone.status_code, gone.json()["detail"]) == (409, "map m1 is not here")


@pytest.mark.parametrize("options", [{"token": "x"}, {"debug": True}, {}])
async def test_tracebacks_are_for_those_who_logged_in_or_with_debug(
    options: dict[str, Any],
) -> None:
    cluster = FakeCluster()
    cluster.watch.answer = ActivityAnswer(failure=FailureDetails("k", "Traceback: secret", ["m1"]))
    async with gateway(cluster, **options) as client:
        if "token" in options:
            client.headers["authorization"] = "Bearer x"
        found = (await client.get("/ui/failures/k")).json()
    if options:
        assert found["traceback"] == "Traceback: secret"
    else:
        assert found["traceback"] is None and "--debug" in found["note"]
        assert not cluster.watch.asked


@pytest.mark.parametrize("options", [{"token": "x"}, {"debug": True}, {}])
async def test_causes_of_a_job_come_from_the_store_when_its_process_has_gone(
    options: dict[str, Any],
) -> None:
    cluster = FakeCluster(double)
    jobs = cluster.service = FakeJobs(cluster)
    jobs.add("j1", 4)
    jobs.put("j1", 0, 0, None, 4, None, failed=[1, 3])
    jobs.end("j1")
    async with gateway(cluster, **options) as client:
        if "token" in options:
            client.headers["authorization"] = "Bearer x"
        found = (await client.get("/ui/jobs/j1/failures")).json()
        unknown = await client.get("/ui/jobs/j2/failures")
    [cause] = found["causes"]
    assert (cause["cause"]["count"], cause["cause"]["indexes"]) == (2, [1, 3])
    assert cause["cause"]["message"] == "no 1" and not found["more"]
    assert cause["traceback"] == ("trace of 1" if options else None)
    assert options or "--debug" in cause["note"]
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (OWN, 204),
        ({"sec-fetch-site": "same-origin"}, 204),
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({}, 403),
    ],
)
async def test_only_the_gateways_own_pages_may_act(headers: dict[str, str], status: int) -> None:
    cluster = FakeCluster()
    async with gateway(cluster) as client:
        answer = await client.post("/ui/maps/m1/pause", headers=headers)
    assert answer.status_code == status
    assert cluster.watch.asked == ([("pause", "m1", 0)] if status == 204 else [])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"cores": 4}', 204),
        (b'{"cores": 0}', 204),
        (b'{"cores": -1}', 400),
        (b'{"cores": 1e99}', 400),
        (b'{"cores": "4"}', 400),
        (b"", 400),
        (b"[" * 5_000, 413),
    ],
)
async def test_a_limit_is_a_number_of_cores(body: bytes, status: int) -> None:
    async with gateway(FakeCluster()) as client:
        answer = await client.post("/ui/maps/m1/limit", headers=OWN, content=body)
    assert answer.status_code == status, answer.text


async def test_what_cannot_be_done_is_refused_with_its_reason() -> None:
    cluster = FakeCluster()
    cluster.watch.answer = ActivityAnswer(refusal="map m1 has ended, or is not here")
    async with gateway(cluster) as client:
        ended = await client.post("/ui/maps/m1/cancel", headers=OWN)
        unknown = await client.post("/ui/maps/m1/explode", headers=OWN)
    assert (ended.status_code, ended.json()["type"]) == (409, "urn:jetmap:map-gone")
    assert unknown.status_code == 404


async def test_behind_a_token_a_browser_is_led_to_the_login_page() -> None:
    async with gateway(FakeCluster(), token="x") as client:
        page = await client.get("/ui", headers=HTML)
        assert page.status_code == 303 and page.headers["location"] == "/login?next=/ui"
        for path in ("/ui/events", "/ui/session", "/ui/maps/m1"):
            assert (await client.get(path)).status_code == 401
        assert (await client.post("/ui/maps/m1/pause", headers=OWN)).status_code == 401
        logged_in = await client.post("/login", data={"token": "x", "next": "/ui"}, headers=OWN)
        assert logged_in.headers["location"] == "/ui"
        shown = await client.get("/ui", headers=HTML)
        assert shown.status_code == 200 and 'logout" hidden' not in shown.text
        assert (await client.get("/ui/session")).status_code == 204
        evil = {"origin": "http://evil.example"}
        assert (await client.post("/ui/maps/m1/pause", headers=evil)).status_code == 403
        assert (await client.post("/ui/maps/m1/pause", headers=OWN)).status_code == 204
