"""Sends what a process and its children print to whoever wants it just now."""

from __future__ import annotations

import os
import select
import threading
from collections import deque

CHUNK = 65536


class Relay:
    """Takes over stdout and stderr of this process and of those that it starts from now on.

    They print into a pipe, and a thread passes it on; so the descriptor that it goes to can
    be changed and closed at any time, although children live on. (A thread, because the
    reader of that descriptor may be slow.)
    """

    def __init__(self) -> None:
        self._target: int | None = os.dup(2)
        self._targets: deque[int | None] = deque()
        self._source, sink = os.pipe()
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._source, False)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.close(sink)
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def point(self, target: int | None) -> None:
        """Send what is printed from now on to ``target``, which becomes the relay's, or
        nowhere. What was printed before still goes where it went."""
        self._targets.append(target)
        os.write(self._waker, b"t")

    def close(self, timeout: float = 0.5) -> None:
        """Pass on what was printed; waits at most ``timeout`` seconds for the reader."""
        os.write(self._waker, b"x")
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            readable, _, _ = select.select([self._source, self._wake], [], [])
            self._pass_on()
            if self._wake in readable:
                for order in os.read(self._wake, CHUNK):
                    if order == ord("x"):
                        return
                    self._switch(self._targets.popleft())

    def _pass_on(self) -> None:
        while True:
            try:
                data = os.read(self._source, CHUNK)
            except BlockingIOError:
                return
            view = memoryview(data)
            while view and self._target is not None:
                try:
                    view = view[os.write(self._target, view) :]
                except OSError:
                    self._switch(None)  # its reader is gone

    def _switch(self, target: int | None) -> None:
        if self._target is not None:
            os.close(self._target)
        self._target = target
