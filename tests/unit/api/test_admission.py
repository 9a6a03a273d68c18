"""Limits on what a gateway takes in at once (places, items, memory, disk); all of it comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from exchange import Exchange
from fake_cluster import FakeCluster, gateway
from jetmap.dispatch.memory import Memory
from jetmap.dispatch.outcomes import Batch
from jetmap.dispatch.sources import ELEMENT_BYTES
from jetmap_api.admission import PASSING_BYTES, Admission, Reservation
from jetmap_api.answers import Gathered
from jetmap_api.problems import Problem
from jetmap_api.spool import SpooledPipe
from raw_bodies import LIMITS
from waiting import PATIENCE, turns, wait_until

pytestmark = pytest.mark.anyio

JSON, LINES, MSGPACK = "application/json", "application/jsonl", "application/msgpack"


def echo(value: Any) -> Any:
    return value


async def never(value: Any) -> Any:
    await asyncio.Event().wait()


class Books:
    """Those of one gateway, and what it refuses."""

    def __init__(self, **limits: int) -> None:
        self.admission = Admission(LIMITS.replace(**limits))
        self.memory = Memory(1 << 60)

    def hold(self) -> Reservation:
        return Reservation(self.admission, self.memory)

    @property
    def taken(self) -> tuple[int, int, int, int]:
        a = self.admission
        return a.arriving, a.items, a.spooled, self.memory.used


def refusal(exchange: Exchange, status: int, slug: str, setting: str) -> dict[str, Any]:
    """A problem that says which limit it is, and when to come again."""
    (problem,) = exchange.lines
    assert exchange.status == problem["status"] == status, problem
    assert (problem["type"], problem["setting"]) == (f"urn:jetmap:{slug}", setting)
    assert setting in problem["detail"] and str(problem["limit"]) in problem["detail"]
    assert ("retry-after" in exchange.headers) == (status != 413)
    return problem  # type: ignore[no-any-return]


async def refused_unread(cluster: FakeCluster, length: int = 0, **settings: Any) -> Exchange:
    """A request that is refused although nothing of its body was sent."""
    headers = {"content-length": str(length)} if length else {}
    exchange = Exchange(cluster, "/map/echo", headers=headers, **settings)
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.asked == 0
    return exchange


# Places


async def test_a_map_too_many_is_refused_before_its_body_is_read() -> None:
    cluster = FakeCluster(never, echo)
    running = Exchange(cluster, "/map/never")
    await running.write(b"[1]", more=False)
    await wait_until(lambda: cluster.open_maps == 1, "one runs")
    exchange = await refused_unread(cluster, max_open_maps=1)
    refusal(exchange, 429, "too-many-maps", "max_open_maps")
    await running.leave()
    await asyncio.wait_for(running.task, PATIENCE)
    again = Exchange(cluster, "/map/echo", max_open_maps=1)
    await again.write(b"[1]", more=False)
    await asyncio.wait_for(again.task, PATIENCE)
    assert again.output == b"[1]"


def test_a_body_that_arrives_has_a_place() -> None:
    books = Books(max_open_maps=3)
    holds = [books.hold() for _ in range(3)]
    holds[0].enter(open_maps=1)
    holds[1].enter(open_maps=1)
    with pytest.raises(Problem, match="max_open_maps"):
        holds[2].enter(open_maps=1)
    holds[0].leave()
    with pytest.raises(Problem):
        holds[2].enter(open_maps=2)  # It is open now.
    holds[1].close()
    holds[2].enter(open_maps=2)
    holds[2].close()
    holds[2].close()
    assert books.taken == (0, 0, 0, 0)


# Items


@pytest.mark.parametrize(("media", "five"), [(JSON, b"[1,2,3,4,5]"), (MSGPACK, b"\x95\1\2\3\4\5")])
async def test_items_of_all_lists_together(media: str, five: bytes) -> None:
    cluster = FakeCluster(never, echo)
    app = Exchange(cluster, "/map/never", media, max_items=8)
    await app.write(five, more=False)
    await wait_until(lambda: cluster.open_maps == 1, "five are open")
    second = app.beside("/map/echo", media)
    await second.write(five, more=False)
    await asyncio.wait_for(second.task, PATIENCE)
    refusal(second, 429, "too-many-items", "max_items")
    await app.leave()
    await asyncio.wait_for(app.task, PATIENCE)
    third = app.beside("/map/echo", media)
    await third.write(five, more=False)
    await asyncio.wait_for(third.task, PATIENCE)
    assert third.status == 200
    alone = app.beside("/map/echo", JSON)
    await alone.write(b"[1,2,3,4,5,6,7,8,9]", more=False)
    await asyncio.wait_for(alone.task, PATIENCE)
    refusal(alone, 413, "limit-exceeded", "max_items")
    assert cluster.memory.used == 0


async def test_a_messagepack_list_is_counted_before_it_is_split() -> None:
    cluster = FakeCluster(echo)
    exchange = Exchange(cluster, "/map/echo", MSGPACK, max_list=1000)
    await exchange.write(b"\xdd\0\0\x10\0" + b"\1" * 4096, more=False)
    await asyncio.wait_for(exchange.task, PATIENCE)
    refusal(exchange, 413, "limit-exceeded", "max_list")


# Memory


async def test_memory_is_taken_before_the_body_is_read() -> None:
    cluster = FakeCluster(echo)
    first = Exchange(
        cluster, "/map/echo", headers={"content-length": "6000"}, max_memory_bytes=10_000
    )
    await turns(3)
    assert cluster.memory.used == 6000
    exchange = await refused_unread(cluster, 6000, max_memory_bytes=10_000)
    problem = refusal(exchange, 503, "memory-full", "max_memory_bytes")
    assert (problem["used"], problem["wanted"]) == (6000, 6000)
    exchange = await refused_unread(cluster, 10_001, max_memory_bytes=10_000)
    refusal(exchange, 413, "limit-exceeded", "max_memory_bytes")
    await first.leave()
    await asyncio.wait_for(first.task, PATIENCE)
    assert cluster.memory.used == 0


async def test_a_body_of_unknown_length_takes_memory_as_it_arrives() -> None:
    cluster = FakeCluster(echo)
    exchange = Exchange(cluster, "/map/echo", max_memory_bytes=10_000)
    await exchange.write(b"[" + b" " * 4000)
    await wait_until(lambda: cluster.memory.used == 4001, "the first part counts")
    cluster.memory.used += 4000  # somebody else's
    await exchange.write(b" " * 4000)
    await asyncio.wait_for(exchange.task, PATIENCE)
    refusal(exchange, 503, "memory-full", "max_memory_bytes")
    assert cluster.memory.used == 4000


async def test_a_chunked_body_takes_its_own_size_whatever_its_headers_announce() -> None:
    """Servers that parse with h11 pass both headers on."""
    cluster = FakeCluster(echo)
    both = {"content-length": "2", "transfer-encoding": "chunked"}
    exchange = Exchange(cluster, "/map/echo", headers=both, max_memory_bytes=10_000)
    await exchange.write(b"[" + b" " * 10_000 + b"]", more=False)
    await asyncio.wait_for(exchange.task, PATIENCE)
    refusal(exchange, 413, "limit-exceeded", "max_memory_bytes")
    assert cluster.memory.used == 0


@pytest.mark.parametrize(
    "body", [b"[" + b"1," * 600_000 + b"1]", b'["",' + b"1," * 600_000 + b"1]"]
)
async def test_the_items_of_a_list_take_memory_beside_their_bytes(body: bytes) -> None:
    cluster = FakeCluster(echo)
    exchange = Exchange(cluster, "/map/echo", max_memory_bytes=600_000 * ELEMENT_BYTES)
    await exchange.write(body, more=False)
    await asyncio.wait_for(exchange.task, PATIENCE)
    refusal(exchange, 413, "limit-exceeded", "max_memory_bytes")
    assert cluster.memory.used == 0


async def test_json_lines_and_jobs_take_what_is_held_of_them() -> None:
    for path in ("/map/echo", "/jobs/echo"):
        cluster = FakeCluster(echo)
        cluster.memory.used = 1
        exchange = Exchange(cluster, path, LINES, max_memory_bytes=PASSING_BYTES)
        await asyncio.wait_for(exchange.task, PATIENCE)
        refusal(exchange, 503, "memory-full", "max_memory_bytes")
        assert cluster.memory.used == 1


async def test_results_that_do_not_fit_into_memory_go_to_a_file() -> None:
    books = Books(max_memory_bytes=100)
    hold = books.hold()
    gathered = Gathered("json", LIMITS, hold)
    pipe = SpooledPipe(LIMITS, hold)
    pipe.put(b"x" * 60)
    gathered.add(Batch(0, 1, b"[%b]" % (b"1" * 50), []))
    pipe.put(b"y" * 60)
    assert gathered.is_spooled
    assert books.taken == (0, 0, 112, 60)
    pipe.put(b"z" * 10)
    pipe.end(b"!")
    out = b""
    while (data := await pipe.get()) is not None:
        out += data
    assert out == b"x" * 60 + b"y" * 60 + b"z" * 10 + b"!"
    assert books.taken == (0, 0, 52, 0)
    gathered.close()
    hold.close()
    assert books.taken == (0, 0, 0, 0)


async def test_values_take_the_memory_that_a_large_body_has_left() -> None:
    books = Books(max_memory_bytes=400, max_buffer_bytes=20)
    hold = books.hold()
    hold.add(160)
    hold.leave_to_values(80)
    gathered = Gathered("json", LIMITS.replace(max_buffer_bytes=20), hold)
    values = b"[%b]" % (b"1" * 38)
    gathered.add(Batch(1, 1, values, []))
    gathered.add(Batch(0, 1, values, []))
    assert not gathered.is_spooled and books.taken == (0, 0, 0, 160)
    gathered.add(Batch(2, 1, values, []))
    assert gathered.is_spooled and books.taken == (0, 0, 40, 160), "the body has left no more"
    size, encoded = gathered.size, b"".join(gathered.pieces())
    assert encoded == b"[%b]" % b",".join([values[1:-1]] * 3) and size == len(encoded)
    gathered.close()
    hold.close()
    assert books.taken == (0, 0, 0, 0)


async def test_values_leave_half_of_the_memory_to_others() -> None:
    books = Books(max_memory_bytes=200, max_buffer_bytes=20)
    hold = books.hold()
    hold.add(160)
    hold.leave_to_values(80)
    assert not hold.take_left(21) and hold.take_left(20) and not hold.take_left(1)
    hold.close()
    assert not hold.take_left(1) and books.taken == (0, 0, 0, 0)


async def test_the_answer_is_held_until_it_is_read() -> None:
    cluster = FakeCluster(echo, chunk=1)
    exchange = Exchange(cluster, "/map/echo")
    exchange.reading.clear()
    await exchange.write(b'["%b"]' % (b"x" * 800_000), more=False)
    await wait_until(lambda: exchange.output, "it begins")
    await turns(5)
    assert len(exchange.output) < 800_000 and cluster.memory.used > 800_000
    exchange.reading.set()
    await asyncio.wait_for(exchange.task, PATIENCE)
    assert exchange.output == b'["%b"]' % (b"x" * 800_000)
    assert cluster.memory.used == 0


# Disk


async def test_all_files_together_have_a_limit() -> None:
    options = {"max_buffer_bytes": 1000, "max_total_spool_bytes": 5000}
    async with gateway(FakeCluster(echo), **options) as client:
        few = await client.post("/map/echo", json=["x" * 900] * 5)
        many = await client.post("/map/echo", json=["x" * 900] * 10)
    assert few.status_code == 200
    assert many.status_code == 503 and many.headers["retry-after"]
    assert (many.json()["type"], many.json()["setting"]) == (
        "urn:jetmap:spool-full",
        "max_total_spool_bytes",
    )


async def test_a_body_waits_while_all_files_are_full() -> None:
    books = Books(max_total_spool_bytes=10, max_buffer_bytes=10)
    hold = books.hold()
    limits = books.admission.limits
    pipe = SpooledPipe(limits, hold, waits=True)
    for _ in range(3):
        pipe.put(b"x" * 10)  # What has arrived is kept.
    assert hold.spool_left < 0
    other = SpooledPipe(limits, books.hold())
    other.put(b"x" * 10)
    with pytest.raises(Problem, match="max_total_spool_bytes"):
        other.put(b"y")
    pipe.discard()
    other.put(b"y")
    other.discard()
    assert books.taken == (0, 0, 0, 0)


# What operators see
