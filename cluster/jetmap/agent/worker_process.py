"""A worker process on its agent's side: start it, exchange frames, kill it, explain its death."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import msgspec

from jetmap.machine import advice_for
from jetmap.wire import frames
from jetmap.wire.messages import Together, encode
from jetmap.wire.worker_start import Importing, Setup, StartFailed
from jetmap.worker.progress import ProgressPages
from jetmap.worker.spawn import MARK, spawn_worker

from .descendants import end_marked
from .options import AgentOptions
from .output_relay import WorkerOutput, output_relay
from .watchdogs import import_failure, load_failure
from .worker_state import Death

# Seconds for a worker's ``atexit`` functions when it is dismissed.
DISMISS_SECONDS = 5.0
# Seconds for a worker to end once its pipe is closed. The system closes the files of a process that
# ends before it says how the process has ended.
EXIT_SECONDS = 2.0

_importing = msgspec.msgpack.Decoder(Importing).decode
_failed = msgspec.msgpack.Decoder(StartFailed).decode


class StartError(Exception):
    """The system cannot start a worker process now.

    Attributes:
        failure: The reason, for the agent to announce.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        message = f"the worker process cannot be started: {cause}{advice_for(cause)}"
        self.failure = StartFailed(type(cause).__name__, message, "")


class WorkerProcess:
    """One process on one core, made by ``start``; it ends by ``kill``, ``dismiss``, or itself.

    Either way, the processes that its functions started die with it, the frames that it had sent
    can still be received, and then the pipe is closed. ``gone`` waits for all of that.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: frames.AgentPipe,
        progress: ProgressPages,
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
        """Start a process and send its setup; its first frame says how its imports went.

        Raises StartError as ``spawn`` does.
        """
        worker = await cls.spawn(options, cpu)
        worker.begin(setup)
        return worker

    @classmethod
    async def spawn(cls, options: AgentOptions, cpu: int | None) -> WorkerProcess:
        """Start a process, which imports what each worker needs and waits for its setup.

        Raises StartError if the system has no process, memory or file for it, or its directory is
        gone.
        """
        try:
            return await cls._spawn(options, cpu)
        except (OSError, RuntimeError, MemoryError, subprocess.SubprocessError) as error:
            raise StartError(error) from error

    @classmethod
    async def _spawn(cls, options: AgentOptions, cpu: int | None) -> WorkerProcess:
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                progress = ProgressPages.create()
                undo.callback(progress.close)
                mark = secrets.token_hex(8)
                relay = output_relay()
                output = relay.open(options.setup.output_bytes, options.setup.log_format)
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
                    nice=options.workers.nice,
                )
            undo.callback(process.wait)
            undo.callback(process.kill)
            channel = await frames.AgentPipe.open(ours)
            undo.callback(channel.close)
            worker = cls(process, channel, progress, mark, output)
            _watch(process, worker._died)
            undo.pop_all()
            output.started()
        return worker

    def begin(self, setup: Setup) -> None:
        """Send the setup of a process that was only spawned: it imports the tasks now."""
        self._pipe.send(frames.SETUP, encode(setup))

    @property
    def has_answered(self) -> bool:
        """Return whether a frame waits; the first one says whether the worker is ready."""
        return self._pipe.has_frames

    @property
    def is_warm(self) -> bool:
        """Return whether the worker is ready, and that frame has not been received yet."""
        return self._pipe.has(frames.READY) and not self.is_dead

    @property
    def has_failed(self) -> bool:
        """Return whether an unreceived frame or death says that the worker could not start."""
        return self._pipe.is_closed or self._pipe.has(frames.FAILED) or self.is_dead

    @property
    def is_dead(self) -> bool:
        return self._death.done()

    @property
    def start_seconds(self) -> float:
        """Seconds from its start to its first frame; 0 before that."""
        first = self._pipe.first_at
        return first - self._started_at if first is not None else 0.0

    def send(self, kind: bytes, payload: bytes) -> None:
        self._pipe.send(kind, payload)

    def send_chunk(self, chunk: bytes) -> None:
        self._pipe.send(frames.CHUNK, chunk)

    def send_batch(self, together: Together) -> None:
        """Announce that the chunks that follow are computed together."""
        self._pipe.send(frames.BATCH, encode(together))

    def send_items(self, parts: Sequence[bytes]) -> None:
        """Send the items of the next chunk, which does not have them."""
        self._pipe.send_parts(frames.ITEMS, parts)

    def receive(self) -> Awaitable[tuple[bytes, bytes] | None]:
        """Return the worker's next frame, or None when it is dead and all frames were read."""
        return self._pipe.receive()

    async def death(self) -> Death:
        return await asyncio.shield(self._death)

    async def failure(self) -> StartFailed:
        """Return the reason why a worker that ``has_failed`` cannot start."""
        importing = Importing()
        while (received := await self.receive()) is not None:
            if received[0] == frames.FAILED:
                return _failed(received[1])
            if received[0] in (frames.IMPORTING, frames.TASK):
                importing = _importing(received[1])
        return failure_of(await self.end_behind_pipe(), importing)

    async def end_behind_pipe(self) -> Death:
        """Return the death of a worker whose pipe is closed; kill it if it does not end by itself.

        Killed at once, a worker that has exited would seem to have been killed.
        """
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                return await self.death()
        except TimeoutError:
            self.kill()
            return replace(await self.death(), has_closed=True)

    async def gone(self) -> None:
        """Wait until it is dead, with all processes that its functions started."""
        await self.death()
        if self._swept is not None:
            await self._swept

    async def end(self) -> None:
        """Kill it, and wait until nothing of it is left."""
        self.kill()
        await self.gone()
        self.close()

    def dismiss(self) -> None:
        """Let an idle worker end as programs do: its ``atexit`` functions run, within a limit."""
        if not self._death.done():
            self._pipe.send_end()
            limit = self._loop.call_later(DISMISS_SECONDS, self.kill)
            self._death.add_done_callback(lambda death: limit.cancel())

    def kill(self) -> None:
        """Kill the worker and its process group; the rest follows from its death."""
        if not self._death.done():
            _kill_group(self.pid)

    def describe(self) -> str:
        """Return the mark of its output when its item is not known."""
        return f"[worker {self.pid}]"

    def mark_output(self, mark: Callable[[], str]) -> None:
        """Set the function, called from another thread, that marks output past ``sys.stdout``."""
        self._output.mark = mark

    def close(self, mark: str = "") -> None:
        """Free what belongs to the process, after its death. mark: of its last words."""
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
        """Return its resident bytes, without those that it shares; 0 if the system does not say."""
        import psutil

        try:
            found = psutil.Process(self.pid).memory_info()
            return int(found.rss - getattr(found, "shared", 0))
        except psutil.Error:
            return 0


def failure_of(death: Death, importing: Importing | None = None) -> StartFailed:
    """Describe the death of a worker that was not ready yet."""
    if importing is None or not importing.home:
        return StartFailed("WorkerStartFailed", f"the worker {death} while it started", "")
    describe = load_failure if importing.loader else import_failure
    files = [importing.file] if importing.file else []
    return StartFailed("WorkerStartFailed", describe(importing, death), "", files)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # No process of the group is left.


def _watch(process: subprocess.Popen[bytes], died: Callable[[Death], None]) -> None:
    """Call ``died`` in the event loop when the process is dead.

    Its process group is killed then, and the process reaped, which also yields its peak memory.
    """
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
            _kill_group(process.pid)  # Until it is reaped, the pid cannot be another process's.
            died(reap())

        loop.add_reader(pidfd, readable)
    else:

        def wait() -> None:
            death = reap()
            _kill_group(process.pid)
            if not loop.is_closed():
                loop.call_soon_threadsafe(died, death)

        threading.Thread(target=wait, daemon=True, name=f"reap-{process.pid}").start()
