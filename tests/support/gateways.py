"""``jetmap api`` as a process, and a job that is submitted to one and read from another."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import httpx
import msgspec

from nodes import free_ports
from servers import Site
from waiting import PATIENCE, wait_for

COUNT = 600


class Gateway:
    """``jetmap api`` as a process. url: where it answers."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


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

        await wait_for(ready, "the gateway is ready")
    return found


async def stop(found: Gateway) -> None:
    if found.process.returncode is None:
        found.process.send_signal(signal.SIGCONT)
        await found.kill()


async def submitted(gateway: Gateway, log: Path) -> str:
    kwargs = msgspec.json.encode({"log": str(log)}).decode()
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        answer = await client.post(
            f"{gateway.url}/jobs/logged",
            params={"kwargs": kwargs},
            json=[[n, 0.01] for n in range(COUNT)],
        )
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])


async def whole(gateway: Gateway, job: str) -> None:
    """All results, in input order, in each form; and what the job says of itself."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE) as client:
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
