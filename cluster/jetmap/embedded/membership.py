"""Join the keeper of an embedded cluster; start one if there is none."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path

import msgspec

from jetmap.background import Background
from jetmap.errors import BrokerUnreachable, ConfigurationError
from jetmap.import_path import own_first
from jetmap.machine import check_text, steady_heap, working_directory
from jetmap.nats.auth import Auth
from jetmap.nats.broker import Callback
from jetmap.settings import FIELDS
from jetmap.supervision import Backoff, Supervisor
from jetmap.wire import messages

from .keeper_messages import Address, KeeperSpec, KeeperStart, Notice
from .locks import runtime_directory, take

__all__ = ["KeeperSpec", "Membership", "join_keeper"]

logger = logging.getLogger(__name__)

# Seconds between attempts to connect to a keeper that starts.
POLL_SECONDS = 0.01
# Keepers that one call of ``join`` starts, at most.
STARTS = 3
# The program of a new keeper. Its first process ends at once, so that the keeper is an orphan that
# nobody has to reap.
PROGRAM = f"""\
import os
if os.fork():
    os._exit(0)
{own_first("", "[]")}
import gc, json
gc.disable()  # Until the agent is imported: what is imported stays.
start = json.load(sys.stdin)
sys.path += start["sys_path"]
from jetmap.embedded.keeper import main
sys.path[:] = start["sys_path"]
main(start)
"""


_memberships: weakref.WeakSet[Membership] = weakref.WeakSet()


async def join_keeper(
    spec: KeeperSpec, timeout: float = 60, *, agent: str | None = None
) -> Membership:
    """Join the keeper of ``spec`` in this directory; start one if there is none.

    Returns when its NATS server answers; its workers may still be starting. Raises
    BrokerUnreachable, with the reason, if it does not start within ``timeout`` seconds.
    agent: ``module:function`` that makes the keeper's agent, for tests.
    """
    membership = Membership(spec, agent)
    try:
        await membership._enter(time.monotonic() + timeout)
        watch = Supervisor(membership._serve, Backoff(0.1, 5.0)).run()
        membership._background.spawn(watch, "watch")
    except BaseException:
        await membership.leave()
        raise
    return membership


class Membership:
    """A user's share in a keeper, from ``join_keeper`` to ``leave``.

    It keeps the keeper alive. If the keeper is killed, one of its users starts the next one, on the
    same port with the same password. starter: whether this process started the keeper.
    failed: why the keeper has no agent, or None.
    """

    def __init__(self, spec: KeeperSpec, agent: str | None = None) -> None:
        self.starter = False
        self.failed: str | None = None
        self._spec = spec
        self._agent = agent
        self._cwd = str(working_directory())
        self._sys_path = [entry or self._cwd for entry in sys.path]
        for entry in self._sys_path:
            check_text("a directory of sys.path", entry)
        self._lock = runtime_directory() / f"{_key(spec, self._cwd)}.lock"
        self._address: Address | None = None
        self._socket: socket.socket | None = None
        self._background = Background("embedded cluster")
        self._lost_callbacks: list[Callback] = []
        self._renewed_callbacks: list[Callback] = []
        self._failed_callbacks: list[Callback] = []
        _memberships.add(self)

    @property
    def address(self) -> Address:
        if self._address is None:
            raise RuntimeError("not joined yet")
        return self._address

    @property
    def servers(self) -> list[str]:
        return [self.address.url]

    @property
    def auth(self) -> Auth:
        return Auth(user=self.address.user, password=self.address.password)

    @property
    def keeper_pid(self) -> int:
        return self.address.pid

    def on_lost(self, callback: Callback) -> None:
        """Await ``callback`` each time the keeper is gone."""
        self._lost_callbacks.append(callback)

    def on_renewed(self, callback: Callback) -> None:
        """Await ``callback`` each time there is a new keeper.

        ``servers`` differs from before if another program took the port meanwhile.
        """
        self._renewed_callbacks.append(callback)

    def on_failed(self, callback: Callback) -> None:
        """Await ``callback`` each time ``failed`` has changed."""
        self._failed_callbacks.append(callback)

    async def leave(self) -> None:
        """Let go of the keeper, which ends two seconds after its last user. Twice is harmless."""
        _memberships.discard(self)
        await self._background.close()
        self._hang_up()

    # Joining

    async def _enter(self, deadline: float) -> None:
        started: list[subprocess.Popen[bytes]] = []
        try:
            notice = await self._connect(deadline, started)
        finally:
            for process in started:
                process.wait()  # This is the keeper's parent, which ended at once.
        if notice.address is None:
            raise BrokerUnreachable(f"the embedded cluster cannot start: {notice.failed}")
        self.failed = notice.failed
        self.starter = bool(started)
        self._address = notice.address

    async def _connect(self, deadline: float, started: list[subprocess.Popen[bytes]]) -> Notice:
        """Ask the keeper for its address until it answers; start one whenever there is none."""
        while True:
            notice = await self._ask_for_address(deadline)
            if notice is not None:
                return notice
            descriptor = take(self._lock)
            if descriptor is not None:
                # No process is the keeper, or is starting one.
                notice = await self._from_own_keeper(descriptor, deadline, started)
                if notice is not None:
                    return notice
            if time.monotonic() > deadline:
                raise BrokerUnreachable(
                    "the keeper process of the embedded cluster does not answer on "
                    f"{self._lock.with_suffix('.sock')}: end it (`fuser {self._lock}` names "
                    "it) or raise start_timeout"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _from_own_keeper(
        self, lock_fd: int, deadline: float, started: list[subprocess.Popen[bytes]]
    ) -> Notice | None:
        """Start a keeper whose first user this is; None if it ended before it answered."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                if len(started) == STARTS:
                    raise BrokerUnreachable(
                        "the keeper process of the embedded cluster ended before it "
                        "answered; its error is on stderr"
                    )
                started.append(self._start_keeper(lock_fd, theirs.fileno()))
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(lock_fd)
        ours.setblocking(False)
        return await self._from_keeper(ours, deadline)

    async def _ask_for_address(self, deadline: float) -> Notice | None:
        """Connect and wait for the address; None if no keeper listens, or it just ended."""
        caller = socket.socket(socket.AF_UNIX)
        caller.setblocking(False)
        try:
            caller.connect(str(self._lock.with_suffix(".sock")))
        except OSError:
            caller.close()
            return None
        return await self._from_keeper(caller, deadline)

    async def _from_keeper(self, caller: socket.socket, deadline: float) -> Notice | None:
        """Wait for the address on a socket to the keeper; None if the keeper has ended."""
        try:
            _send_stderr(caller)
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                line = await _read_line(caller)
        except OSError:  # Reset, or timed out.
            caller.close()
            return None
        except BaseException:
            caller.close()
            raise
        if not line:
            caller.close()
            return None
        self._socket = caller
        return msgspec.json.decode(line, type=Notice)

    def _start_keeper(self, lock_fd: int, user_fd: int) -> subprocess.Popen[bytes]:
        """Start a keeper with a lock and a user; return its parent, which ends at once."""
        if not sys.executable:
            raise ConfigurationError(["no Python executable: an embedded cluster needs one"])
        start = KeeperStart(
            spec=self._spec,
            lock=str(self._lock),
            lock_fd=lock_fd,
            user_fd=user_fd,
            sys_path=self._sys_path,
            cwd=self._cwd,
            previous=self._address,
            agent=self._agent,
        )
        try:
            parent = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=_stderr_or_null(),
                stderr=_stderr_or_null(),
                cwd=self._cwd,
                env=os.environ | steady_heap(os.environ),
                pass_fds=(lock_fd, user_fd),
                start_new_session=True,  # Ctrl-C at the terminal must not reach it.
            )
            assert parent.stdin is not None
            with parent.stdin as pipe:
                pipe.write(msgspec.json.encode(start))
        except OSError as error:
            raise BrokerUnreachable(f"cannot start the keeper process: {error}") from error
        return parent

    # Watching the keeper

    async def _serve(self) -> str | None:
        """Wait until the keeper is gone; before that, join the next one if it has gone before."""
        if self._socket is None:
            try:
                await self._enter(time.monotonic() + 30)
            except (BrokerUnreachable, ConfigurationError) as error:
                self._hang_up()
                logger.exception("the embedded cluster cannot be started again; trying again")
                return str(error)
            await _run(self._renewed_callbacks)
        await self._until_lost()
        self._hang_up()
        logger.warning("the keeper of the embedded cluster is gone; starting another")
        await _run(self._lost_callbacks)
        return None

    async def _until_lost(self) -> None:
        while True:
            assert self._socket is not None
            try:
                line = await _read_line(self._socket)
            except OSError:
                return
            if not line:
                return
            self.failed = msgspec.json.decode(line, type=Notice).failed
            await _run(self._failed_callbacks)

    def _hang_up(self) -> None:
        caller, self._socket = self._socket, None
        if caller is not None:
            caller.close()


