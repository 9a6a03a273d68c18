"""Watch a worker's chunk: for an item that takes too long, and for items that others could take."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from jetmap.wire.worker_start import Broken, Importing
from jetmap.worker.progress import ProgressPages

from .worker_state import Death

# Seconds in one small chunk after which those behind it are handed back. Small chunks travel
# together because all of them should take five milliseconds.
JAM_SECONDS = 0.05
AGAIN_SECONDS = 0.005  # Seconds between two looks at a chunk's budget, at least.
LOOK_SECONDS = 0.5  # Seconds between two looks at an item, at most.
LOADER_SECONDS = 5.0  # Seconds after its time when a loader is ended from outside, at last.
FROZEN_SECONDS = 0.5  # Seconds by which a look is late if this process was frozen.


class Watch:
    """A watch that looks again and again, until it is cancelled."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        seconds = self._seconds_left()
        if seconds > 0:
            self._timer = self._loop.call_later(seconds, self._look)

    def _seconds_left(self) -> float:
        """Return the seconds until the next look; 0 ends the watch."""
        raise NotImplementedError


class Deadline(Watch):
    """Watch for an item of one chunk that computes for longer than its timeout.

    Time for which this process was frozen does not count: its worker may have been frozen too, as
    when a container is paused.

    Args:
        number: Number of the worker's chunk.
        timeout: Seconds that an item may take.
        passed: Called with the item's index, and whether it was its function's first in the worker.
        allowance: Seconds more for such a first item; asked at each look.
    """

    def __init__(
        self,
        progress: ProgressPages,
        number: int,
        timeout: float,
        passed: Callable[[int, bool], None],
        allowance: Callable[[], float] = float,
    ) -> None:
        self._progress = progress
        self._number = number
        self._timeout = timeout
        self._passed = passed
        self._allowance = allowance
        self._looked = time.monotonic()
        self._started = 0  # Start of the item that was in progress at the last look.
        self._frozen = 0.0  # Seconds of that item for which this process was frozen.
        super().__init__(min(timeout, LOOK_SECONDS))

    def _seconds_left(self) -> float:
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        cold = self._progress.is_cold
        item, started = self._progress.item, self._progress.started_ns
        # The worker may be in its next chunk already, and the end of this one in the pipe.
        if item is None or not started or self._progress.begun != self._number:
            return min(self._timeout, LOOK_SECONDS)
        if started != self._started:
            self._started, self._frozen = started, 0.0
        age = now - started / 1e9
        if gap > LOOK_SECONDS + FROZEN_SECONDS:
            self._frozen = min(self._frozen + gap, age)
        most = self._timeout + self._allowance() if cold else self._timeout
        left = most - (age - self._frozen)
        if left > 0:
            return min(max(0.01, left), LOOK_SECONDS)
        self._passed(item, cold)
        return 0


class Overrun(Watch):
    """Watch for a chunk whose budget is spent while it is still in an item.

    The worker itself gives items back only between two of them.

    Args:
        number: Number of the worker's chunk.
        start: Index of the chunk's first item.
        budget: Seconds that the chunk has at least.
        spent: Called once, when the worker may begin no further item and is still in one.
    """

    def __init__(
        self,
        progress: ProgressPages,
        number: int,
        start: int,
        budget: float,
        spent: Callable[[], None],
    ) -> None:
        self._progress = progress
        self._number = number
        self._start = start
        self._spent = spent
        super().__init__(max(AGAIN_SECONDS, budget))

    def _seconds_left(self) -> float:
        begun, item = self._progress.begun, self._progress.item
        if begun > self._number:
            return 0  # The worker has ended this chunk; its frame is on its way.
        due = 0.0 if item is None else self._progress.due(item - self._start)
        if begun < self._number or not due:
            return AGAIN_SECONDS  # The chunk is being decoded, or its function imported.
        if (left := due - time.monotonic()) > 0:
            return max(AGAIN_SECONDS, left)
        self._spent()
        return 0


class Jam(Watch):
    """Watch for a small chunk that takes long while others wait behind it in the same worker.

    Args:
        number: Number of the chunk that the worker begins now.
        jammed: Called once, when the worker has been in one chunk for ``JAM_SECONDS`` or, at most,
            twice that.
    """

    def __init__(self, progress: ProgressPages, number: int, jammed: Callable[[], None]) -> None:
        self._progress = progress
        self._begun = number
        self._jammed = jammed
        super().__init__(JAM_SECONDS)

    def _seconds_left(self) -> float:
        begun, self._begun = self._begun, self._progress.begun
        if begun != self._begun:
            return JAM_SECONDS
        self._jammed()
        return 0


def load_failure(importing: Importing, death: Death, *, is_late: bool = False) -> str:
    """Describe the death of a worker in a loader."""
    loader, home = importing.loader, importing.home.rpartition(":")[2]
    if is_late or death.signal == signal.SIGALRM:
        return (
            f"{loader}, which loads what {home} needs, did not end within {importing.seconds:g} s; "
            "the worker's output shows where it was. Raise the setting load_timeout, or the "
            "timeout in per_worker(…)"
        )
    hint = "; perhaps it ran out of memory" if death.signal == signal.SIGKILL else ""
    return f"the worker {death} in {loader}, which loads what {home} needs{hint}"


def import_failure(importing: Importing, death: Death, process: str = "the worker") -> str:
    """Describe the death of a process in an import."""
    if death.exit_code is not None:
        hint = (
            "; an import must not end its process: put what does so, such as os._exit(), under "
            'if __name__ == "__main__":'
        )
    elif death.signal == signal.SIGKILL:
        hint = "; perhaps it ran out of memory"
    else:
        named = importing.home if importing.home.endswith(".py") else f"-m {importing.home}"
        hint = f"; native code crashed: `python -X faulthandler {named}` shows where"
    return f"{process} {death} while it imported {importing.home}{hint}"


class ImportWatch:
    """Limit the time for which the import of a caller's module, or a loader, may hold up a core.

    Args:
        patience: Seconds that an import may take.
        expired: Called once, when one takes longer.
    """

    def __init__(self, patience: float, expired: Callable[[], None]) -> None:
        self._patience = patience
        self._expired = expired
        self._importing = Importing()
        self._has_expired = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_importing(self) -> bool:
        return bool(self._importing.home)

    @property
    def loader(self) -> str:
        """The ``per_worker`` loader in progress, or empty."""
        return self._importing.loader

    def on_importing(self, importing: Importing) -> None:
        """Record that an import or a loader begins or, without a name, has ended."""
        self._importing, self._has_expired = importing, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if importing.home:
            loop = asyncio.get_running_loop()
            # The kernel ends a worker whose loader takes too long; this one is for a loader that
            # has prevented that.
            seconds = importing.seconds + LOADER_SECONDS if importing.loader else self._patience
            self._timer = loop.call_later(seconds, self._expire)

    def on_death(self, death: Death, *, was_killed: bool) -> Broken | None:
        """End the watch; return the module or loader, if that has killed the worker."""
        importing, has_expired = self._importing, self._has_expired
        self.on_importing(Importing())
        if not importing.home or (was_killed and not has_expired):
            return None
        if importing.loader:
            text = load_failure(importing, death, is_late=has_expired)
            return Broken(importing.home, text, [], importing.loader)
        why = import_failure(importing, death)
        if has_expired:
            why = (
                f"the import of {importing.home} did not end within {self._patience:g} s "
                "(start_timeout)"
            )
        return Broken(importing.home, why, [importing.file] if importing.file else [])

    def _expire(self) -> None:
        self._has_expired = True
        self._expired()
