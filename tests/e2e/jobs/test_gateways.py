"""Two gateways and a job: whichever is killed, events and answers go on at the other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest

from gateways import COUNT, gateway, submitted, whole
from servers import Site, starts
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.anyio


class Reader:
    """An EventSource: reads events, remembers the last id, checks that none comes twice."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.last = ""
        self.values: dict[int, int | None] = {}
        self.ended: list[str] = []

    async def read(self, base: str) -> int:
        """Read until the connection ends. Returns the status."""
        headers = {"accept": "text/event-stream"}
        if self.last:
            headers["last-event-id"] = self.last
        async with (
            httpx.AsyncClient(timeout=PATIENCE) as client,
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
    await wait_until(lambda: len(reader.values) > 100, "results stream in")
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
