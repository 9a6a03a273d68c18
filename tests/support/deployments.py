"""NATS as people deploy it: servers with a configuration of any kind, and whether jetmap works."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import nkeys

import functions
from jetmap import Cluster
from jetmap.agent.agent import Agent
from jetmap.cli.worker import agent_options
from jetmap.nats.auth import Auth
from jetmap.nats.connection import Connection
from jetmap.nats.server import find_binary
from jetmap.settings import Settings
from nodes import free_ports
from servers import FUNCTIONS
from waiting import PATIENCE, wait_until

JETSTREAM = 'jetstream { store_dir: "STORE" }'


class Servers:
    """nats-server processes, each with a configuration of the test's own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, config: str, port: int | None = None, binary: str | None = None) -> str:
        """Start a server; STORE in its configuration is a directory of its own. Returns its
        address."""
        port = port or free_ports(1)[0]
        name = f"s{len(self._processes)}"
        place = self._directory / name
        place.mkdir()
        text = f'server_name: {name}\nlisten: "127.0.0.1:{port}"\n{config}\n'
        (place / "conf").write_text(text.replace("STORE", str(place)), encoding="utf-8")
        command = [binary or find_binary(), "-c", str(place / "conf"), "-l", str(place / "log")]
        self._processes.append(subprocess.Popen(command))
        return f"nats://127.0.0.1:{port}"

    def cluster(self, count: int) -> list[str]:
        """Start this number of servers as one cluster."""
        routes, ports = free_ports(count), free_ports(count)
        others = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
        return [
            self.start(
                f"{JETSTREAM}\ncluster {{ name: c, no_advertise: true, "
                f'listen: "127.0.0.1:{route}", routes: [ {others} ] }}',
                port,
            )
            for route, port in zip(routes, ports, strict=True)
        ]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    @property
    def last(self) -> subprocess.Popen[bytes]:
        """The process of the server that was started last."""
        return self._processes[-1]

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@contextmanager
def deployed() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="jm-nats-", dir="/tmp") as directory:
        servers = Servers(Path(directory))
        try:
            yield servers
        finally:
            servers.stop()


def settings(url: str, **options: Any) -> Settings:
    return Settings(nats_url=url, tasks=[FUNCTIONS], cores="1", start_timeout=30, **options)


class Deployment:
    """A worker and a gateway's cluster at a broker, in this process."""

    def __init__(self, worker: Settings, gateway: Settings | None = None) -> None:
        self._worker = worker
        self._gateway = gateway or worker
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Deployment:
        try:
            self.connection = await Connection.open(
                self._worker.broker.servers(),
                name="w",
                auth=Auth.of(self._worker),
                timeout=PATIENCE,
            )
            self._stack.push_async_callback(self.connection.close)
            self.agent = Agent(self.connection, agent_options(self._worker))
            self._stack.push_async_callback(self.agent.stop)
            await self.agent.start()
            self.cluster = await Cluster(settings=self._gateway).__aenter__()
            self._stack.push_async_callback(self.cluster.aclose)
            await wait_until(
                lambda: any(p.ready for p in self.cluster.workers) or self.agent.refused,
                "a worker is ready",
                30,
            )
            if self.agent.refused is not None:
                raise self.agent.refused
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def maps(self) -> None:
        async with asyncio.timeout(PATIENCE):
            numbers = list(range(1, 200, 2))
            assert await self.cluster.map(functions.odd_only, numbers) == numbers

    async def runs_jobs(self) -> None:
        async with asyncio.timeout(PATIENCE):
            job = await self.cluster.submit(functions.odd_only, [1, 3, 5])
            assert await job == [1, 3, 5]

    async def stream(self, name: str = "JETMAP_WORK_default") -> dict[str, Any]:
        found: dict[str, Any] = (await self.connection.api(f"STREAM.INFO.{name}"))["config"]
        return found


# Credentials: nkeys and JWTs, signed as nsc does


def key(kind: int) -> tuple[str, str]:
    """A new key pair: its seed and its public key."""
    seed = nkeys.encode_seed(os.urandom(32), kind)
    pair = nkeys.from_seed(bytearray(seed))
    return bytes(seed).decode(), pair.public_key.decode()


def jwt(issuer_seed: str, subject: str, name: str, nats: Mapping[str, Any]) -> str:
    pair = nkeys.from_seed(bytearray(issuer_seed.encode()))
    claims: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": pair.public_key.decode(),
        "name": name,
        "sub": subject,
        "nats": {"version": 2, **nats},
    }
    claims["jti"] = base64.b32encode(hashlib.sha256(name.encode()).digest()).decode().rstrip("=")
    head = _encoded({"typ": "JWT", "alg": "ed25519-nkey"})
    text = f"{head}.{_encoded(claims)}"
    signature = base64.urlsafe_b64encode(pair.sign(text.encode())).decode().rstrip("=")
    return f"{text}.{signature}"


def credentials(token: str, seed: str) -> str:
    """A .creds file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _encoded(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")
