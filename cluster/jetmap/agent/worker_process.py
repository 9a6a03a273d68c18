"""A worker process as its agent sees it: started, spoken to, killed, and its death explained."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from jetmap.wire import frames
from jetmap.wire.messages import Setup, StartFailed, encode
from jetmap.worker.progress import Progress
from jetmap.worker.spawn import MARK, spawn_worker

from .descendants import end_marked
from .options import AgentOptions
from .output_relay import WorkerOutput, output_relay
from .worker_pipe import AgentPipe

_failed = msgspec.msgpack.Decoder(StartFailed).decode


@dataclass(frozen=True)
class Death:
    """signal or exit_code: how it ended. peak_memory: the largest it was, in bytes."""

    signal: int | None
    exit_code: int | None
    peak_memory: int

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was killed by {signal_name(self.signal)}"
        return f"exited with code {self.exit_code}"


def signal_name(number: int) -> str:
    """``SIGSEGV`` and the like, or the number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class StartError(Exception):
    """The system cannot start a worker process now. failure: how to say so."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        message = f"the worker process cannot be started: {cause}"
        self.failure = StartFailed(type(cause).__name__, message, "")


class WorkerProcess:
    """One process on one core. Made by ``start``; ends by ``kill`` or by its own fault.

    Whichever it is: what its functions started dies with it, what it had sent can still be
    received, and then the pipe is closed. ``gone`` waits for all that.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: AgentPipe,
        progress: Progress,
        mark: str,
        output: WorkerOutput,
    ) -> None:
        self.pid = process.pid
        self.progress = progress
        self._output = output
        output.mark = self.describe
        self._pipe = channel
        self._mark = mark
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._death: asyncio.Future[Death] = self._loop.create_future()
        self._swept: asyncio.Future[None] | None = None

    @classmethod
    async def start(cls, options: AgentOptions, cpu: int | None, setup: Setup) -> WorkerProcess:
        """Starts it and sends what it shall import; its first frame says how that went.

        Raises StartError where the system has no process, memory or file for it, or its
        directory is gone.
        """
        try:
            return await cls._start(options, cpu, setup)
        except (OSError, RuntimeError, MemoryError, subprocess.SubprocessError) as error:
            raise StartError(error) from error

    @classmethod
    async def _start(cls, options: AgentOptions, cpu: int | None, setup: Setup) -> WorkerProcess:
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                progress = Progress.create()
                undo.callback(progress.close)
                mark = secrets.token_hex(8)
                relay = output_relay()
                output = relay.open(setup.output_bytes)
                undo.callback(output.discard)
                process = spawn_worker(
                    sys_path=options.sys_path,
                    cwd=options.cwd,
                    pipe=theirs,
                    progress_fd=progress.fd,
                    raw_output=output.sink,
                    output_fd=relay.target,
                    cpu=cpu,
                    mark=mark,
                    nice=options.nice,
                )
            undo.callback(process.wait)
            undo.callback(process.kill)
            channel = await AgentPipe.open(ours)
            undo.callback(channel.close)
            worker = cls(process, channel, progress, mark, output)
            _watch(process, worker._died)
            undo.pop_all()
            output.started()
        channel.send(frames.SETUP, encode(setup))
        return worker

    @property
    def has_answered(self) -> bool:
        """Whether a frame waits: after the start, that it is ready, or why it is not."""
        return self._pipe.has_frames

    @property
    def is_warm(self) -> bool:
        """Whether it has said that it is ready, and nobody has received that yet."""
        return self._pipe.next_kind == frames.READY and not self.is_dead

    @property
    def has_failed(self) -> bool:
        """Whether it has said that it cannot start, or died, and nobody has received that yet."""
        return self.has_answered and not self.is_warm

    @property
    def is_dead(self) -> bool:
        return self._death.done()

    @property
    def start_seconds(self) -> float:
        """From its start to its first frame; 0 before that."""
        first = self._pipe.first_at
        return first - self._started_at if first is not None else 0.0

    def send_chunk(self, chunk: bytes) -> None:
        self._pipe.send(frames.CHUNK, chunk)

    async def receive(self) -> tuple[bytes, bytes] | None:
        """The worker's next frame, or None when it is dead and all it sent was read."""
        return await self._pipe.receive()

    async def death(self) -> Death:
        return await asyncio.shield(self._death)

    async def failure(self) -> StartFailed:
        """Of one that ``has_failed``: why."""
        while (received := await self.receive()) is not None:
            if received[0] == frames.FAILED:
                return _failed(received[1])
        return failure_of(await self.death())

    async def gone(self) -> None:
        """Until it is dead, and all that its functions started."""
        await self.death()
        if self._swept is not None:
            await self._swept

    async def end(self) -> None:
        """Kills it, and waits until nothing of it is left."""
        self.kill()
        await self.gone()
        self.close()

    def kill(self) -> None:
        """Ends the worker and its process group; all else follows from its death."""
        if not self._death.done():
            _kill_group(self.pid)

    def describe(self) -> str:
        """What stands before what it prints, when nobody knows more."""
        return f"[worker {self.pid}]"

    def mark_output(self, mark: Callable[[], str]) -> None:
        """Have what it prints past ``sys.stdout`` marked so; called from another thread."""
        self._output.mark = mark

    def close(self, mark: str = "") -> None:
        """Frees what belongs to the process; after its death. mark: of its last words."""
        self._pipe.close()
        last_words = [kept.read() for kept in self.progress.last_words]
        self._output.end(mark or self.describe(), last_words)
        self.progress.close()

    def _died(self, death: Death) -> None:
        if self._death.done():
            return
        self._death.set_result(death)
        self._pipe.finish()
        self._swept = self._loop.run_in_executor(None, end_marked, MARK, self._mark)

    def memory(self) -> int:
        """Resident bytes now; 0 if the system does not say."""
        import psutil

        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0


def failure_of(death: Death) -> StartFailed:
    """Of a worker that died before it said that it is ready."""
    return StartFailed("WorkerStartFailed", f"the worker {death} while it started", "")


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # Nothing of it is left.


def _watch(process: subprocess.Popen[bytes], died: Callable[[Death], None]) -> None:
    """Calls ``died`` when the process is dead, in the event loop. Ends what is left of its group;
    reaps it, which also tells its peak memory."""
    loop = asyncio.get_running_loop()

    def reap() -> Death:
        _, status, usage = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        process.returncode = code
        scale = 1 if os.uname().sysname == "Darwin" else 1024
        peak = usage.ru_maxrss * scale
        return Death(-code if code < 0 else None, code if code >= 0 else None, peak)

    if hasattr(os, "pidfd_open"):
        pidfd = os.pidfd_open(process.pid)

        def readable() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            _kill_group(process.pid)  # Its number is its own until it is reaped.
            died(reap())

        loop.add_reader(pidfd, readable)
    else:

        def wait() -> None:
            death = reap()
            _kill_group(process.pid)
            if not loop.is_closed():
                loop.call_soon_threadsafe(died, death)

        threading.Thread(target=wait, daemon=True, name=f"reap-{process.pid}").start()
