"""Bodies that arrive while answers leave, clients that do not read, and clients that leave."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

import pytest

from exchange import Exchange
from fake_cluster import FakeCluster
from jetmap_api import disconnect
from waiting import PATIENCE, turns, wait_until

pytestmark = pytest.mark.anyio

JSON = "application/json"
LINES = "application/jsonl"
SSE = "text/event-stream"


def echo(value: Any) -> Any:
    return value


async def never(value: Any) -> Any:
    await asyncio.Event().wait()


# Proxies that stop reading a body when its answer begins


@pytest.mark.parametrize("accept", [LINES, SSE])
async def test_a_stream_begins_behind_its_body_where_a_proxy_asks_for_it(accept: str) -> None:
    cluster = FakeCluster(echo)
    held = {"x-jetmap-answer": "after-body"}
    exchange = Exchange(cluster, "/map/echo", LINES, accept, headers=held)
    await exchange.write(b"1\n2\n")
    await wait_until(lambda: bool(cluster.runs) and cluster.runs[0].taken == 2, "items run")
    await turns(50)
    assert exchange.status is None
    await exchange.write(b"nonsense\n")
    await turns(50)
    assert exchange.status is None  # A problem waits, too.
    await exchange.write(b"3\n", more=False)
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.status == 200 and b"malformed" in exchange.output


@pytest.mark.parametrize(("accept", "early"), [(JSON, False), (LINES, True), (SSE, True)])
async def test_a_stream_asks_for_its_first_results_early(accept: str, early: bool) -> None:
    cluster = FakeCluster(echo)
    exchange = Exchange(cluster, "/map/echo", JSON, accept)
    await exchange.write(b"[1, 2]", more=False)
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.status == 200 and cluster.runs[0].early is early


# Leaving


@pytest.mark.parametrize("accept", [JSON, LINES, SSE])
@pytest.mark.parametrize("body", [JSON, LINES])
async def test_leaving_withdraws_the_map_at_once(body: str, accept: str) -> None:
    cluster = FakeCluster(never)
    exchange = Exchange(cluster, "/map/never", body, accept)
    await exchange.write(b"[1]" if body == JSON else b"1\n", more=False)
    await wait_until(lambda: bool(cluster.runs) and cluster.runs[0].taken > 0, "the map runs")
    await exchange.leave()
    await asyncio.wait_for(cluster.runs[0].withdrawn.wait(), PATIENCE)
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.status in ((200, 499) if accept == SSE else (499,))


@pytest.mark.parametrize("accept", [JSON, LINES, SSE])
async def test_leaving_in_the_middle_of_the_body_withdraws_the_map(accept: str) -> None:
    cluster = FakeCluster(echo)
    exchange = Exchange(cluster, "/map/echo", LINES, accept)
    await exchange.write(b"1\n2\n")
    await wait_until(lambda: bool(cluster.runs) and cluster.runs[0].taken == 2, "items run")
    await exchange.leave()
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert cluster.runs[0].withdrawn.is_set()


async def test_leaving_in_the_middle_of_an_array_opens_no_map() -> None:
    cluster = FakeCluster(echo)
    exchange = Exchange(cluster, "/map/echo", JSON, JSON)
    await exchange.write(b"[1,")
    await exchange.leave()
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert not cluster.runs
    assert exchange.status == 499


async def test_a_server_that_raises_when_the_client_left_ends_the_map() -> None:
    cluster = FakeCluster(echo, never)
    exchange = Exchange(cluster, "/map/echo", LINES, LINES)
    await exchange.write(b"1\n")
    await wait_until(lambda: exchange.output.count(b"\n") == 1, "the first line is there")
    exchange.gone = True
    await exchange.write(b"2\n")
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert cluster.runs[0].withdrawn.is_set()


@pytest.mark.parametrize(("accept", "word"), [(LINES, b'{"problem":'), (SSE, b"event: failed")])
async def test_a_server_that_stops_lets_a_stream_say_so(accept: str, word: bytes) -> None:
    cluster = FakeCluster(echo)
    exchange = Exchange(cluster, "/map/echo", LINES, accept)
    await exchange.write(b"1\n")
    await wait_until(lambda: b"1" in exchange.output, "the first outcome is there")
    exchange.task.cancel()
    await asyncio.wait_for(exchange.task, PATIENCE)  # Or the server would log it as a fault.
    assert word in exchange.output
    assert b"urn:jetmap:closed" in exchange.output
    assert exchange.ended
    assert cluster.runs[0].withdrawn.is_set()


async def test_a_finished_request_asks_for_nothing_more() -> None:
    exchange = Exchange(FakeCluster(echo), "/map/echo", JSON, JSON)
    await exchange.write(b"[1]", more=False)
    await asyncio.wait_for(exchange.task, PATIENCE)
    # Whatever it has set a timer for has come when a later one of as long has.
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(disconnect.PATIENCE, later.set)
    await later.wait()
    await turns(5)
    assert exchange.asked == 1
    assert exchange.output == b"[1]"


# Both ways at once


@pytest.mark.parametrize("accept", [LINES, SSE])
async def test_results_leave_while_the_body_arrives(accept: str) -> None:
    exchange = Exchange(FakeCluster(echo), "/map/echo", LINES, accept)
    for item in (b"one", b"two", b"three"):
        await exchange.write(b'"%b"\n' % item)
        await wait_until(functools.partial(lambda i: i in exchange.output, item), "its result")
    await exchange.write(b"", more=False)
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.ended


@pytest.mark.parametrize("accept", [LINES, SSE])
async def test_a_client_may_send_its_whole_body_before_it_reads(accept: str) -> None:
    cluster = FakeCluster(echo, chunk=50)
    exchange = Exchange(cluster, "/map/echo", LINES, accept, max_buffer_bytes=10_000)
    exchange.reading.clear()
    for start in range(0, 5000, 100):
        part = b"".join(b'"%06d %s"\n' % (n, b"x" * 100) for n in range(start, start + 100))
        await asyncio.wait_for(exchange.write(part), PATIENCE)
    await asyncio.wait_for(exchange.write(b"", more=False), PATIENCE)
    assert not exchange.ended
    exchange.reading.set()
    await asyncio.wait_for(exchange.task, PATIENCE)
    if accept == LINES:
        assert [row.get("index") for row in exchange.lines[:-1]] == list(range(5000))
        assert exchange.lines[-1] == {"done": 5000, "failed": 0}
    else:
        assert exchange.output.count(b"xxx 0") == 0
        assert b'"done":5000' in exchange.output.split(b"event: ")[-1]


@pytest.mark.parametrize("body", [JSON, LINES])
async def test_after_the_body_a_slow_reader_slows_the_map(body: str) -> None:
    cluster = FakeCluster(echo, chunk=10)
    exchange = Exchange(cluster, "/map/echo", body, LINES, max_buffer_bytes=20_000)
    exchange.reading.clear()
    items = [b'"%s"' % (b"x" * 1000)] * 2000
    data = b"[" + b",".join(items) + b"]" if body == JSON else b"\n".join(items)
    await exchange.write(data, more=False)
    await wait_until(lambda: bool(cluster.runs) and cluster.runs[0].taken > 10, "the map runs")
    await turns(5000)
    taken = cluster.runs[0].taken
    assert taken < 1000
    exchange.reading.set()
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.lines[-1] == {"done": 2000, "failed": 0}


async def test_a_full_spool_ends_the_map_in_band() -> None:
    cluster = FakeCluster(echo, chunk=10)
    exchange = Exchange(
        cluster, "/map/echo", LINES, LINES, max_buffer_bytes=2000, max_spool_bytes=5000
    )
    exchange.reading.clear()
    for _ in range(50):
        await asyncio.wait_for(exchange.write(b'"%s"\n' % (b"x" * 100) * 10), PATIENCE)
    assert cluster.runs[0].withdrawn.is_set()
    await asyncio.wait_for(exchange.write(b"", more=False), PATIENCE)
    exchange.reading.set()
    await asyncio.wait_for(exchange.task, PATIENCE)
    *rows, last = exchange.lines
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert last["problem"]["setting"] == "max_spool_bytes"
    assert exchange.ended


async def test_after_a_fault_the_rest_of_the_body_is_dropped() -> None:
    cluster = FakeCluster(echo, chunk=10)
    exchange = Exchange(cluster, "/map/echo", LINES, LINES)
    exchange.reading.clear()
    exchange.unread = -1
    await exchange.write(b"1\n")
    await wait_until(lambda: bool(cluster.runs) and cluster.runs[0].taken == 1, "the first item")
    await exchange.write(b"oops\n")
    for _ in range(20):
        await asyncio.wait_for(exchange.write(b"2\n" * 100), PATIENCE)
    await asyncio.wait_for(exchange.write(b"", more=False), PATIENCE)
    exchange.reading.set()
    await asyncio.wait_for(exchange.task, PATIENCE)
    first, last = exchange.lines
    assert first == {"index": 0, "value": 1}
    assert last["problem"]["line"] == 2
    assert cluster.runs[0].taken == 1


async def test_a_list_that_fails_early_answers_early() -> None:
    cluster = FakeCluster(echo)
    exchange = Exchange(cluster, "/map/echo", LINES, JSON)
    await exchange.write(b"1\n")
    await exchange.write(b"oops\n")
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.status == 400
    assert json.loads(exchange.output)["line"] == 2
    assert cluster.runs[0].withdrawn.is_set()


@pytest.mark.parametrize("accept", [JSON, LINES])
async def test_leaving_is_noticed_behind_a_body_that_the_map_does_not_take_yet(
    accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jetmap_api.lines.READ_AHEAD", 4 << 20)
    cluster = FakeCluster(never)
    exchange = Exchange(
        cluster, "/map/never", LINES, accept, max_buffer_bytes=20_000, max_spool_bytes="1GiB"
    )
    part = b"".join(b'"%s"\n' % (b"x" * 1000) for _ in range(60))
    for _ in range(40):  # more than the feed and the buffer hold
        await asyncio.wait_for(exchange.write(part), PATIENCE)
    await exchange.leave()
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert cluster.runs[0].withdrawn.is_set()


async def test_a_body_far_ahead_of_its_map_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def gated(value: str) -> str:
        await gate.wait()
        return value

    monkeypatch.setattr("jetmap_api.lines.READ_AHEAD", 1000)
    cluster = FakeCluster(gated, chunk=50)
    exchange = Exchange(cluster, "/map/gated", LINES, LINES, max_buffer_bytes=20_000)
    part = b"".join(b'"%s"\n' % (b"x" * 1000) for _ in range(60))
    sent = 0
    while True:
        writing = asyncio.ensure_future(exchange.write(part))
        await turns(200)
        if not writing.done():
            break
        sent += 60
    assert 1000 < sent < 2000  # the feed's megabyte, and a little
    gate.set()
    await asyncio.wait_for(writing, PATIENCE)
    sent += 60
    await asyncio.wait_for(exchange.write(b"", more=False), PATIENCE)
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.lines[-1] == {"done": sent, "failed": 0}


class Complete(Exchange):
    """A server that reports the end of a whole answer as a client that leaves, as ASGI says."""

    async def _send(self, message: Any) -> None:
        await super()._send(message)
        if self.ended:
            await self.leave()
            await turns(50)


@pytest.mark.parametrize("accept", [LINES, SSE])
@pytest.mark.parametrize("body", [b"", b"1\n"])
async def test_a_whole_answer_is_the_only_one(accept: str, body: bytes) -> None:
    exchange = Complete(FakeCluster(echo), "/map/echo", LINES, accept)
    await exchange.write(body, more=False)
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.status == 200 and exchange.ended