def _key(spec: KeeperSpec, cwd: str) -> str:
    """Make the key of a keeper: equal for processes that can share it, with equal messages."""
    parts = [
        os.getuid(),
        cwd,
        sys.executable,
        Path(messages.__file__).stat().st_mtime_ns,
        spec.tasks,
        spec.main,
        spec.pool,
        spec.cores,
        sorted(i for i in spec.settings.items() if FIELDS[i[0]].setting.keeper == "agree"),
        None if spec.share else secrets.token_hex(8),
    ]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def _send_stderr(caller: socket.socket) -> None:
    try:
        os.fstat(2)
    except OSError:
        caller.send(b"-")  # This process has no stderr.
    else:
        socket.send_fds(caller, [b"+"], [2])


def _stderr_or_null() -> int:
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


async def _read_line(caller: socket.socket) -> bytes:
    """Read the next line, and nothing after it; empty if the other side is gone."""
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        first = await loop.sock_recv(caller, 1)
        if not first:
            return b""
        line += first
        if first != b"\n":
            try:
                ahead = caller.recv(4096, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            line += caller.recv(ahead.find(b"\n") + 1 or len(ahead))
    return line


async def _run(callbacks: list[Callback]) -> None:
    for callback in callbacks:
        try:
            await callback()
        except Exception:
            logger.exception("a callback failed")


def _let_go_in_child() -> None:
    # A forked child is not a user: it would keep the keeper alive for as long as it lives.
    for membership in list(_memberships):
        membership._hang_up()


os.register_at_fork(after_in_child=_let_go_in_child)
