"""What goes out: lists, JSON lines, events, MessagePack; and refusals."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_cluster import FakeCluster, gateway
from jetmap import errors
from jetmap.dispatch.outcome import Batch
from jetmap.messages import ErrorRecord
from jetmap_api.answers import ListAnswer
from jetmap_api.limits import Limits
from jetmap_api.outcomes import translate
from jetmap_api.problems import Problem, problem_of
from jetmap_api.spool import Gathered, SpooledPipe

pytestmark = pytest.mark.anyio

JSONL = {"accept": "application/jsonl"}
SSE = {"accept": "text/event-stream"}
MSGPACK = {"accept": "application/msgpack", "content-type": "application/msgpack"}


def double(n: int) -> int:
    """Twice as much."""
    return n * 2


def picky(n: int, *, bad: list[int] | None = None) -> int:
    if n in (bad or []):
        raise ValueError(f"no {n}")
    return n


def echo(value: Any) -> Any:
    return value


async def never(value: Any) -> Any:
    await asyncio.Event().wait()


def lines_of(response: httpx.Response) -> list[Any]:
    assert response.text.endswith("\n")
    return [json.loads(line) for line in response.text.splitlines()]


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    events = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def check_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert problem["type"] == f"urn:jetmap:{slug}"
    assert problem["title"]
    return problem


# Lists


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 100])
async def test_a_list_comes_back_in_input_order(count: int, swap: bool) -> None:
    async with gateway(FakeCluster(double, swap=swap)) as client:
        response = await client.post("/map/double", json=list(range(count)))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == [n * 2 for n in range(count)]


async def test_messagepack_in_and_out_keeps_bytes_and_nan() -> None:
    items = [b"\x00\xff", math.inf, "text", {"a": b"b"}, 2**63]
    async with gateway(FakeCluster(echo, swap=True)) as client:
        response = await client.post(
            "/map/echo", content=msgspec.msgpack.encode(items), headers=MSGPACK
        )
    assert response.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(response.content) == items


@pytest.mark.parametrize("media", ["application/vnd.msgpack", "application/x-msgpack"])
async def test_json_in_and_messagepack_out(media: str) -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", json=[1, 2, 3, 4], headers={"accept": media})
    assert msgspec.msgpack.decode(response.content) == [2, 4, 6, 8]


async def test_messagepack_in_and_json_out_never_shows_nan_as_null() -> None:
    body = msgspec.msgpack.encode([1.5, math.nan, b"abc", None])
    headers = {"content-type": "application/msgpack"}
    async with gateway(FakeCluster(echo)) as client:
        failed = await client.post("/map/echo", content=body, headers=headers)
        collected = await client.post("/map/echo?errors=collect", content=body, headers=headers)
    assert check_problem(failed, 500, "item-unencodable")["error"]["index"] == 1
    document = collected.json()
    assert document["values"] == [1.5, None, "YWJj", None]
    assert [(e["index"], e["kind"]) for e in document["errors"]] == [(1, "unencodable")]


async def test_the_first_failing_item_in_input_order_is_the_lists_problem() -> None:
    cluster = FakeCluster(picky, chunk=2, swap=True)
    async with gateway(cluster) as client:
        response = await client.post('/map/picky?kwargs={"bad":[1,2,9]}', json=list(range(12)))
    problem = check_problem(response, 500, "item-raised")
    assert problem["error"] == {
        "index": 1,
        "kind": "raised",
        "type": "ValueError",
        "message": "no 1",
    }
    await asyncio.wait_for(cluster.runs[0].withdrawn.wait(), 1)


async def test_an_item_of_another_type_is_422() -> None:
    async with gateway(FakeCluster(double)) as client:
        for item in ("7", 7.5, None):
            response = await client.post("/map/double", json=[1, item])
            problem = check_problem(response, 422, "item-invalid")
            assert problem["error"]["index"] == 1


async def test_tracebacks_are_shown_with_debug_only() -> None:
    url = '/map/picky?errors=collect&kwargs={"bad":[0]}'
    async with gateway(FakeCluster(picky)) as client:
        plain = (await client.post(url, json=[0])).json()
    async with gateway(FakeCluster(picky), debug=True) as client:
        debug = (await client.post(url, json=[0])).json()
    assert "traceback" not in plain["errors"][0]
    assert debug["errors"][0]["traceback"].startswith("Traceback")


async def test_collect_gives_values_and_errors_in_both_encodings() -> None:
    url = '/map/picky?errors=collect&kwargs={"bad":[4,1]}'
    async with gateway(FakeCluster(picky, chunk=2, swap=True)) as client:
        document = (await client.post(url, json=[0, 1, "2", 3, 4])).json()
        packed = await client.post(
            url, content=msgspec.msgpack.encode([0, 1, "2", 3, 4]), headers=MSGPACK
        )
    assert document["values"] == [0, None, None, 3, None]
    assert [(e["index"], e["kind"]) for e in document["errors"]] == [
        (1, "raised"),
        (2, "invalid"),
        (4, "raised"),
    ]
    unpacked = msgspec.msgpack.decode(packed.content)
    assert unpacked["values"] == document["values"]
    assert [e["index"] for e in unpacked["errors"]] == [1, 2, 4]


async def test_a_map_over_its_time_is_504() -> None:
    cluster = FakeCluster(never)
    async with gateway(cluster) as client:
        response = await client.post("/map/never?timeout=0.05", json=[1])
    check_problem(response, 504, "timeout")
    assert cluster.runs[0].withdrawn.is_set()


async def test_a_list_that_outgrows_memory_is_spooled() -> None:
    items = ["x" * 50] * 100
    async with gateway(FakeCluster(echo, swap=True), max_buffer_bytes=1000) as client:
        plain = await client.post("/map/echo", json=items)
        collected = await client.post("/map/echo?errors=collect", json=items)
        packed = await client.post(
            "/map/echo", json=items, headers=MSGPACK | {"content-type": "application/json"}
        )
    assert plain.json() == items
    assert collected.json() == {"values": items, "errors": []}
    assert msgspec.msgpack.decode(packed.content) == items


async def test_a_list_over_the_spool_is_413() -> None:
    async with gateway(FakeCluster(echo), max_buffer_bytes=1000, max_spool_bytes=1000) as client:
        response = await client.post("/map/echo", json=["x" * 50] * 100)
    assert check_problem(response, 413, "limit-exceeded")["setting"] == "max_spool_bytes"


# JSON lines


async def test_lines_out_as_items_finish_or_in_input_order() -> None:
    async with gateway(FakeCluster(double, chunk=2, swap=True)) as client:
        finish = await client.post("/map/double", json=list(range(8)), headers=JSONL)
        ordered = await client.post("/map/double?order=input", json=list(range(8)), headers=JSONL)
    assert finish.headers["content-type"] == "application/jsonl"
    assert finish.headers["cache-control"] == "no-store"
    assert finish.headers["x-accel-buffering"] == "no"
    *rows, last = lines_of(finish)
    assert last == {"done": 8, "failed": 0}
    assert [row["index"] for row in rows] == [2, 3, 0, 1, 6, 7, 4, 5]
    assert all(row["value"] == row["index"] * 2 for row in rows)
    assert lines_of(ordered) == [{"index": n, "value": n * 2} for n in range(8)] + [last]


async def test_lines_hold_errors_in_the_place_of_values() -> None:
    url = '/map/picky?errors=collect&kwargs={"bad":[2]}'
    async with gateway(FakeCluster(picky)) as client:
        response = await client.post(url, json=[1, 2, "x"], headers=JSONL)
    first, second, third, last = lines_of(response)
    assert first == {"index": 0, "value": 1}
    assert (second["index"], second["error"]["kind"]) == (1, "raised")
    assert (third["index"], third["error"]["kind"]) == (2, "invalid")
    assert last == {"done": 3, "failed": 2}


@pytest.mark.parametrize("errors", ["", "errors=fail&"])
async def test_lines_end_with_the_first_failing_item(errors: str) -> None:
    url = f'/map/picky?{errors}kwargs={{"bad":[4,7]}}'
    cluster = FakeCluster(picky, chunk=2)
    async with gateway(cluster) as client:
        late = await client.post(url, json=list(range(9)), headers=JSONL)
        first = await client.post(url, json=[4], headers=JSONL)
    *rows, last = lines_of(late)
    assert late.status_code == 200
    assert rows == [{"index": n, "value": n} for n in range(4)]
    error = {"index": 4, "kind": "raised", "type": "ValueError", "message": "no 4"}
    assert list(last) == ["problem"]
    assert (last["problem"]["status"], last["problem"]["error"]) == (500, error)
    assert cluster.runs[0].withdrawn.is_set()
    assert cluster.runs[0].taken == 6
    assert check_problem(first, 500, "item-raised")["error"] == error | {"index": 0}


async def test_an_invalid_item_before_the_first_line_is_422() -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", json=[1, "x"], headers=JSONL)
    assert check_problem(response, 422, "item-invalid")["error"]["index"] == 1


async def test_lines_in_and_out() -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post(
            "/map/double",
            content=b"1\n\n 2\r\n3",
            headers=JSONL | {"content-type": "application/x-ndjson"},
        )
    assert lines_of(response)[-1] == {"done": 3, "failed": 0}


async def test_a_bad_line_before_the_first_byte_is_400_and_in_band_after_it() -> None:
    async def body(*parts: bytes) -> Any:
        for part in parts:
            yield part
            await asyncio.sleep(0.02)

    headers = JSONL | {"content-type": "application/jsonl"}
    async with gateway(FakeCluster(double)) as client:
        early = await client.post("/map/double", content=body(b"1x\n2"), headers=headers)
        asked = client.post("/map/double", content=body(b"1\n2\n", b"\n\xff\n"), headers=headers)
        late = await asked
    assert check_problem(early, 400, "malformed-body")["line"] == 1
    *rows, last = lines_of(late)
    assert [row["value"] for row in rows] == [2, 4]
    assert (last["problem"]["status"], last["problem"]["line"]) == (400, 4)


async def test_lines_in_and_a_list_out() -> None:
    headers = {"content-type": "application/jsonl"}
    url = '/map/picky?kwargs={"bad":[1]}'
    async with gateway(FakeCluster(double, picky, swap=True)) as client:
        good = await client.post(
            "/map/double", content="\n".join(map(str, range(20))), headers=headers
        )
        failing = await client.post(url, content=b"0\n1\n2", headers=headers)
        malformed = await client.post("/map/double", content=b"0\n1\n2]", headers=headers)
        empty = await client.post("/map/double", content=b"", headers=headers)
    assert good.json() == [n * 2 for n in range(20)]
    assert check_problem(failing, 500, "item-raised")["error"]["index"] == 1
    assert check_problem(malformed, 400, "malformed-body")["line"] == 3
    assert empty.json() == []


# Events


async def test_events_tell_start_results_and_done() -> None:
    url = '/map/picky?errors=collect&kwargs={"bad":[1]}'
    async with gateway(FakeCluster(picky, chunk=2)) as client:
        response = await client.post(url, json=[0, 1, 2], headers=SSE)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    (start, begun), (one, first), (two, second), (last, end) = events_of(response)
    assert (start, one, two, last) == ("start", "results", "results", "done")
    assert begun["total"] == 3
    assert begun["map"]
    assert first["start"] == 0
    assert first["values"] == [0, None]
    assert [e["index"] for e in first["errors"]] == [1]
    assert (first["done"], first["total"]) == (2, 3)
    assert second == {"start": 2, "values": [2], "errors": [], "done": 3, "total": 3}
    assert (end["done"], end["failed"]) == (3, 1)
    assert end["seconds"] >= 0


async def test_events_end_with_failed() -> None:
    cluster = FakeCluster(double, never, chunk=2)
    async with gateway(cluster) as client:
        invalid = await client.post("/map/double", json=[1, 2, "x", 4, 5], headers=SSE)
        asked = await client.post("/map/double?errors=fail", json=["x"], headers=SSE)
        unknown = await client.post("/map/nothing", json=[1], headers=SSE)
        late = await client.post("/map/never?timeout=0.02", json=[1], headers=SSE)
    *_, (result, values), (last, problem) = events_of(invalid)
    assert [name for name, _ in events_of(invalid)] == ["start", "results", "failed"]
    assert (result, values["values"], values["errors"]) == ("results", [2, 4], [])
    assert (last, problem["type"], problem["status"]) == ("failed", "urn:jetmap:item-invalid", 422)
    assert (problem["error"]["index"], problem["error"]["kind"]) == (2, "invalid")
    assert cluster.runs[0].withdrawn.is_set()
    assert cluster.runs[0].taken == 4
    assert [name for name, _ in events_of(asked)] == ["start", "failed"]
    check_problem(unknown, 404, "unknown-function")
    assert events_of(late)[1][1]["status"] == 504


async def test_the_total_is_null_while_the_body_arrives() -> None:
    more = asyncio.Event()

    def watched(n: int) -> int:
        more.set()
        return n

    async def body() -> Any:
        yield b"1\n"
        await more.wait()
        yield b"2\n"

    headers = SSE | {"content-type": "application/jsonl"}
    async with gateway(FakeCluster(watched)) as client:
        response = await client.post("/map/watched", content=body(), headers=headers)
    events = events_of(response)
    assert events[0][1]["total"] is None
    assert next(e["total"] for name, e in events if name == "results") is None
    assert events[-1] == ("done", events[-1][1])


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetmap_api.streams.HEARTBEAT", 0.02)
    async with gateway(FakeCluster(never)) as client:
        response = await client.post("/map/never?timeout=0.2", json=[1], headers=SSE)
    assert ": still running\n\n" in response.text
    assert "event: failed" in response.text


# Refusals


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("errors=ignore", "errors"),
        ("order=random", "order"),
        ("timeout=0", "timeout"),
        ("timeout=nan", "timeout"),
        ("timeout=soon", "timeout"),
        ("kwargs=[1]", "kwargs"),
        ("kwargs={", "kwargs"),
        ("kwargs=" + "[" * 5000, "kwargs"),
        ("timeout=1&timeout=2", "timeout"),
        ("timout=1", "timout"),
        ("kwargs=%FF", "query"),
    ],
)
async def test_a_bad_parameter_is_400(query: str, parameter: str) -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post(f"/map/double?{query}", json=[1])
    assert check_problem(response, 400, "bad-parameter")["parameter"] == parameter


@pytest.mark.parametrize(
    "media",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "",
    ],
)
async def test_what_a_web_page_may_send_unasked_is_415(media: str) -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", content=b"[1]", headers={"content-type": media})
        none = client.build_request("POST", "/map/double", content=b"[1]")
        untyped = await client.send(none)
    assert "--json" in check_problem(response, 415, "unsupported-media-type")["detail"]
    check_problem(untyped, 415, "unsupported-media-type")


async def test_a_compressed_body_is_415() -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", json=[1], headers={"content-encoding": "gzip"})
    check_problem(response, 415, "unsupported-encoding")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/*", "application/json"),
        ("application/JSON;q=0.5, application/x-ndjson", "application/jsonl"),
        ("text/html, application/xml;q=0.9, */*;q=0.8", "application/json"),
        ("application/json;q=0, */*", "application/msgpack"),
        ("text/*", "text/event-stream"),
    ],
)
async def test_accept_chooses_the_answer(accept: str, content_type: str) -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", json=[1], headers={"accept": accept})
    assert response.headers["content-type"] == content_type


async def test_an_answer_that_there_is_not_is_406() -> None:
    async with gateway(FakeCluster(double)) as client:
        for accept in ("text/html", "image/*", "application/json;q=0"):
            response = await client.post("/map/double", json=[1], headers={"accept": accept})
            check_problem(response, 406, "not-acceptable")


async def test_prefer_is_ignored_without_a_store() -> None:
    async with gateway(FakeCluster(double)) as client:
        response = await client.post("/map/double", json=[1], headers={"prefer": "respond-async"})
    assert response.json() == [2]


async def test_a_body_over_its_limit_is_413_before_it_is_read() -> None:
    reads = 0

    async def body() -> Any:
        nonlocal reads
        for _ in range(50):
            reads += 1
            yield b"[" + b" " * 99

    headers = {"content-type": "application/json"}
    async with gateway(FakeCluster(double), max_body_bytes=1000) as client:
        known = await client.post("/map/double", content=b" " * 1001, headers=headers)
        unknown = await client.post("/map/double", content=body(), headers=headers)
    for response in (known, unknown):
        assert check_problem(response, 413, "limit-exceeded")["setting"] == "max_body_bytes"
    assert reads < 20


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (errors.UnknownFunction("never heard of it"), 404, "unknown-function"),
        (errors.NoWorkers("none alive"), 503, "no-workers"),
        (errors.BrokerUnreachable("no broker"), 503, "no-broker"),
        (errors.TooManyMaps("full", setting="max_open_maps", limit=1), 429, "too-many-maps"),
        (errors.LimitExceeded("large", setting="max_list", limit=1), 413, "limit-exceeded"),
        (errors.ClusterClosed("closed"), 503, "closed"),
        (errors.MapTimeout("late"), 504, "timeout"),
        (errors.TopologyMismatch("differs"), 500, "failed"),
        (errors.ItemTimeout(3, "ItemTimeout", "slow"), 504, "item-timeout"),
        (errors.WorkerLost(3, "SIGSEGV", "died"), 500, "worker-lost"),
        (errors.Unencodable(3, "ValueError", "NaN"), 500, "item-unencodable"),
        (RuntimeError("secret"), 500, "internal"),
    ],
)
async def test_every_error_has_its_status(
    error: Exception, status: int, slug: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = FakeCluster(double)
    cluster.refuse = error
    with caplog.at_level(logging.CRITICAL, "jetmap_api"):
        async with gateway(cluster) as client:
            response = await client.post("/map/double", json=[1], headers=SSE)
    problem = check_problem(response, status, slug)
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert "secret" not in problem["detail"]
    if isinstance(error, errors.ItemError):
        assert problem["error"]["index"] == 3


async def test_a_failed_start_shows_its_traceback_with_debug_only() -> None:
    trace = "no worker can start:\nTraceback (most recent call last):\n  File x\nSyntaxError: bad"
    error = errors.WorkerStartFailed(trace)
    assert problem_of(error, False).detail == "no worker can start: SyntaxError: bad"
    assert problem_of(error, True).detail == trace


# Parts


def spool_limits(buffer: int, spool: int) -> Limits:
    return Limits(1 << 30, 1 << 20, 10**7, 500, buffer, spool)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60), st.integers(1, 100))
def test_the_pipe_keeps_bytes_in_order(steps: list[tuple[bool, int]], buffer: int) -> None:
    async def go() -> None:
        pipe = SpooledPipe(spool_limits(buffer, 1 << 20))
        put = b""
        got = b""
        try:
            for write, size in steps:
                if write:
                    data = bytes((len(put) + i) % 256 for i in range(size))
                    pipe.put(data)
                    put += data
                elif pipe.size:
                    got += await pipe.get() or b""
            pipe.end(b"end")
            while (data_or_end := await pipe.get()) is not None:
                got += data_or_end
            assert got == put + b"end"
            assert pipe.size == 0
        finally:
            pipe.discard()

    asyncio.run(go())


async def test_a_full_pipe_says_so() -> None:
    pipe = SpooledPipe(spool_limits(10, 20))
    for _ in range(3):
        pipe.put(b"x" * 10)
    with pytest.raises(Problem, match="max_spool_bytes"):
        pipe.put(b"y")
    pipe.end(b"the last words fit")
    pipe.discard()


@given(st.lists(st.integers(0, 5), min_size=1), st.randoms(), st.sampled_from([1, 50, 10_000]))
def test_gathered_batches_are_one_list(counts: list[int], random: Any, buffer: int) -> None:
    total = sum(counts)
    batches = []
    start = 0
    for count in counts:
        values = list(range(start, start + count))
        batches.append(Batch(start, count, msgspec.json.encode(values), []))
        start += count
    random.shuffle(batches)
    gathered = Gathered("json", spool_limits(buffer, 1 << 20))
    seen: set[int] = set()
    for batch in batches:
        gathered.add(batch)
        seen |= set(range(batch.start, batch.start + batch.count))
        for index in range(total + 1):
            assert gathered.count_before(index) == len(set(range(index)) & seen)
    whole = gathered.whole()
    body = whole if whole is not None else b"".join(gathered.blocks())
    assert msgspec.json.decode(body) == list(range(total))
    gathered.close()


class FakeMap:
    """Batches in a given order, as a map yields them."""

    id = "m"
    total = None

    def __init__(self, batches: list[Batch]) -> None:
        self.left = batches
        self.stopped = False
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Batch]:
        while self.left:
            yield self.left.pop(0)

    def stop(self) -> None:
        self.stopped = True

    async def aclose(self) -> None:
        self.closed = True


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 15)), min_size=1), st.randoms())
def test_the_first_failure_is_that_of_a_loop(shape: list[tuple[int, int]], random: Any) -> None:
    batches = []
    failing = []
    start = 0
    for count, bits in shape:
        bad = [start + i for i in range(count) if bits >> i & 1]
        records = [ErrorRecord(i, "raised", "ValueError", "bad") for i in bad]
        batches.append(Batch(start, count, msgspec.json.encode([None] * count), records))
        failing += bad
        start += count
    random.shuffle(batches)
    run = FakeMap(list(batches))
    answer = ListAnswer("json", spool_limits(1000, 1000), collect=False, debug=False)
    try:
        asyncio.run(answer.gather(run, "json"))
        assert not failing
    except Problem as problem:
        assert problem.members["error"]["index"] == min(failing)
        taken = batches[: len(batches) - len(run.left)]
        needed = [b for b in batches if b.start <= min(failing)]
        assert taken[-1] in needed  # nothing later was waited for
    assert run.stopped == bool(failing)
    assert run.closed


def test_what_an_encoding_cannot_hold_is_its_items_error() -> None:
    values = [1, 2**70, "x"]
    batch = Batch(5, 3, msgspec.json.encode(values), [])
    packed = translate(batch, "json", "msgpack")
    assert msgspec.msgpack.decode(packed.values) == [1, None, "x"]
    assert [(e.index, e.kind) for e in packed.errors] == [(6, "unencodable")]
