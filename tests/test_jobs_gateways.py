"""Two gateways and a job: whichever is killed, events and answers go on at the other."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from nodes import free_ports
from support import Site, site, starts
from waiting import wait_for, wait_until

pytestmark = pytest.mark.anyio

COUNT = 600


class Gateway:
    """``jetmap api`` as a process. url: where it answers."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, store=tmp_path / "store") as there:
        yield there


async def gateway(place: Site, url: str | None = None) -> Gateway:
    """url: of the broker, where that is not the place's own."""
    [port] = free_ports(1)
    command = ["-m", "jetmap.cli", "api", "--nats", url or place.server.url, "--port", str(port)]
    with (place.place / f"gateway-{port}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=log, stderr=log
        )
    found = Gateway(process, port)
    place.stack.push_async_callback(stop, found)
    async with httpx.AsyncClient() as client:

        async def ready() -> bool:
            assert process.returncode is None
            try:
                return (await client.get(f"{found.url}/readyz")).status_code == 200
            except httpx.TransportError:
                return False  # It does not listen yet.

        await wait_for(ready, "the gateway is ready", 20)
    return found


async def stop(found: Gateway) -> None:
    if found.process.returncode is None:
        found.process.send_signal(signal.SIGCONT)
        await found.kill()


class Reader:
    """An EventSource: reads events, remembers the last id, checks that none comes twice."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.last = ""
        self.values: dict[int, int | None] = {}
        self.ended: list[str] = []

    async def read(self, base: str) -> int:
        """Until the connection ends; returns the status."""
        headers = {"accept": "text/event-stream"}
        if self.last:
            headers["last-event-id"] = self.last
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("GET", base + self.path, headers=headers) as answer,
        ):
            event: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, text = line.partition(": ")
                if line:
                    event[name] = text
                elif event:
                    self._take(event)
                    event = {}
            return answer.status_code

    def _take(self, event: dict[str, str]) -> None:
        if "event" not in event:
            return
        data = msgspec.json.decode(event["data"])
        if event["event"] == "results":
            for index, value in enumerate(data["values"], data["start"]):
                assert index not in self.values, f"item {index} came twice"
                self.values[index] = value
        elif event["event"] in ("done", "failed"):
            self.ended.append(event["event"])
        self.last = event.get("id", self.last)


@pytest.mark.slow
async def test_events_go_on_at_the_other_gateway_when_one_is_killed(
    place: Site, tmp_path: Path
) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    first, second = await gateway(place), await gateway(place)
    log = tmp_path / "log"
    job = await submitted(first, log)
    reader = Reader(f"{job}/events")
    reading = asyncio.ensure_future(reader.read(first.url))
    await wait_until(lambda: len(reader.values) > 100, "results stream in", 20)
    await first.kill()
    with pytest.raises(httpx.TransportError):
        await reading
    while not reader.ended:
        await reader.read(second.url)
    assert reader.values == {n: n for n in range(COUNT)}
    assert reader.ended == ["done"]
    assert await reader.read(second.url) == 204
    assert len(starts(log)) - COUNT <= 2 * 20
    await whole(second, job)


@pytest.mark.slow
async def test_every_gateway_is_killed(place: Site, tmp_path: Path) -> None:
    cluster = await place.cluster()
    await place.agent(cluster)
    await cluster.aclose()  # So that nobody else carries it.
    gateways = [await gateway(place) for _ in range(2)]
    log = tmp_path / "log"
    job = await submitted(gateways[0], log)
    await wait_until(lambda: len(starts(log)) > 100, "the job runs", 20)
    for one in gateways:
        one.process.kill()
    for one in gateways:
        await one.process.wait()
    again = await gateway(place)
    reader = Reader(f"{job}/events")
    while not reader.ended:
        await reader.read(again.url)
    assert reader.values == {n: n for n in range(COUNT)}
    await whole(again, job)


async def submitted(gateway: Gateway, log: Path) -> str:
    kwargs = msgspec.json.encode({"log": str(log)}).decode()
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(
            f"{gateway.url}/jobs/logged",
            params={"kwargs": kwargs},
            json=[[n, 0.01] for n in range(COUNT)],
        )
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])


async def whole(gateway: Gateway, job: str) -> None:
    """All results, in input order, in each form; and what the job says of itself."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        document = (await client.get(job)).json()
        assert (document["state"], document["done"], document["failed"]) == ("succeeded", COUNT, 0)
        lines = (await client.get(f"{job}/results", headers={"accept": "application/jsonl"})).text
        told = [msgspec.json.decode(line) for line in lines.splitlines()]
        assert told[:-1] == [{"index": n, "value": n} for n in range(COUNT)]
        assert told[-1] == {"done": COUNT, "failed": 0}
        packed = await client.get(f"{job}/results", headers={"accept": "application/msgpack"})
        found = msgspec.msgpack.decode(packed.content)
        assert (found["values"], found["errors"]) == (list(range(COUNT)), [])
        start: int | None = 0
        values: list[int] = []
        while start is not None:
            page = (await client.get(f"{job}/results", params={"start": start, "limit": 77})).json()
            assert page["start"] == len(values) and not page["errors"]
            values += page["values"]
            start = page["next"]
        assert values == list(range(COUNT))
