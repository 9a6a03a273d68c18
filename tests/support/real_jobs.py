"""Jobs on a real broker: submit, wait, read back and check; and processes that carry them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from jetmap import Cluster
from jetmap.errors import JetmapError
from jetmap.jobs.record import Record
from jetmap.jobs.upload import Upload
from jetmap.nats.server import NatsServer
from processes import HERE
from servers import Site, starts
from waiting import PATIENCE, wait_for, wait_until


class CarrierProcess:
    """``carrier.py`` as a process. job: what it has submitted."""

    def __init__(self, process: asyncio.subprocess.Process, job: str) -> None:
        self.process = process
        self.job = job

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


async def carrier(
    place: Site, submitted: list[Any] | None = None, *, deaf: bool = False
) -> CarrierProcess:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "carrier.py")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=place.place,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([place.server.url, submitted, deaf]).encode() + b"\n")
    found = CarrierProcess(process, json.loads(await process.stdout.readline()))
    place.stack.push_async_callback(stop, found)
    return found


async def stop(found: CarrierProcess) -> None:
    if found.process.returncode is None:
        found.signal(signal.SIGCONT)
        found.process.kill()
    await found.process.wait()


async def submit(
    cluster: Cluster, function: str, items: list[Any], kwargs: dict[str, Any] | None = None
) -> Record:
    upload = await cluster.jobs.begin(
        function, format="json", kwargs=msgspec.json.encode(kwargs) if kwargs else b""
    )
    await upload.put([msgspec.json.encode(item) for item in items])
    return await upload.commit()


async def look(cluster: Cluster, job: str) -> Record | None:
    """The record; None while the broker is away."""
    try:
        return await cluster.jobs.get(job)
    except JetmapError:
        return None


async def until_over(cluster: Cluster, job: str, seconds: float = PATIENCE) -> Record:
    seen: list[Record | None] = []

    async def over() -> Record | None:
        record = await look(cluster, job)
        seen[:] = [record]
        return record if record is not None and record.is_over else None

    found = await wait_for(over, "the job is over", seconds, lambda: str(seen))
    assert found is not None
    return found


async def read(cluster: Cluster, record: Record) -> tuple[list[Any], dict[int, str]]:
    """Every value, and the kinds of the errors; each item exactly once, in order."""
    values: list[Any] = []
    errors: dict[int, str] = {}

    async def more() -> int | None:
        return record.total

    async for batch in cluster.jobs.outcomes(record).ordered(0, more=more):
        assert batch.start == len(values)
        decoded = msgspec.json.decode(batch.values)
        assert len(decoded) == batch.count
        values += decoded
        errors |= {error.index: error.kind for error in batch.errors}
    return values, errors


async def check(cluster: Cluster, record: Record, expected: list[Any]) -> None:
    assert record.state == "succeeded", record
    assert (record.done, record.failed, record.total) == (len(expected), 0, len(expected))
    assert await read(cluster, record) == (expected, {})


def jobs_items(count: int, seconds: float) -> list[tuple[int, float]]:
    return [(n, seconds) for n in range(count)]


async def until_started(log: Path, count: int) -> None:
    await wait_until(lambda: len(starts(log)) >= count, "the job runs")


async def kill_server(place: Site) -> None:
    assert place.server.pid is not None
    os.kill(place.server.pid, signal.SIGKILL)
    await place.server.wait()


async def start_server(place: Site) -> None:
    port = place.server.port
    await place.server.stop()
    place.server = NatsServer(port=port, store=place.place / "store")
    await place.server.start()


async def upload(cluster: Cluster, items: list[Any], **options: Any) -> Upload:
    found = await cluster.jobs.begin("empty", format="json", **options)
    await found.put([msgspec.json.encode(item) for item in items])
    return found
