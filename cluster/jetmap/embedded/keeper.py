"""The keeper: a process that owns an embedded nats-server and agent, shared by its users.

::

    user ──┐ a Unix socket each: held while the user lives, however it dies;
    user ──┤ carries the user's stderr in, the address and password out
    user ──┘
           keeper ── nats-server (dies with it)
                  └─ agent ── workers (die with it)

The user that starts the keeper takes the lock ``<key>.lock``, which the keeper inherits, so there
is never a second one. The keeper inherits the other end of that user's socket, too: it has a user
from its first moment, however busy the machine is. It ends two seconds after its last user. If it
is killed, its users see their sockets close, and one of them starts the next keeper with the same
port and password.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jetmap.background import Background
from jetmap.errors import BrokerUnreachable, JetmapError
from jetmap.logs import Formatter, JsonFormatter, PromptHandler
from jetmap.machine import advice_for, usual_signals
from jetmap.nats.server import NatsServer
from jetmap.supervision import Backoff, Supervisor

from .agent_start import AgentLike, AgentStart
from .keeper_messages import Address, KeeperStart, Notice
from .locks import clear, remove, sweep
from .output_relay import Relay

if TYPE_CHECKING:
    from jetmap.nats.connection import Connection

logger = logging.getLogger("jetmap.keeper")

# Seconds that the keeper outlives its last user.
LINGER = 2.0
# Seconds that a new keeper tries to listen on the port of the last one.
SAME_PORT_SECONDS = 5.0


def main(start: dict[str, Any]) -> None:
    """Run a keeper to its end, in the new process that ``membership`` starts for it."""
    usual_signals()
    handler = PromptHandler(follows=True)  # The relay's pipe, which outlives each user.
    startup = msgspec.convert(start, KeeperStart)
    is_json = startup.spec.settings.get("log_format") == "json"
    text = Formatter("jetmap keeper: %(levelname)s: %(message)s")
    handler.setFormatter(JsonFormatter() if is_json else text)
    logging.basicConfig(level=startup.spec.log_level.upper(), handlers=[handler])
    keeper = Keeper(startup)
    try:
        import uvloop
    except ImportError:
        asyncio.run(keeper.run())
    else:
        uvloop.run(keeper.run())


class Keeper:
    """A keeper, which serves users until two seconds after the last one left, or SIGTERM."""

    def __init__(self, start: KeeperStart) -> None:
        self._startup = start
        self._settings = start.spec.to_settings()
        self._lock = Path(start.lock)
        self._socket = self._lock.with_suffix(".sock")
        self._files = self._lock.with_suffix(".nats")
        self._users: dict[socket.socket, int | None] = {}
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._terminated = False
        self._notice = Notice()
        self._linger: asyncio.TimerHandle | None = None
        self._background = Background("keeper")
        self._server: NatsServer | None = None
        self._connection: Connection | None = None
        self._agent: AgentLike | None = None
        self._relay: Relay | None = None
        self._agent_start = AgentStart(start)
        self._prepared: asyncio.Future[None] | None = None

    async def run(self) -> None:
        self._settle_in()
        listener = self._listen()
        accepting = self._background.spawn(self._accept(listener), "accept")
        os.set_inheritable(self._startup.user_fd, False)
        self._welcome(socket.socket(fileno=self._startup.user_fd))
        serving = self._background.spawn(self._serve(), "serve")
        await self._ended.wait()
        # From here on a new user finds no socket, and waits for this lock to start a keeper.
        accepting.cancel()
        listener.close()
        self._socket.unlink(missing_ok=True)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await self._stop()
        if self._relay is not None:
            self._relay.close()
        remove(self._lock)  # The lock itself ends with this process.

    # Beginning

    def _settle_in(self) -> None:
        os.set_inheritable(self._startup.lock_fd, False)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self._relay = Relay()
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        sweep(self._lock.parent)
        clear(self._lock)  # A killed keeper may have left files under this key.

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(str(self._socket))
        listener.listen(128)
        return listener

    async def _serve(self) -> None:
        # While the server starts.
        self._prepared = asyncio.create_task(self._agent_start.prepare())
        try:
            await self._start_server()
            self._agent_start.server_runs.set()
            self._ready.set()
            async with asyncio.TaskGroup() as tasks:
                # Together: the server may die while the agent still starts.
                backoff = Backoff(0.1, 5.0, healthy_after=30.0)
                tasks.create_task(Supervisor(self._serve_server, backoff, _report).run())
                tasks.create_task(self._start_agent())
        except* Exception as group:
            error = group.exceptions[0]
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            advice = advice_for(error)
            is_clear = bool(advice) or isinstance(error, JetmapError)
            logger.error("the keeper cannot go on", exc_info=None if is_clear else error)
            await self._fail(f"{type(error).__name__}: {error}{advice}")

    async def _start_server(self) -> None:
        previous = self._startup.previous
        user, password = "jetmap", secrets.token_urlsafe(24)
        if previous is not None:
            user, password = previous.user, previous.password
        self._server = server = NatsServer(
            port=previous.port if previous else 0,
            directory=self._files,
            user=user,
            password=password,
        )
        deadline = asyncio.get_running_loop().time() + SAME_PORT_SECONDS
        while True:
            try:
                await server.start()
                break
            except BrokerUnreachable:
                # Another program may take a free port first; the last server may be ending.
                if asyncio.get_running_loop().time() > deadline:
                    if server.port == 0 or previous is None:
                        raise
                    logger.warning("port %d is taken by another program", server.port)
                    previous = None
                if previous is None:
                    server.port = 0
                await asyncio.sleep(0.1)
        self._notice = Notice(Address(server.url, user, password, os.getpid()))

    async def _start_agent(self) -> None:
        assert self._prepared is not None
        await self._prepared
        gc.freeze()
        gc.enable()
        from jetmap.nats.connection import Auth, Connection

        address = self._notice.address
        assert address is not None
        auth = Auth(user=address.user, password=address.password)
        self._connection = await Connection.open(
            [address.url],
            name="jetmap keeper",
            auth=auth,
            timeout=self._settings.workers.start_timeout,
        )
        self._agent = self._agent_start.make(self._connection)
        await self._agent.start()

    async def _serve_server(self) -> str:
        """Await the end of the server, which runs already the first time; its clients reconnect."""
        server = self._server
        assert server is not None
        if not server.running:
            try:
                await server.start()
            except BrokerUnreachable as error:
                return f"does not start: {error}"
        return f"exited with code {await server.wait()}"

    # Users

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            user, _ = await loop.sock_accept(listener)
            self._welcome(user)

    def _welcome(self, user: socket.socket) -> None:
        user.setblocking(False)
        self._users[user] = None
        self._wait_for_users()
        self._background.spawn(self._attend(user), "attend")

    async def _attend(self, user: socket.socket) -> None:
        """Send a user the address, then wait until it ends."""
        loop = asyncio.get_running_loop()
        try:
            await _readable(user)
            _, descriptors, _, _ = socket.recv_fds(user, 16, 1)
            if descriptors:
                os.set_inheritable(descriptors[0], False)
                self._users[user] = descriptors[0]
                self._point_output()
            await self._ready.wait()
            await loop.sock_sendall(user, msgspec.json.encode(self._notice) + b"\n")
            while await loop.sock_recv(user, 1024):
                pass
        except OSError:
            pass  # It was killed.
        finally:
            stderr = self._users.pop(user)
            user.close()
            if stderr is not None:
                os.close(stderr)
            self._point_output()
            self._wait_for_users()

    def _point_output(self) -> None:
        """Send printed output to the oldest user that has a stderr."""
        if self._relay is not None:
            owners = [fd for fd in self._users.values() if fd is not None]
            self._relay.point(os.dup(owners[0]) if owners else None)

    def _wait_for_users(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self._users:
            seconds = 0 if self._is_over() else LINGER
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(seconds, self._spawn_end)

    def _is_over(self) -> bool:
        """Return whether nobody can join, or has anything to gain by it.

        Whoever comes next may have raised a limit under which the workers here cannot start.
        """
        is_broken = self._agent is not None and self._agent.is_broken
        return is_broken or bool(self._notice.failed) or not self._startup.spec.share

    def _spawn_end(self) -> None:
        self._background.spawn(self._end_unless_used(), "end")

    async def _end_unless_used(self) -> None:
        # If this process was frozen, a user may be waiting to be accepted.
        await asyncio.sleep(0.02)
        if not self._users:
            self._ended.set()

    async def _fail(self, reason: str) -> None:
        """Send the reason to every user, present and future; end when they have left."""
        was_ready = self._ready.is_set()
        self._notice = Notice(self._notice.address, reason)
        self._ready.set()
        if was_ready:
            line = msgspec.json.encode(self._notice) + b"\n"
            loop = asyncio.get_running_loop()
            for user in list(self._users):
                try:
                    await loop.sock_sendall(user, line)
                except OSError:
                    pass  # It has just ended.

    # Ending

    def _terminate(self) -> None:
        if self._terminated:
            os._exit(1)  # A second signal: end now; the server and workers die with this process.
        self._terminated = True
        self._ended.set()

    async def _stop(self) -> None:
        grace = self._settings.workers.grace
        try:
            if self._agent is not None and self._terminated:
                async with asyncio.timeout(grace + 5):
                    await self._agent.drain(grace)
            elif self._agent is not None:
                async with asyncio.timeout(3):
                    await self._agent.stop()
        except Exception:
            logger.exception("the agent failed while it stopped")
        if self._prepared is not None:
            self._prepared.cancel()
            await asyncio.gather(self._prepared, return_exceptions=True)
        await self._agent_start.close()
        if self._connection is not None:
            await self._connection.close()
        if self._server is not None:
            await self._server.stop(grace=1)


def _report(how: str, pause: float) -> None:
    logger.error("nats-server %s; starting it again in %.1f s", how, pause)


async def _readable(user: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def settle() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(user, settle)
    try:
        await readable
    finally:
        loop.remove_reader(user)
