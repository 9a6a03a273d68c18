"""A complete jetmap on this machine, supervised: NATS server, agent and gateway.

::

    jetmap up ── nats-server
              ├─ jetmap worker ── a worker per core
              └─ jetmap api      (on a socket of `up`, which survives the gateway)

All of them end with `up`, even if it is killed. They stop in order: gateway, agent, server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from jetmap.background import beside
from jetmap.client.local_up import this_python
from jetmap.embedded.locks import remove, runtime_directory, sweep, take_new
from jetmap.embedded.running import Registration, Running, all_running, already_runs, register_up
from jetmap.errors import BrokerUnreachable, ConfigurationError
from jetmap.machine import steady_heap, working_directory
from jetmap.nats.auth import Auth
from jetmap.nats.server import TEMPORARY, NatsServer, PortTaken
from jetmap.settings import Settings
from jetmap.version import __version__
from jetmap.wire.seals import new_key

from .children import LOCAL, SOCKET, Child, restarting
from .listening import listen, local_url, url_of
from .store import LOOK_SECONDS, DiskAction, HeldStore, StoreHealth, free_bytes, stuck_streams

logger = logging.getLogger(__name__)

FAREWELL = 5.0  # Seconds beyond its grace that a child may need to end.


class Installation:
    """The NATS server, agent and gateway of one ``up`` or demo.

    Args:
        register: Whether ``jetmap map``, ``status`` and ``api`` in this directory find it.
        store: Directory of its streams, which ``stop`` releases. None: temporary, without jobs.
    """

    def __init__(
        self, settings: Settings, *, register: bool, store: HeldStore | None = None
    ) -> None:
        self._settings = settings
        self._store = store
        self._register = register
        self._listener: socket.socket | None = None
        self._server: NatsServer | None = None
        self._lock: tuple[Path, int] | None = None
        self._registration: Registration | None = None
        self._gateway: Child | None = None
        self._agent: Child | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_mending = False  # The server is stopped only to start it again.

    # Once started

    @property
    def url(self) -> str:
        """URL of the gateway on this machine."""
        assert self._listener is not None
        return url_of(self._listener)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port at which this machine reaches the gateway."""
        assert self._listener is not None
        host, port = self._listener.getsockname()[:2]
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port

    @property
    def nats_port(self) -> int:
        assert self._server is not None
        return self._server.port

    @property
    def nats_url(self) -> str:
        return local_url("nats", self._settings.server.nats_host, self.nats_port)

    @property
    def nats_user(self) -> str:
        return self._settings.broker.nats_user or "jetmap"

    @property
    def running(self) -> Running | None:
        """Its registration for other processes of this user; None if it is not registered."""
        return None if self._registration is None else self._registration.running

    @property
    def store(self) -> Path | None:
        """Directory in which jobs outlive it."""
        return None if self._store is None else self._store.directory

    @property
    def agent(self) -> Child:
        assert self._agent is not None
        return self._agent

    @property
    def gateway(self) -> Child:
        assert self._gateway is not None
        return self._gateway

    # Life cycle

    async def start(self) -> None:
        """Start everything. Returns when the server answers.

        Raises ConfigurationError if a port is taken, BrokerUnreachable if the server cannot start.
        """
        settings = self._settings
        self._listener = listen(settings.gateway.host, settings.gateway.port)
        password = settings.broker.read_nats_password() or secrets.token_urlsafe(24)
        await self._start_server(password)
        inner = settings.at(self.nats_url, self.nats_user, password)
        environment, local = inner.environment(), {}
        if self._register:
            self._registration = register_up(
                working_directory(),
                self.nats_url,
                self.nats_user,
                password,
                pool=settings.broker.pool,
                gateway=self.url,
                key=new_key().hex(),
                tasks=list(settings.workers.tasks),
                cores=settings.workers.cores,
                reload=settings.workers.reload,
                python=this_python(),
                version=__version__,
            )
            # If two are started at once, the later one gives way.
            first = all_running(working_directory(), settings.broker.pool)[0]
            if first.pid != os.getpid():
                raise ConfigurationError([already_runs(first)])
            # For the agent only: a request over HTTP must never pass for a program of this user.
            local = {LOCAL: self._registration.running.lock}
        self._agent = Child("worker", ["worker"], environment | local | steady_heap(os.environ))
        descriptor = self._listener.fileno()
        self._gateway = Child(
            "gateway", ["api"], environment | {SOCKET: str(descriptor)}, [descriptor]
        )
        server = restarting("nats-server", self._serve_server)
        parts = [server.run(), self._agent.run(), self._gateway.run()]
        if self._store is not None:
            auth = Auth(user=self.nats_user, password=password)
            parts.append(self._mind_store(self._store.directory, auth))
        self._supervise(*parts)

    async def until(self, stop: asyncio.Event) -> None:
        """Wait for ``stop``. Raises ChildFailed or BrokerUnreachable if a part cannot run."""
        async with beside(stop.wait()) as waiting:
            await asyncio.wait([*waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done():
                    task.result()

    async def answers(self, path: str, timeout: float | None) -> None:
        """Wait until the gateway answers 200 on this path. Raises TimeoutError.

        timeout: seconds; None: no limit.
        """
        async with asyncio.timeout(timeout):
            while not await self._is_ok(path):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def stop(self, forced: asyncio.Event) -> None:
        """Stop everything in order, or at once when ``forced`` is set. Calling it again is safe."""
        grace = self._settings.workers.grace + FAREWELL
        for child in (self._gateway, self._agent):
            if child is not None:
                await child.stop(grace, forced)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.stop()
        if self._registration is not None:
            self._registration.close()
        if self._store is not None:
            self._store.close()
        if self._lock is not None:
            path, descriptor = self._lock
            self._lock = None
            remove(path)
            os.close(descriptor)
        if self._listener is not None:
            self._listener.close()

    # The server

    async def _start_server(self, password: str) -> None:
        settings = self._settings
        self._server = NatsServer(
            host=settings.server.nats_host,
            port=settings.server.nats_port,
            store=None if self._store is None else self._store.directory,
            directory=self._directory(),
            user=self.nats_user,
            password=password,
            name="jetmap" if self._store is not None else TEMPORARY,
            inherited=() if self._store is None else (self._store.descriptor,),
        )
        try:
            await self._server.start()
        except PortTaken as exc:
            raise BrokerUnreachable(
                f"port {settings.server.nats_port} is taken: stop the program that listens there, "
                "give --nats-port 0 for any free port, or, if that program is your broker, use it: "
                "jetmap worker … --nats URL"
            ) from exc

    def _directory(self) -> Path:
        """Return a directory for the server's files, which the next start removes if need be."""
        sweep(runtime_directory())
        path = runtime_directory() / f"server-{os.getpid()}-{secrets.token_hex(4)}.lock"
        descriptor = take_new(path)
        assert descriptor is not None, path
        self._lock = path, descriptor
        return path.with_suffix(".nats")

    async def _serve_server(self) -> str | None:
        """Await the end of the server, and start it unless it runs; its clients reconnect."""
        assert self._server is not None
        if not self._server.running:
            try:
                await self._server.start()
            except BrokerUnreachable as error:
                return f"does not start: {error}"
        code = await self._server.wait()
        if self._is_mending:
            self._is_mending = False
            return None
        return f"died ({code})"

    async def _mind_store(self, directory: Path, auth: Auth) -> None:
        """Log when the store's disk is full; restart the server if that has stopped its streams."""
        assert self._server is not None
        health = StoreHealth()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                free = await asyncio.to_thread(free_bytes, directory)
            except OSError as error:
                logger.debug("the disk of %s cannot be checked: %s", directory, error)
                continue
            stuck, is_cramped = None, False
            if health.wants_probe(free, time.monotonic()) and self._server.running:
                stuck = await stuck_streams(self._server.url, auth)
                is_cramped = await asyncio.to_thread(self._server.is_cramped)
            step = health.decide(free, stuck, time.monotonic(), is_cramped=is_cramped)
            if step is DiskAction.REPORT_FULL:
                logger.error(
                    "the disk of the store %s is full (%s bytes are free): until there is room, "
                    "running jobs wait and new ones are refused; delete files on it",
                    directory,
                    f"{free:,}",
                )
            elif step is DiskAction.REPORT_ROOM:
                logger.warning("the disk of the store %s has room again", directory)
            elif step is DiskAction.RESTART:
                why = "whose limit is from when there was little"
                if stuck:
                    why = f"which accepts no writes to {', '.join(sorted(stuck))} until then"
                logger.warning(
                    "the disk of the store %s has room again; restarting nats-server, %s",
                    directory,
                    why,
                )
                self._is_mending = True
                await self._server.end()

    def _supervise(self, *parts: Coroutine[Any, Any, None]) -> None:
        self._tasks = [asyncio.ensure_future(part) for part in parts]

    async def _is_ok(self, path: str) -> bool:
        """Send one request. While the gateway starts, it waits in the socket that `up` holds."""
        host, port = self.address
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n"
                    if token := self._settings.gateway.read_token():
                        request += f"Authorization: Bearer {token}\r\n"
                    writer.write(f"{request}Connection: close\r\n\r\n".encode())
                    status = await reader.readline()
                finally:
                    writer.close()
        except (OSError, ValueError, TimeoutError):  # ValueError: its first line never ends.
            return False
        return status.split()[1:2] == [b"200"]
