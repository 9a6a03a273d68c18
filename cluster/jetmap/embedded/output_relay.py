"""Send what a process and its children print to a descriptor that can be changed."""

from __future__ import annotations

import os
import select
import threading
from collections import deque

from jetmap.worker.output import write_all

CHUNK = 65536


class Relay:
    """A relay for stdout and stderr of this process and of those that it starts from now on.

    They print into a pipe, and a thread passes it on, so the target descriptor can be changed and
    closed at any time although children live on. (It is a thread because the reader of the target
    may be slow.)
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
        """Send what is printed from now on to ``target``, or nowhere.

        The relay owns ``target`` from then on. Earlier output still goes to the earlier target.
        """
        self._targets.append(target)
        os.write(self._waker, b"t")

    def close(self, timeout: float = 0.5) -> None:
        """Pass on what was printed; wait at most ``timeout`` seconds for the reader."""
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
            if self._target is not None:
                try:
                    write_all(self._target, data)
                except OSError:
                    self._switch(None)  # Its reader is gone.

    def _switch(self, target: int | None) -> None:
        if self._target is not None:
            os.close(self._target)
        self._target = target
