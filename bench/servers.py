"""The HTTP servers that are measured, each in a process of its own, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

import psutil

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
# Kind of clock in the number that clock_getcpuclockid(3) makes of a process's id.
CPU_CLOCK = 2
# Processes of an `up`, by a part of their command.
PARTS = {"jetmap.cli api": "gateway", "jetmap.cli worker": "agent", "nats-server": "nats-server"}


@dataclass(frozen=True)
class Server:
    """Server that answers on ``port``.

    pid: the process that listens there. started: the process that was started for it, whose
    children may serve it; the same if unknown.
    """

    port: int
    pid: int
    started: int = 0

    def cpu_seconds(self) -> float:
        """Sum the CPU seconds of its processes so far; those that have ended are left out."""
        first = psutil.Process(self.started or self.pid)
        return sum(cpu_seconds(process.pid) for process in (first, *first.children(recursive=True)))

    def peak_memory(self) -> int:
        """The largest resident size so far, in bytes."""
        return peak_memory(self.pid)

    def forget_peak(self) -> None:
        """Reset the peak (proc(5), ``clear_refs``)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """The CPU seconds of a process, with threads that have ended (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | CPU_CLOCK)


def peak_memory(pid: int | str = "self") -> int:
    """A process's largest resident size so far, in bytes (``VmHWM``)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {pid} has no VmHWM")


@asynccontextmanager
async def pool_server(cores: int) -> AsyncIterator[Server]:
    """``bench.poolapp`` under uvicorn."""
    async with _uvicorn("bench.poolapp:app", {"BENCH_CORES": str(cores)}) as server:
        yield server


@asynccontextmanager
async def echo_server() -> AsyncIterator[Server]:
    """``bench.echoapp`` under uvicorn."""
    async with _uvicorn("bench.echoapp:app", {}) as server:
        yield server


@asynccontextmanager
async def _uvicorn(app: str, environment: Mapping[str, str]) -> AsyncIterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--log-level", "warning"]
    async with _served([*command, "--no-access-log"], port, environment) as server:
        yield server


@asynccontextmanager
async def gateway_server(
    directory: Path = ROOT, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """``jetmap up bench/tasks.py``: broker, workers and gateway.

    directory: where it runs; ``config/jetmap.toml`` there is its configuration.
    environment: variables besides those of this process.
    """
    port, nats_port = free_port(), free_port()
    command = [sys.executable, "-c", "from jetmap.cli import main; main()", "up"]
    command.append(str(ROOT / "bench/tasks.py"))
    variables = {"JETMAP_PORT": str(port), "JETMAP_NATS_PORT": str(nats_port)}
    with tempfile.TemporaryDirectory() as store:  # nothing is left of the run before
        variables |= {"JETMAP_STORE": store, **(environment or {})}
        async with _served(
            command, port, variables, ready="/readyz", directory=directory
        ) as server:
            yield server


def processes(server: Server) -> dict[str, list[psutil.Process]]:
    """Return the processes of an `up`, by what they are."""
    up = psutil.Process(server.pid).parent()
    found: dict[str, list[psutil.Process]] = {}
    for process in up.children(recursive=True) if up is not None else []:
        command = " ".join(process.cmdline()[:5])
        names = [name for part, name in PARTS.items() if part in command]
        found.setdefault(names[0] if names else "workers", []).append(process)
    return found


def free_port() -> int:
    """Find a port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def _served(
    command: Sequence[str],
    port: int,
    environment: Mapping[str, str],
    ready: str = "/healthz",
    directory: Path = ROOT,
) -> AsyncIterator[Server]:
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            command,
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            await _until_ready(process, f"http://127.0.0.1:{port}{ready}", output)
            yield Server(port, _listener(process.pid, port), process.pid)
        finally:
            await stop(process)


async def _until_ready(process: subprocess.Popen[bytes], url: str, output: IO[bytes]) -> None:
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT
    while not await asyncio.to_thread(_answers, url):
        ended = process.poll() is not None
        if ended or asyncio.get_running_loop().time() > deadline:
            output.seek(0)
            tail = output.read().decode(errors="replace")[-4000:]
            state = f"ended with {process.returncode}" if ended else "does not answer"
            raise RuntimeError(f"{' '.join(map(str, process.args))} {state}:\n{tail}")  # type: ignore[arg-type]
        await asyncio.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):  # not listening yet, or not ready: asked again
        return False


def _listener(pid: int, port: int) -> int:
    """The process that answers on ``port``: a parent may hold the same socket for its child."""
    process = psutil.Process(pid)
    holders = [
        candidate.pid
        for candidate in (process, *process.children(recursive=True))
        for connection in candidate.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    ]
    return holders[-1] if holders else pid


async def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process: politely, then by force."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.to_thread(process.wait, STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)
