"""Relay output that bypasses ``sys.stdout``: of C code, child processes, a dying interpreter.

A function's own prints go to the agent's stderr directly, cut and marked by the worker
(``worker/output.py``). All other output to a worker's descriptors 1 and 2 comes here through a
pipe, and is marked with the item in progress when it arrives. A thread does this, because the
reader of the agent's stderr may be slow.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from jetmap.worker.lines import SHOW_SECONDS, MarkedLines, OutputBudget, renderer
from jetmap.worker.output import write_all

READ_BYTES = 65_536  # Bytes to read at once.


class WorkerOutput:
    """The pipe of one worker.

    Attributes:
        sink: The worker's end; closed here by ``started``.
        mark: Called for the mark of output that arrives.
    """

    def __init__(self, relay: OutputRelay, rate: int, form: str) -> None:
        self.source, self.sink = os.pipe()
        os.set_blocking(self.source, False)
        self.mark: Callable[[], str] = lambda: "[worker]"
        self.lines = MarkedLines(OutputBudget(rate), render=renderer(form))
        self.last_at = 0.0
        self._relay = relay

    def discard(self) -> None:
        """Close both ends: the worker could not be started."""
        os.close(self.sink)
        os.close(self.source)

    def started(self) -> None:
        """Close the worker's end here, and begin to relay."""
        os.close(self.sink)
        self._relay.submit(lambda: self._relay.add(self))

    def end(self, mark: str, last_words: Sequence[bytes]) -> None:
        """Write what a dead worker left, and then its unfinished lines."""
        self.mark = lambda: mark
        self._relay.submit(lambda: self._relay.finish(self, last_words))


class OutputRelay:
    """Pass on the output of workers to the descriptor ``target``, in a thread."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._calls: deque[Callable[[], None]] = deque()
        self._source, self._waker = os.pipe()
        os.set_blocking(self._source, False)
        os.set_blocking(self._waker, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._source, selectors.EVENT_READ)
        threading.Thread(target=self._run, name="worker-output", daemon=True).start()

    def open(self, rate: int, form: str = "text") -> WorkerOutput:
        """Make a pipe for one worker, which may print ``rate`` bytes a second.

        form: "text" or "json".
        """
        return WorkerOutput(self, rate, form)

    def submit(self, call: Callable[[], None]) -> None:
        """Have the relay's thread make this call; any thread may submit one."""
        self._calls.append(call)
        with contextlib.suppress(BlockingIOError):  # The pipe is full, so the thread is awake.
            os.write(self._waker, b"x")

    # In the thread

    def add(self, output: WorkerOutput) -> None:
        self._selector.register(output.source, selectors.EVENT_READ, output)

    def finish(self, output: WorkerOutput, last_words: Sequence[bytes]) -> None:
        while self._read(output):
            pass
        now = time.monotonic()
        self._write(output.lines.finish(now))
        for words in filter(None, last_words):
            self._write(output.lines.feed(words + b"\n", output.mark(), now))
        self._write(output.lines.finish(now))
        if output.source in self._selector.get_map():
            self._selector.unregister(output.source)
        os.close(output.source)

    def _run(self) -> None:
        unfinished: set[WorkerOutput] = set()
        while True:
            events = self._selector.select(SHOW_SECONDS if unfinished else None)
            for key, _ in events:
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._source, READ_BYTES)
                elif not self._read(key.data):
                    self._selector.unregister(key.fd)
                elif key.data.lines.unfinished:
                    unfinished.add(key.data)
            while self._calls:
                self._calls.popleft()()
            now = time.monotonic()
            for output in [one for one in unfinished if now - one.last_at >= SHOW_SECONDS]:
                unfinished.remove(output)
                self._write(output.lines.finish(now))

    def _read(self, output: WorkerOutput) -> bool:
        """Read once; return whether there may be more."""
        try:
            data = os.read(output.source, READ_BYTES)
        except OSError:
            return False  # Nothing waits.
        output.last_at = time.monotonic()
        self._write(output.lines.feed(data, output.mark(), output.last_at))
        return bool(data)

    def _write(self, writes: list[bytes]) -> None:
        with contextlib.suppress(OSError):  # Nobody reads the agent's stderr any more.
            for data in writes:
                write_all(self.target, data)


_relay: OutputRelay | None = None


def output_relay() -> OutputRelay:
    """Return this process's relay to its stderr, made at the first call."""
    global _relay
    if _relay is None:
        try:
            target = os.dup(2)
        except OSError:  # This process was started without a stderr.
            target = os.open(os.devnull, os.O_WRONLY)
        _relay = OutputRelay(target)
    return _relay
