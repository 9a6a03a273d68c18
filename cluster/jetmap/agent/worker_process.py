"""A worker process as its agent sees it: started, spoken to, killed, and its death explained."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass

from jetmap.messages import Crash, Setup, encode
from jetmap.worker import pipe
from jetmap.worker.progress import Progress
from jetmap.worker.spawn import spawn_worker

from .options import AgentOptions
from .pipe import AgentPipe


@dataclass(frozen=True)
class Death:
    """signal or exit_code: how it ended. peak_memory: the largest it was, in bytes."""

    signal: int | None
    exit_code: int | None
    peak_memory: int

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                return f"was killed by {signal.Signals(self.signal).name}"
            except ValueError:
                return f"was killed by signal {self.signal}"
        return f"exited with code {self.exit_code}"


class WorkerProcess:
    """One process on one core. Made by ``start``; ends by ``kill`` or by its own fault."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: AgentPipe,
        progress: Progress,
        death: asyncio.Future[Death],
    ) -> None:
        self.pid = process.pid
        self.progress = progress
        self._pipe = channel
        self._death = death
        self._process = process

    @classmethod
    async def start(cls, options: AgentOptions, cpu: int | None, setup: Setup) -> WorkerProcess:
        """Starts it and sends what it shall import; its first frame says how that went."""
        ours, theirs = socket.socketpair()
        progress = Progress.create()
        try:
            process = spawn_worker(
                sys_path=options.sys_path,
                cwd=options.cwd,
                pipe=theirs,
                progress_fd=progress.fd,
                cpu=cpu,
                nice=options.nice,
            )
        except BaseException:
            ours.close()
            progress.close()
            raise
        finally:
            theirs.close()
        death = _watch(process)
        channel = await AgentPipe.open(ours)
        channel.send(pipe.SETUP, encode(setup))
        return cls(process, channel, progress, death)

    @property
    def has_answered(self) -> bool:
        """Whether a frame waits: after the start, that it is ready, or why it is not."""
        return self._pipe.has_frames

    def send_chunk(self, chunk: bytes) -> None:
        self._pipe.send(pipe.CHUNK, chunk)

    async def receive(self) -> tuple[bytes, bytes] | None:
        """The worker's next frame, or None when it is dead and all it sent was read."""
        return await self._pipe.receive()

    async def death(self) -> Death:
        return await asyncio.shield(self._death)

    def kill(self) -> None:
        """Ends the worker and every process that its function started in its group."""
        if self._death.done():
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # It died meanwhile; its death is reported as any other.
        # A child that left the group may hold the worker's end of the pipe open.
        asyncio.get_running_loop().call_later(1.0, self._pipe.close)

    def close(self) -> None:
        """Frees what belongs to the process; after its death."""
        # What it started must not outlive it, as when it crashed on its own.
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # Nothing of its group is left.
        self._pipe.close()
        self.progress.close()

    def memory(self) -> int:
        """Resident bytes now; 0 if the system does not say."""
        import psutil

        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0


def crash_of(death: Death, item: int | None, host: str) -> Crash:
    """The report of a death that nobody ordered."""
    message = f"the worker {death} in this item; its memory peaked at {_mib(death.peak_memory)}"
    return Crash(item, "died", message, death.signal, death.exit_code, death.peak_memory, host)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _watch(process: subprocess.Popen[bytes]) -> asyncio.Future[Death]:
    """A future of the process's death; reaps it, which also tells its peak memory."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Death] = loop.create_future()

    def reap() -> Death:
        _, status, usage = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        process.returncode = code
        scale = 1 if os.uname().sysname == "Darwin" else 1024
        peak = usage.ru_maxrss * scale
        return Death(-code if code < 0 else None, code if code >= 0 else None, peak)

    def settle(death: Death) -> None:
        if not future.done():
            future.set_result(death)

    if hasattr(os, "pidfd_open"):
        pidfd = os.pidfd_open(process.pid)

        def readable() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            settle(reap())

        loop.add_reader(pidfd, readable)
    else:

        def wait() -> None:
            death = reap()
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, death)

        threading.Thread(target=wait, daemon=True, name=f"reap-{process.pid}").start()
    return future
